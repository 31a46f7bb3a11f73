"""The twin for which neighbours vote: scored from the replies of its parent, and the same in all forms of a release."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from agent.ledger.store import Ledger
from agent.programs.moves.prompt_parts import features_of, leave_one_out
from agent.programs.prompt import PromptProgram
from agent.prompt.calibration import LabelCalibration, Neighbours
from agent.prompt.prompt_candidate import PromptCandidate
from agent.release.export import hostile_rows, write_release
from agent.release.formats.export_format import FORMATS, Material
from agent.release.formats.proof import verify_exports
from agent.release.formats.python_module import load_module
from agent.release.prompt_file import MESSAGES_FILE, PROMPT_FILE
from agent.release.runtime import load_prompt
from agent.retrieval.pick import Picks
from agent.retrieval.votes import NEIGHBOURS
from agent.safe_data import read_as
from agent.search import selection
from agent.search.calibration import add_calibrated
from agent.types import Budget, Completion, Example, Proposal, Request, Usage
from tests.retrieval.shipped import release_of
from tests.search.worlds import Searched, made_search, share, with_baseline
from tests.toys import TEAMS, FakeModel, make_task

WORDS = {team: f"{team}word {team}thing" for team in TEAMS}


def row(split: str, number: int) -> Example:
    """A row whose words say its label to those that look at other rows."""
    team = TEAMS[number % len(TEAMS)]
    text = f"{split} note {number} about {WORDS[team]}"
    return Example(f"{split}-{number}", {"message": text}, {"team": team})


TASK = make_task(40, train=tuple(row("train", n) for n in range(40)), dev=tuple(row("dev", n) for n in range(40)))
PROGRAM = PromptProgram(TASK, FakeModel(lambda request: TEAMS[0]))
PICKED = PromptCandidate(
    "few-shot", "turns", "Pick the team of this note.", picks=Picks("bm25", 2, pool=PROGRAM.pool.id)
)
FIXED = PromptCandidate("zero-shot", "inline", "Pick the team of this note.")


class Clueless(FakeModel):
    """Knows nothing about a row, and lists every label."""

    def __init__(self) -> None:
        super().__init__(lambda request: TEAMS[0])

    async def complete(self, request: Request) -> Completion:
        self.seen.append(request)
        logits = [share(ascii(request.messages[-1].content), team) for team in TEAMS]
        total = math.log(sum(map(math.exp, logits)))
        top = tuple((team, logit - total) for team, logit in zip(TEAMS, logits, strict=True))
        said = max(top, key=lambda pair: pair[1])[0]
        return Completion(said, "stop", Usage(9, 1), self.name, (top,) if request.logprobs else ())


async def searched(ledger: Ledger, model: Clueless) -> Searched:
    found = made_search(ledger, model, task=TASK, budget=Budget(max_calls=400), graded=True)
    await with_baseline(found)
    for made in (PICKED, FIXED):
        found.context.admit([Proposal(made, {}, "op", None, "why")])
        await found.context.see([made.id], len(found.context.dev))
    model.seen.clear()
    return found


def twin_of(found: Searched) -> PromptCandidate:
    """The one twin with neighbours."""
    made = [p for p in found.trials.proposals.values() if p.operator == "calibration:neighbours"]
    assert [proposal.parent_id for proposal in made] == [PICKED.id], "the others have no pool"
    assert isinstance(made[0].candidate, PromptCandidate)
    return made[0].candidate


async def test_what_the_model_does_not_know_its_neighbours_do_and_no_call_is_made(ledger: Ledger) -> None:
    model = Clueless()
    found = await searched(ledger, model)
    await add_calibrated(found.context)
    twin = twin_of(found)
    assert model.seen == []
    assert (found.trials.mean(twin.id) or 0) > 0.9 > 0.6 > (found.trials.mean(PICKED.id) or 0)
    prior = [i for i, each in found.trials.proposals.items() if each.operator == "calibration:prior"]
    offers = [each for each in selection.finalists(found.context, None, {}) if each.candidate_id not in prior]
    assert selection.chosen(found.context, offers, "best") == twin
    assert twin.calibration is not None
    assert twin.calibration.neighbours is not None
    assert (twin.calibration.method, twin.calibration.neighbours.k) == ("neighbours", NEIGHBOURS)
    assert twin.calibration.neighbours.weight > 0.5


async def test_every_form_of_the_release_answers_as_the_search_did(ledger: Ledger, tmp_path: Path) -> None:
    found = await searched(ledger, Clueless())
    context = found.context
    await add_calibrated(context)
    twin = twin_of(found)
    weighted = replace(
        release_of(PROGRAM, twin), calibration=twin.calibration, parameters={"max_tokens": 8, "logprobs": 6}
    )
    folder = write_release(weighted, tmp_path).parent
    (export,) = verify_exports([FORMATS.get("python")], {"python": Material(weighted)})
    (folder / "prompt.py").write_text(export.texts["prompt.py"], "utf-8")
    module = load_module(folder / "prompt.py", "exported")
    prompts = [load_prompt(folder / name) for name in (PROMPT_FILE, MESSAGES_FILE)]
    assert [prompt.release for prompt in prompts] == [weighted, weighted]
    hostile = [Example(f"x{n}", values, {"team": TEAMS[0]}) for n, values in enumerate(hostile_rows(weighted.inputs))]
    model, answers = Clueless(), set[str]()
    for example in [*TASK.dev, *TASK.test, *hostile]:
        wanted = (await context.evaluator.outcome(twin, example)).prediction
        reply = await model.complete(PROGRAM.request(twin, example, logprobs=6))
        for prompt in prompts:
            assert prompt.parse(reply.text, reply.logprobs, inputs=example.inputs) == wanted
            assert await prompt.acomplete(model, **example.inputs) == wanted
        if wanted.fields:
            answer, confidence = module.answer(reply.logprobs, dict(example.inputs))
            assert (answer, confidence) == (wanted.fields["team"], pytest.approx(wanted.confidence))
            answers.add(answer)
    assert answers == set(TEAMS)


def test_a_train_row_has_no_vote_of_its_own_and_none_of_its_near_duplicates() -> None:
    double = replace(TASK.train[0], id="double")
    other = replace(TASK.train[0], inputs={"message": "xyz"})
    pool = PromptProgram(replace(TASK, train=(*TASK.train, double)), FakeModel(lambda request: "")).pool
    label = TEAMS.index(str(double.labels["team"]))
    asked = replace(TASK.train[0], id="of another split")
    assert pool.votes(TASK.train[0], 1000)[label] == pool.votes(double, 1000)[label]
    assert pool.votes(asked, 1000)[label] - pool.votes(double, 1000)[label] == pytest.approx(4.0)
    assert pool.votes(other, 1000) == (0.0,) * len(TEAMS), "another row with the id of a train row"


def calibration() -> LabelCalibration:
    return LabelCalibration("neighbours", dict.fromkeys(TEAMS, 0.5), 2.0, Neighbours(8, 1.5))


def test_neighbours_are_a_part_of_the_weights_and_need_the_pool() -> None:
    twin = replace(PICKED, calibration=calibration())
    assert twin.shown().calibration == {
        "method": "neighbours",
        "bias": dict.fromkeys(TEAMS, 0.5),
        "temperature": 2.0,
        "neighbours": {"k": 8, "weight": 1.5},
    }
    assert read_as(LabelCalibration, json.loads(json.dumps(calibration().as_dict())), "calibration") == calibration()
    assert ("calibration", "neighbours") in features_of(twin)
    assert PROGRAM.check(twin) == ""
    assert "picks no examples" in PROGRAM.check(replace(FIXED, calibration=calibration()))
    ablations = {one.part: one.candidate for one in leave_one_out(twin, FIXED)}
    assert isinstance(ablations["picked examples"], PromptCandidate)
    assert (ablations["picked examples"].picks, ablations["picked examples"].calibration) == (None, None)
    assert ablations["calibration"] == PICKED


def test_scores_are_those_of_the_formula() -> None:
    votes = (3.0, 0.0, 1.0)[: len(TEAMS)]
    logs = [-0.5, -1.0, -2.0][: len(TEAMS)]
    total = sum(votes) + 0.5 * len(votes)
    wanted = [log / 2 + 0.5 + 1.5 * math.log((vote + 0.5) / total) for log, vote in zip(logs, votes, strict=True)]
    assert calibration().scores(logs, votes) == pytest.approx(wanted)
    with pytest.raises(ValueError, match="zip"):
        calibration().scores(logs)
