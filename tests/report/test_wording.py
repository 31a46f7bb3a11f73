"""The words of a result: verdict, findings and sections for given figures; nothing is said that the result lacks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.ledger.query import ERASED
from agent.release.result import RunResult
from agent.report import next_steps as steps_of
from agent.report import run_blocks, run_tables, wording
from agent.report.blocks import shown_on
from agent.report.breakdown_blocks import confusion_table
from agent.report.next_steps import next_steps
from agent.report.prompt_texts import prompt_text
from agent.report.run_blocks import run_sections, screen_sections
from agent.report.run_tables import proposals
from agent.report.terminal import lines_of
from agent.results.breakdown import RowCount
from agent.results.run_parts import Yardstick
from agent.stats.figures import detectable_line
from agent.stats.power import detectable_gains
from agent.stats.preflight import assess
from tests.cli.world import files, good, good_json

RESULT: dict[str, Any] = {
    "run_id": "20260101T000000-abc", "task": "toy", "status": "complete", "model": "a/b", "seed": 0,
    "baseline": {"dev": 0.5, "test": 0.52},
    "winner": {
        "candidate_id": "c_1", "technique": "few-shot", "format": "inline", "n_examples": 16, "instruction": "Say it.",
        "dev": 0.81, "dev_corrected": 0.79, "test": 0.78, "prompt_tokens": 900,
    },
    "lift": {"diff": 0.26, "ci95": [0.15, 0.36], "p_value": 1e-5, "wins": 30, "losses": 4, "ties": 66, "n": 100},
    "decision": "promote",
    "trials": {"complete": 3, "pruned": 20, "failed": 0},
    "calls": {"model": 900, "proposer": 3, "judge": 0, "cached": 0},
    "tokens": {"prompt": 1000, "cached_prompt": 0, "completion": 10},
    "cost_usd": 0.0, "seconds": 1.0, "release": "runs/x/prompt.md", "ledger_head": "0" * 64,
}  # fmt: skip
PREFLIGHT = assess([1.0, 0.0] * 30, [1.0] * 10, 100)
OWN = {"technique": "zero-shot", "format": "turns", "n_examples": 0, "prompt_tokens": 30, "role": ""}
OWN |= {"tokens_a_call": 75}
USE = {"model": "a/b", "planned": 40, "asked": 3, "refused": 0, "failed": 0, "tried": 3, "finalists": 0, "won": False}
USE |= {"why_not": ""}
KEPT = {"decision": "keep_baseline", "blocked": ["not shown"]}
LOST = {"diff": 0.0, "n": 40, "wins": 0, "losses": 0, "ties": 40, "ci95": [0.0, 0.0], "p_value": 1.0}
LEFT_OUT = {"candidate_id": "c_2", "dev": 0.778, "baseline": 0.591, "rows": 22, "dev_rows": 44, "p_value": 0.04}
LEFT_OUT |= {"is_chance": False, "why": "the search ended before it had seen all of dev", "next": "--max-calls 600"}


def of(**parts: Any) -> RunResult:
    return RunResult.from_json({**RESULT, **parts})


def screen(**parts: Any) -> str:
    return "\n".join(lines_of(screen_sections(of(**parts))))


def lift(diff: float, ci95: list[float], p_value: float) -> dict[str, Any]:
    return {**RESULT["lift"], "diff": diff, "ci95": ci95, "p_value": p_value, "wins": 2, "losses": 20}


ONE, TWO = {"complete": 1, "pruned": 0, "failed": 0}, {"complete": 1, "pruned": 2, "failed": 0}
ENDED = {"search_ended": "the next call would pass the cap (max_calls = 300); give more"}
TIED = {"lift": LOST, "decision": "keep_baseline", "trials": TWO}


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({}, "Better: +26.0 points on 100 sealed test rows"),
        ({"lift": lift(-0.12, [-0.2, -0.05], 0.001), **KEPT},
         "Keep your prompt: the best found is worse, -12.0 points on 100 sealed test rows"),
        ({"lift": lift(-0.12, [-0.3, 0.05], 0.2), **KEPT},
         "Keep your prompt: -12.0 points on 100 sealed test rows is not significant"),
        ({"lift": lift(0.02, [-0.01, 0.1], 0.001), **KEPT},
         "Keep your prompt: +2.0 points on 100 sealed test rows is not shown, its 95 % interval includes 0"),
        ({"lift": lift(0.12, [0.05, 0.3], 0.001), **KEPT}, "Held back: +12.0 points on 100 sealed test rows"),
        ({**TIED, **ENDED}, "Keep your prompt: the search ended before another prompt was scored on all of dev"),
        (TIED, "Keep your prompt: nothing better was found"),
        ({**TIED, "trials": ONE}, "Your prompt was scored, and nothing was searched"),
        ({**TIED, "untested": LEFT_OUT}, "Keep your prompt: a prompt with a higher dev score was not tested"),
        ({**TIED, "untested": {**LEFT_OUT, "is_chance": True}},
         "Keep your prompt: no prompt scored on all of dev did better"),
    ],
)  # fmt: skip
def test_the_verdict_says_what_was_shown(parts: dict[str, Any], says: str) -> None:
    assert wording.verdict(of(**parts)) == says


def side(mean: float, lost: int = 0) -> dict[str, Any]:
    return {"mean": mean, "ci95": [0.0, 1.0], "n": 26 - lost, "unscored": lost}


def metrics(lost: int) -> list[dict[str, Any]]:
    row = {"field": "", "weight": 1.0, "diff": 0.0, "diff_ci95": [0.0, 0.0], "p_value": 1.0}
    read = {**row, "metric": "readable", "winner": side(1.0), "baseline": side(1.0)}
    return [read, {**row, "metric": "judge", "winner": side(0.9, lost), "baseline": side(0.1, 1)}]


def cut(**gaps: float) -> dict[str, Any]:
    group = {"value": "de", "winner": side(0.5), "baseline": side(0.5), "diff": 0, "diff_ci95": [0, 0], "p_value": 1.0}
    return {"slices": [{"slice": "lang", "groups": [group], **gaps}]}


UNEVEN = {"lift": {**RESULT["lift"], "lost": 20, "baseline": 0.6, "winner": 0.78}}
JUDGE = {"metric": "judge", "models": ["a"], "mode": "rubric", "why": "kappa is low", "compared": 20, "turned": 3}
JUDGE |= {"kappa": 0.31, "ci95": [0.1, 0.5], "trusted": False}


@pytest.mark.parametrize(
    ("parts", "says", "else_says"),
    [
        ({"trials": {"complete": 1, "pruned": 0, "failed": 11}, "failed_because": "1 of 4 rows unscored"},
         "11 candidates failed: 1 of 4 rows unscored", "failed:"),
        ({"cost_usd": 0.0065, "lost_usd": 0.0041}, "$0.0065 (up to $0.0041 of it for failed calls)", "of it for"),
        ({**TIED, "untested": LEFT_OUT}, "a prompt scored 77.8 on 22 of 44 dev rows (yours 59.1 there) and was not "
         "tested, because the search ended before it had seen all of dev; next: --max-calls 600", "was not tested"),
        ({**TIED, "untested": LEFT_OUT}, "resume 20260101T000000-abc --fork --max-calls 600", "--fork"),
        (UNEVEN, "sealed test scores are over the 100 rows scored for both prompts", "scored for both prompts"),
        ({"metrics": metrics(3)}, "1 and 3", "unscored"),
        (cut(winner_gap=0.0, winner_gap_p=1.0), "your prompt -; best found not significant (p = 1).", "groups"),
        (cut(winner_gap=0.4, winner_gap_p=0.001, baseline_gap=0.3, baseline_gap_p=0.2),
         "groups: your prompt not significant (p = 0.2); best found 40.0 points (p = 0.001)", "groups"),
        ({"judges": [JUDGE]}, "NOT TRUSTED, kappa 0.31 (0.10 to 0.50): kappa is low", "NOT TRUSTED"),
        ({"judges": [{**JUDGE, "trusted": True}]}, "3 of 20 verdicts changed with the order", "verdicts"),
    ],
)  # fmt: skip
def test_a_screen_says_what_a_result_has(parts: dict[str, Any], says: str, else_says: str) -> None:
    assert says in " ".join(screen(**parts).split())
    assert else_says not in screen()


YARD = {"name": "classifier", "candidate_id": "c_9", "trained_on": 20, "dev": 0.2, "test": 0.182, "ci95": [0.05, 0.48]}


@pytest.mark.parametrize(
    ("diff", "ci95", "p_value", "test", "says"),
    [
        (0.454, [-0.02, 0.76], 0.0625, 0.182,
         "11 rows cannot tell 18.2 from 63.6: classifier trained on the same 20 rows, without a language model, and "
         "the best found"),
        (0.0, [-0.3, 0.3], 1.0, 0.636,
         "without a language model, classifier trained on the same 20 rows does as well: 63.6 against 63.6 of the "
         "best found"),
        (-0.3, [-0.6, -0.1], 0.01, 0.909,
         "without a language model, classifier trained on the same 20 rows does better: 90.9 against 63.6 of the "
         "best found"),
    ],
)  # fmt: skip
def test_few_rows_are_not_called_a_tie(diff: float, ci95: list[float], p_value: float, test: float, says: str) -> None:
    yard = Yardstick.model_validate({**YARD, "test": test, "diff": diff, "diff_ci95": ci95, "p_value": p_value})
    assert wording.against_yardstick(yard, "the best found", 0.636, 11) == says


def test_figures_that_an_older_version_lacks_are_left_out() -> None:
    quiet = [{**row, "winner": side(1.0), "baseline": side(1.0)} for row in metrics(0)]
    assert "By metric" not in screen(metrics=quiet)
    for parts, own in ((UNEVEN, "60.0"), ({}, "52.0")):
        (verdict,) = run_sections(of(**parts), names=["verdict"])
        said = " ".join(line for block in shown_on("page", verdict.blocks) for line in getattr(block, "lines", ()))
        assert f"your prompt gets {own} and the best found 78.0, on 100 rows" in said
    told = PREFLIGHT.to_json()
    assert run_tables.before_search(of(preflight=told).preflight).endswith("more; asked twice, 5 of 10 rows changed")
    assert "asked twice" not in run_tables.before_search(of(preflight={**told, "noise": None}).preflight)
    assert run_tables.before_search(None) == ""
    row = {"result": {"kind": "judge_calibration"}, "result_hash": "h", "status": "complete", "error": ""}
    assert wording.without_result(row) == "not a search (judge calibration)"
    assert wording.without_result({**row, "result": None}) == "its result was erased"


def test_the_dry_run_names_the_gain_that_can_be_shown_for_each_assumed_baseline() -> None:
    command = [*files(120), "-m", "openai/gpt-4o-mini", "--max-calls", "300", "--dry-run"]
    printed = good_json(*command)
    gains = detectable_gains(printed["plan"]["test_rows"])
    assert printed["detectable_gains"] == {f"{rate:g}": gain for rate, gain in gains.items() if gain <= 1}
    assert good(*command).splitlines()[-1] == detectable_line(gains)
    assert detectable_line({0.5: 0.19, 0.9: float("inf")}) == (
        "the smallest gain that the sealed test can show (80 % power): 19 points if your prompt scores 50, "
        "none if your prompt scores 90"
    )


# -- findings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "winner", "says"),
    [
        ({}, {"n_examples": 18, "format": "dspy-json", "tokens_a_call": 310},
         ["your instruction is unchanged", "18 examples were added",
          "the answers' layout is dspy-json instead of turns", "310 tokens a call instead of 75 (4.1x)"]),
        ({"instruction": True, "won": True}, {"tokens_a_call": 76},
         ["your instruction is replaced by one that the proposer wrote",
          "76 tokens a call instead of 75 (about the same)"]),
        ({"instruction": True, "keeps": True, "won": True}, {},
         ["your instruction is kept; the proposer added text to it"]),
        ({"instruction": True, "keeps": True}, {}, ["your instruction is kept; text was added to it"]),
        ({"instruction": True, "tools": ["lamp"]}, {"technique": "chain-of-thought", "role": "You are a clerk."},
         ["your instruction is changed", "tool texts changed: lamp", "it is asked to reason before it answers",
          "it is given a role"]),
        ({}, {"tokens_a_call": 0, "prompt_tokens": 90},
         ["your instruction is unchanged", "about 90 prompt tokens instead of 30 (3.0x)"]),
        ({"instruction": True}, {"technique": "program", "n_examples": 1},
         ["the prompts of your program changed", "1 example was added"]),
    ],
)  # fmt: skip
def test_what_changed_is_said_in_plain_words(change: dict[str, Any], winner: dict[str, Any], says: list[str]) -> None:
    won = change.pop("won", False)
    told = {"winner": {**OWN, **winner}, "baseline": OWN, "instruction": False, **change}
    assert wording.changes(of(change=told, proposer={**USE, "won": won}), "prompt")[: len(says)] == says


@pytest.mark.parametrize(
    ("use", "says"),
    [
        ({}, "3 of at most 40 planned calls; 3 proposals tried, none among the finalists; the best found has none"),
        ({"finalists": 1, "won": True},
         "3 of at most 40 planned calls; 3 proposals tried, 1 among the finalists; the best found has one"),
        ({"refused": 2, "failed": 1, "tried": 0}, "3 of at most 40 planned calls; 1 without a reply; 2 without a "
             "usable instruction; 0 proposals tried, none among the finalists; the best found has none"),
        ({"tried": None}, "3 calls; the strategy does not report the resulting prompts"),
        ({"asked": 0, "why_not": "nothing was searched"}, "not called: nothing was searched"),
    ],
)  # fmt: skip
def test_the_outcome_of_the_proposer(use: dict[str, Any], says: str) -> None:
    assert run_tables.proposer(of(proposer={**USE, **use}).proposer) == f"proposer: {says}"


def fate(number: int, operator: str, became: str, **more: Any) -> dict[str, Any]:
    told = {"number": number, "operator": operator, "hypothesis": f"why {number}", "rows": [], "instruction": ""}
    return told | {"refused": "", "parent_id": "c_1", "before": None, "after": None, "became": became, **more}


def test_each_proposal_is_told_with_its_reason_its_rows_and_its_outcome() -> None:
    fates = [
        fate(1, "definitions", "winner", before=0.5, after=0.625),
        fate(2, "rule", "dropped", rows=["d1", "d2"], before=0.5, after=0.25),
        fate(3, "whole", "refused", refused="lost billing", hypothesis=""),
    ]
    used = {"asked": 1, "refused": 0, "dropped": 0, "tried": 1, "finalists": 1, "points": 12.5}
    operators = [{"operator": "definitions", **used}, {"operator": "rule", **used, "tried": 0, "finalists": 0}]
    proposer = of(proposer={**USE, "won": True, "points": 9.04, "operators": operators, "proposals": fates}).proposer
    assert run_tables.proposer(proposer) == (
        "proposer: 3 of at most 40 planned calls; 1 of 3 proposals tried, 1 among the finalists, +9.0 points against "
        "the best prompt without one; the best found has one"
    )
    assert proposals(proposer, {2: "If new, say it"}).rows == (
        ("1", "definitions", "why 1", "all", "50.0", "62.5", "winner"),
        ("2", "rule", "why 2: If new, say it", "d1, d2", "50.0", "25.0", "dropped"),
        ("3", "whole", "-", "all", "-", "-", "refused: lost billing"),
    )
    assert proposals(None, {}).rows == ()


NEED = {"gain": 0.06, "rows_needed": 310, "rows_tested": 35, "rows_there": 94, "max_calls": 540, "other_caps": []}


@pytest.mark.parametrize(
    ("need", "says"),
    [
        ({}, "needs about 310 test rows for 80 % power; 35 of 94 were within budget: --max-calls 540; then add rows"),
        ({"rows_there": 400, "max_calls": 1780, "other_caps": ["--max-cost"]}, "needs about 310 test rows for 80 % "
         "power; 35 of 400 were within budget: --max-calls 1780, and more of --max-cost"),
        ({"rows_tested": 94, "max_calls": None}, "needs about 310 test rows for 80 % power; there are 94: add rows to "
         "the test split"),
        ({"rows_tested": 310, "rows_there": 310, "max_calls": None}, "needs about 310 test rows for 80 % power; it was "
         "missed this time; there are 310: add rows to the test split"),
        ({"rows_needed": None, "rows_tested": 94, "max_calls": None}, "is too small for any number of test rows; there "
         "are 94: add rows to the test split"),
    ],
)  # fmt: skip
def test_the_sample_size_that_a_gain_needs(need: dict[str, Any], says: str) -> None:
    found = of(to_show={**NEED, **need}).to_show
    assert found is not None
    assert run_blocks.to_show(found) == f"a gain of 6.0 points {says}"


def counted(right: int, wrong: int, partly: int = 0) -> dict[str, Any]:
    count = {"right": right, "partly": partly, "wrong": wrong}
    return {"answers": {"winner": count, "baseline": count}}


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        (counted(39, 121), "; right on 39 of 160 rows"),
        (counted(4, 1, partly=35), "; right on 4 of 40 rows"),
        (counted(0, 1, partly=35) | {"human_score": 0.93}, "; people: 93.0 (according to the task)"),
        ({"human_score": 0.93}, "; people: 93.0 (according to the task)"),
    ],
)
def test_the_score_is_also_told_in_absolute_terms(parts: dict[str, Any], says: str) -> None:
    assert f"in absolute terms: the best found gets 78.0 of 100{says}\n" in screen(**parts)
    assert "in absolute terms" not in screen(), "of an older version"


@pytest.mark.parametrize(
    ("readable", "different", "right", "gave"),
    [(17, 2, 9, "2 different answers"), (160, 1, 2, "the same answer"), (160, 3, 8, ""), (40, 1, 1, ""), (4, 1, 4, "")],
)
def test_answers_that_hardly_vary_are_reported(readable: int, different: int, right: int, gave: str) -> None:
    counts = {"right": 0, "readable": readable, "different": different, "different_right": right}
    said = f"the best found gave {gave} on {readable} rows (your rows have {right})" if gave else ""
    assert run_blocks.hardly_varied("the best found", RowCount.model_validate(counts)) == said


def test_a_large_matrix_shows_the_labels_that_lost_most() -> None:
    names = [f"l{at}" for at in range(77)]
    scores = [{"label": n, "support": 3, "said": 3, "right": 3, "precision": 1.0, "recall": 1.0} for n in names]
    cells = [{"label": name, "said": name, "rows": 3} for name in names[2:]]
    cells += [{"label": "l0", "said": "l5", "rows": 3}, {"label": "l1", "said": "l1", "rows": 2}]
    cells += [{"label": "l1", "said": None, "rows": 1}]
    both = {"scores": scores, "cells": cells}
    (report,) = of(labels=[{"field": "x", "labels": names, "winner": both, "baseline": both}]).labels
    made = confusion_table(report, "it")
    assert made is not None
    assert [column.name for column in made.columns] == ["right answer", "l1", "l5", "unreadable", "all"]
    assert made.rows == (("l0", ".", "3", ".", "3"), ("l1", "2", ".", "1", "3"))
    assert made.shades[0] == ("", "", "lost-4", "", "")
    assert "75 more are left out" in made.note


@pytest.mark.parametrize(("picks", "mark"), [(None, []), ({"k": 2}, ["[user]", "{{picked examples}}"])])
def test_fixed_demos_alone_are_left_out_of_a_prompt(picks: dict[str, Any] | None, mark: list[str]) -> None:
    """In a prompt that also picks, the picked ones are between the fixed ones and the input."""
    turns = [("system", "Pick."), ("user", "one"), ("assistant", "a"), ("user", "two"), ("assistant", "b")]
    turns += [("user", "{{picked examples}}")] if picks else []
    template = [{"role": role, "content": content} for role, content in [*turns, ("user", "{{text}}")]]
    said = prompt_text({"template": template, "format": "turns", "demos": [{}, {}], "picks": picks})
    assert said.split("\n") == ["[system]", "Pick.", "(2 examples)", *mark, "[user]", "{{text}}"]
    assert prompt_text({"template": [], "format": "turns", "demos": []}) == ERASED


# -- next steps -------------------------------------------------------------------------------------------------------

PICKS = {"retriever": "bm25", "k": 8, "order": "nearest-last", "diverse": False, "balanced": False, "pool": "p"}
PICKING = {"winner": {**RESULT["winner"], "picks": PICKS}}
MORE = {"to_show": {**NEED, "other_caps": ["--max-tokens"]}, **KEPT}


@pytest.mark.parametrize(
    ("parts", "options", "command", "says"),
    [
        ({"decision": "promote", **PICKING}, {}, "export", "RUN --format python -o DIR"),
        ({"decision": "keep_baseline", **PICKING}, {}, "export", "RUN"),
        ({"release": "tuned/prompt.md"}, {}, "export", "RUN --format llama-server -o DIR"),
        (MORE, {}, "resume", "RUN --fork --max-calls 540 --max-tokens MORE"),
        (MORE, {"metric_source": "def score"}, "resume", None),
        (KEPT, {"task": "my mails", "model": "m", "to_label": 70}, "label", "'my mails' --count 20"),
        (KEPT, {"task": "mails", "to_label": 7}, "label", "mails --count 7"),
        (KEPT, {"task": "mails"}, "label", None),
        (KEPT, {"task": "mails", "judge": "x", "to_label": 70}, "label", None),
        ({"decision": "promote"}, {"task": "mails", "to_label": 70}, "label", None),
        ({"release": "runs/x/program.json"}, {}, "promote", None),
    ],
)
def test_next_steps_are_commands_that_work(
    parts: dict[str, Any], options: dict[str, Any], command: str, says: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps_of, "rows_to_label", lambda folder: options.get("to_label", 0))
    view: Any = SimpleNamespace(run={"options": options, "folder": "mails"}, promoted=None)
    Path("tuned").mkdir()
    Path("tuned/adapter.gguf").touch()
    steps = [words.split(None, 2) for _, words in next_steps(of(**parts), view)]
    found = [rest.replace(RESULT["run_id"], "RUN") for _, name, rest in steps if name == command]
    assert found == ([] if says is None else [says])
