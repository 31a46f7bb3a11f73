"""What a whole run prints of its winner's parts: each part that differs, and measured where it was tried."""

from __future__ import annotations

import json
import random
from functools import partial
from pathlib import Path

import pytest

from agent.errors import RowRefused, RunRefused
from agent.jobs.optimize import RunState
from agent.ledger.query import History
from agent.ledger.store import Ledger
from agent.programs.moves.prompt_parts import leave_one_out
from agent.prompt.prompt_candidate import PromptCandidate
from agent.prompt.techniques import TECHNIQUES
from agent.release.result import RunResult, search_result
from agent.report import wording
from agent.report.blocks import TableBlock
from agent.report.run_blocks import run_sections
from agent.report.view import RunView
from agent.search.selection import corrected, uncorrected
from agent.types import Request
from tests.release.test_result import WHOLE
from tests.search.worlds import good_words, proposer, pupil
from tests.toys import FakeModel, executed, launched, make_task

TASK = make_task(60)


def skill(front: str) -> float:
    """A wording of the proposer's and demonstrations help, each by itself."""
    return 0.15 + 0.4 * ("Say which team" in front) + 0.35 * ("train note" in front)


def unlike(winner: PromptCandidate, baseline: PromptCandidate) -> set[str]:
    """The parts in which two candidates differ."""
    reasoning = [TECHNIQUES[one.technique].reasoning for one in (winner, baseline)]
    fields = ("instruction", "demos", "format", "role")
    found = {field for field in fields if getattr(winner, field) != getattr(baseline, field)}
    found = {"examples" if field == "demos" else field for field in found}
    return found | ({"technique"} if reasoning[0] != reasoning[1] else set())


async def ended(folder: Path, calls: int, seed: int) -> tuple[RunState, RunResult]:
    folder.mkdir()
    ledger = Ledger(folder / "ledger.db")
    launch = launched(TASK, FakeModel(pupil(skill)), proposer(good_words), seed=seed, max_calls=calls)
    try:
        return await executed(launch, ledger)
    finally:
        ledger.close()


async def test_the_ledger_keeps_what_the_result_writes_and_a_result_that_is_read_is_the_same(tmp_path: Path) -> None:
    run, result = await ended(tmp_path / "kept", 500, 0)
    (kept,) = History(tmp_path / "kept/ledger.db").runs()
    assert json.dumps(kept["result"], sort_keys=True) == json.dumps(result.to_json(), sort_keys=True)
    assert list(result.to_json()) == list(WHOLE), "the keys that docs/command-line.md lists"
    assert search_result(result.to_json(), result.ledger) == result
    assert len(result.blocked) == len(result.blocked_codes)
    assert result.ledger == run.session.ledger.path


async def test_a_sealed_test_without_any_score_says_why(tmp_path: Path) -> None:
    def answer(request: Request) -> str:
        if "test note" in request.messages[-1].content:
            raise RowRefused("the policy forbids it")
        return pupil(skill)(request)

    ledger = Ledger(tmp_path / "ledger.db")
    with pytest.raises(RunRefused, match=r"no row of the sealed test got a score .*the policy forbids it"):
        await executed(launched(TASK, FakeModel(answer), max_calls=300), ledger)
    ledger.close()


async def test_test_rows_that_only_the_winner_has_no_score_on_are_counted_as_wrong_beside_the_gain(
    tmp_path: Path,
) -> None:
    def answer(request: Request) -> str:
        text = str(request.messages)
        if "train note" in text and "test note" in text and random.Random(text).random() < 0.3:
            raise RowRefused("the prompt is too long for this row")
        return pupil(skill)(request)

    ledger = Ledger(tmp_path / "ledger.db")
    run, result = await executed(launched(TASK, FakeModel(answer), max_calls=500), ledger)
    ledger.close()
    history = History(tmp_path / "ledger.db")
    won, base = (
        [row["value"] for row in history.outcomes(run.session.id, candidate_id, "test")]
        for candidate_id in (result.winner.candidate_id, run.context.baseline.id)
    )
    differences = [(mine or 0.0) - yours for mine, yours in zip(won, base, strict=True)]
    assert result.lift.lost == won.count(None) > 0
    assert result.lift.diff_if_wrong == pytest.approx(sum(differences) / len(differences))
    assert result.lift.diff_if_wrong < result.lift.diff
    both = [(mine, yours) for mine, yours in zip(won, base, strict=True) if mine is not None]
    means = {
        "winner": sum(mine for mine, _ in both) / len(both),
        "baseline": sum(yours for _, yours in both) / len(both),
    }
    assert means["baseline"] != result.baseline.test, "the winner lost other rows than the average one"
    view = RunView(history, run.session.id)
    for side, mean in means.items():
        assert wording.sealed_score(result, side) == pytest.approx(mean)
        assert view.sealed[side][0] == pytest.approx(mean)
        assert f"{100 * mean:.1f}" in wording.meaning(result)
    assert f"the {len(both)} rows scored for both prompts" in wording.uneven(result)
    (section,) = run_sections(view.result, view, names=["result"])
    scores = section.on_page()[0]
    assert isinstance(scores, TableBlock)
    shown = {row[0]: row[1] for row in scores.rows}
    assert shown["your prompt"] == f"{100 * means['baseline']:.1f}"
    assert shown["best found"] == f"{100 * means['winner']:.1f}"


async def test_a_search_that_dropped_programs_by_parts_of_dev_has_no_corrected_figure_and_says_why(
    tmp_path: Path,
) -> None:
    run, result = await ended(tmp_path / "plain", 500, 0)
    assert (result.winner.dev_corrected is None, result.uncorrected, wording.uncorrected(result)) == (
        False,
        "",
        "",
    )
    run.context.pruned_externally = True
    winner = run.context.trials.candidate(result.winner.candidate_id)
    assert corrected(run.context, winner, "evolve") is None
    why = uncorrected(run.context, winner, "evolve")
    assert why == "evolve dropped programs by parts of dev, and what that adds is not known"
    assert (
        wording.uncorrected(result.model_copy(update={"uncorrected": why})) == f"the dev score is not corrected: {why}"
    )
    own = partial(uncorrected, run.context, run.context.baseline, "evolve")
    assert own() == "the best found was chosen by another rule than the best on dev"
    run.context.note("picks_not_proved", {"candidate_id": winner.id, "against": run.context.baseline.id})
    assert own().startswith("a prompt that picks its examples scored higher on dev")


async def test_rows_without_a_score_here_and_there_do_not_end_a_run(tmp_path: Path) -> None:
    """About one in ten, others for each prompt: no two candidates have all rows in common."""

    def answer(request: Request) -> str:
        text = str(request.messages)
        if "dev note" in text and random.Random(text).random() < 0.1:
            raise RowRefused("no answer to this one")
        return pupil(skill)(request)

    ledger = Ledger(tmp_path / "ledger.db")
    run, result = await executed(launched(make_task(100), FakeModel(answer), max_calls=900), ledger)
    ledger.close()
    assert min(map(len, run.context.trials.prefixes(list(run.context.trials.by_id)).values())) > 0
    assert result.winner.dev_corrected <= result.winner.dev + 0.1


async def test_a_run_tells_of_exactly_the_parts_that_differ_and_measures_those_it_tried(tmp_path: Path) -> None:
    hows: set[str] = set()
    for seed in range(3):
        run, result = await ended(tmp_path / str(seed), 800, seed)  # finalists take what fewer calls leave
        trials, baseline = run.context.trials, run.context.baseline
        winner = trials.candidate(result.winner.candidate_id)
        told = {row.part: row for row in result.attribution}
        assert len(told) == len(result.attribution)
        assert told.keys() == unlike(winner, baseline)
        for ablation in leave_one_out(winner, baseline):
            row, seen = told[ablation.part], trials.outcomes.get(ablation.candidate.id, [])
            low, high = row.ci95
            if len(seen) < len(run.context.dev):
                assert row.rows == 0
                assert row.how != "measured"
                continue
            assert row.rows == len(run.context.dev)
            assert row.how == ("unknown" if low <= 0 <= high else "measured")
            mine, theirs = ([o.value or 0.0 for o in trials.outcomes[i]] for i in (winner.id, ablation.candidate.id))
            assert row.points == pytest.approx(100 * (sum(mine) - sum(theirs)) / len(mine), abs=0.01)
        hows |= {row.how for row in told.values()}
    assert "measured" in hows, "both parts were made to matter much"
