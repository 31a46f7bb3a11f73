"""Calibrated variants of the finalists: same calls, read with label weights, kNN votes or a classifier."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from agent.ledger.store import Ledger
from agent.programs.moves.prompt_parts import features_of, leave_one_out
from agent.programs.prompt import PromptProgram
from agent.prompt.label_calibration import NEIGHBOURS, LabelCalibration, Neighbours
from agent.prompt.parts.calibration import TrainedPrior
from agent.prompt.prompt_candidate import PromptCandidate
from agent.release.export import hostile_rows, write_release
from agent.release.formats.export_format import FORMATS, Material
from agent.release.formats.module_proof import load_module
from agent.release.formats.proof import verify_exports
from agent.release.prompt_file import MESSAGES_FILE, PROMPT_FILE
from agent.release.runtime import load_prompt
from agent.retrieval.pick import Picks
from agent.safe_data import read_as
from agent.search import selection
from agent.search.calibration import add_calibrated, best_readings
from agent.search.trials import Calibrated
from agent.types import Budget, Completion, Example, Outcome, Prediction, Proposal, Request, Task, Usage
from tests.release.formats.kinds import release_of
from tests.search.worlds import Searched, front_and_row, made_search, share, with_baseline
from tests.toys import TEAMS, FakeModel, make_task, open_ledger

WORDS = {team: f"{team}word {team}thing" for team in TEAMS}


def row(split: str, number: int) -> Example:
    """A row whose words say its label to those that look at other rows."""
    team = TEAMS[number % len(TEAMS)]
    return Example(f"{split}-{number}", {"message": f"{split} note {number} about {WORDS[team]}"}, {"team": team})


NEAR = make_task(40, train=tuple(row("train", n) for n in range(40)), dev=tuple(row("dev", n) for n in range(40)))
PROGRAM = PromptProgram(NEAR, FakeModel(lambda request: TEAMS[0]))
TEXT = "Pick the team of this note."
FIXED = PromptCandidate("zero-shot", "inline", TEXT)
REASONS = PromptCandidate("chain-of-thought", "turns", TEXT)
PICKED = PromptCandidate("few-shot", "turns", TEXT).having(picks=Picks("bm25", 2, pool=PROGRAM.pool.id))


class Listing(FakeModel):
    """Lists every label with its log-probability; `likes`: knows the team and prefers the first label; 0: a guess."""

    def __init__(self, likes: float = 0.0) -> None:
        super().__init__(lambda request: TEAMS[0])
        self._likes = likes

    async def complete(self, request: Request) -> Completion:
        self.seen.append(request)
        said = ascii(request.messages[-1].content)
        if self._likes:
            said = front_and_row(request)[1]
        right = said.split()[4] if self._likes else ""
        logits = [3.0 * (team == right) + self._likes * (team == TEAMS[0]) + share(said, team) for team in TEAMS]
        total = math.log(sum(map(math.exp, logits)))
        top = tuple((team, logit - total) for team, logit in zip(TEAMS, logits, strict=True))
        best = max(top, key=lambda pair: pair[1])[0]
        text = f"Because.\nAnswer: {best}" if "step by step" in request.messages[0].content else best
        return Completion(text, "stop", Usage(9, 1), self.name, (top,) if request.logprobs else ())


async def searched(ledger: Ledger, model: Listing, *candidates: PromptCandidate, **more: Task) -> Searched:
    found = made_search(ledger, model, budget=Budget(max_calls=400), graded=True, **more)
    await with_baseline(found)
    for made in candidates:
        found.context.admit([Proposal(made, {}, "op", None, "why")])
        await found.context.see([made.id], len(found.context.dev))
    model.seen.clear()
    return found


def twins(found: Searched, method: str) -> dict[str, PromptCandidate]:
    """The variants by this method, by the id of their parent."""
    made = [p for p in found.trials.proposals.values() if p.operator == f"calibration:{method}"]
    return {str(p.parent_id): p.candidate for p in made if isinstance(p.candidate, PromptCandidate)}


def mean(outcomes: Sequence[Outcome]) -> float:
    return sum(outcome.value or 0.0 for outcome in outcomes) / len(outcomes)


@pytest.fixture(scope="module")
def near(tmp_path_factory: pytest.TempPathFactory) -> tuple[Searched, list[tuple[Example, Prediction]]]:
    """A model that guesses, with its variants; and how the variant with kNN votes reads all kinds of rows."""
    ledger = open_ledger(tmp_path_factory.mktemp("near") / "ledger.db")

    async def work() -> tuple[Searched, list[tuple[Example, Prediction]]]:
        model = Listing()
        found = await searched(ledger, model, PICKED, FIXED, task=NEAR)
        await add_calibrated(found.context)
        assert model.seen == [], "not one more call"
        twin = twins(found, "neighbours")[PICKED.id]
        inputs = hostile_rows(release_of(PROGRAM, twin).inputs)
        hostile = [Example(f"x{n}", values, {"team": TEAMS[0]}) for n, values in enumerate(inputs)]
        rows = [*NEAR.dev, *NEAR.test, *hostile]
        return found, [(each, (await found.context.evaluator.outcome(twin, each)).prediction) for each in rows]

    found = asyncio.run(work())
    ledger.close()
    return found


Near = tuple[Searched, list[tuple[Example, Prediction]]]


def test_neighbours_and_a_classifier_know_what_the_model_does_not(near: Near) -> None:
    found, read = near
    trials, own = found.trials, found.context.baseline.id
    assert set(twins(found, "neighbours")) == {PICKED.id}, "the others have no pool"
    twin, made = twins(found, "neighbours")[PICKED.id], twins(found, "prior")
    assert set(made) == {own, PICKED.id, FIXED.id}
    for parent, variant in {**made, PICKED.id: twin}.items():
        assert (trials.mean(variant.id) or 0) > 0.9 > 0.6 > (trials.mean(parent) or 0)
    assert twin.part("calibration") is not None
    assert twin.part("calibration").neighbours is not None
    assert (twin.part("calibration").method, twin.part("calibration").neighbours.k) == ("neighbours", NEIGHBOURS)
    assert twin.part("calibration").neighbours.weight > 0.5
    for variant in made.values():
        assert variant.part("calibration") is not None
        assert variant.part("calibration").prior is not None
        assert variant.part("calibration").prior.rows == PROGRAM.shared.of(TrainedPrior).rows
        assert variant.part("calibration").prior.weight > 1
    winner = selection.chosen(found.context, selection.finalists(found.context, None, {}), "best")
    assert isinstance(winner, PromptCandidate)
    assert winner.part("picks") is None, (
        "a prompt that picks is no better than one with the same classifier that does not"
    )
    assert winner in made.values()
    dev = [outcome.prediction.confidence for outcome in trials.outcomes[twin.id]]
    assert [one.confidence for _, one in read[: len(dev)]] != dev, "what dev was read with is cross-fitted"


def test_of_the_readings_of_one_prompt_the_one_with_the_least_log_loss_is_offered(near: Near) -> None:
    """Also if another one is right on more dev rows, by chance."""
    found, _ = near
    trials, made, fitted = found.trials, twins(found, "prior")[FIXED.id], twins(found, "fitted")[FIXED.id]
    before = trials.outcomes[fitted.id]
    trials._outcomes[fitted.id] = [replace(one, value=1.0) for one in before]
    offered = {each.candidate_id for each in best_readings(found.context, selection.finalists(found.context, None, {}))}
    trials._outcomes[fitted.id] = list(before)
    parents = {found.context.baseline.id, FIXED.id, PICKED.id}
    assert parents <= offered
    assert made.id in offered
    assert len(offered - parents) == len(parents), "one reading for each"
    signals = [[one.signal or 0 for one in trials.outcomes[i]] for i in (made.id, fitted.id)]
    assert math.fsum(map(math.log, signals[0])) > math.fsum(map(math.log, signals[1]))


async def test_every_form_of_the_release_answers_as_the_search_did(near: Near, tmp_path: Path) -> None:
    found, read = near
    twin = twins(found, "neighbours")[PICKED.id]
    parameters = {"max_tokens": 8, "logprobs": 6}
    weighted = replace(release_of(PROGRAM, twin), parameters=parameters)
    folder = write_release(weighted, tmp_path).parent
    (export,) = verify_exports([FORMATS.get("python")], {"python": Material(weighted)})
    (folder / "prompt.py").write_text(export.texts["prompt.py"], "utf-8")
    module = load_module(folder / "prompt.py", "exported")
    prompts = [load_prompt(folder / name) for name in (PROMPT_FILE, MESSAGES_FILE)]
    assert [prompt.release for prompt in prompts] == [weighted, weighted]
    model, answers = Listing(), set[str]()
    for example, wanted in read:
        reply = await model.complete(PROGRAM.request(twin, example, logprobs=6))
        for prompt in prompts:
            assert prompt.parse(reply.text, reply.logprobs, inputs=example.inputs) == wanted
            assert await prompt.acomplete(model, **example.inputs) == wanted
        if wanted.fields:
            answer, confidence = module.answer(reply.logprobs, dict(example.inputs))
            assert (answer, confidence) == (wanted.fields["team"], pytest.approx(wanted.confidence))
            answers.add(answer)
    assert answers == set(TEAMS)


async def test_a_model_that_likes_a_label_is_read_without_its_liking(ledger: Ledger) -> None:
    """As the search compares candidates, by free calibration, and as the variants of its end."""
    model = Listing(likes=4.0)
    found = await searched(ledger, model, FIXED, REASONS)
    context, trials = found.context, found.trials
    calibrated, plain = Calibrated(context.program), list(trials.outcomes[FIXED.id])
    for rows in (8, len(plain)):
        read = calibrated.read(FIXED, context.dev[:rows], plain[:rows])
        assert mean(plain[:rows]) < 0.5 < 0.9 < mean(read)
        assert all((outcome.signal or 0) > 0.3 for outcome in read)
    reasons = list(trials.outcomes[REASONS.id])
    assert calibrated.read(REASONS, context.dev, reasons) == reasons, "a label after reasons is not weighted"
    lost = [replace(plain[0], value=None), replace(plain[1], label_scores=None), *plain[2:]]
    assert calibrated.read(FIXED, context.dev, lost)[:2] == lost[:2]
    foreign = [replace(row, labels={"team": "no such team"}) for row in context.dev]
    assert calibrated.read(FIXED, foreign, plain) == plain

    left, reported = context.left(), {i: trials.mean(i) for i in trials.by_id}
    context.calibrated = calibrated
    for candidate_id, outcomes in list(trials.outcomes.items()):
        context.record(candidate_id, outcomes)
    assert trials.estimate(FIXED.id).mean > (trials.mean(FIXED.id) or 0) + 0.3
    assert {i: trials.mean(i) for i in trials.by_id} == reported

    await add_calibrated(context)
    assert (model.seen, context.left()) == ([], left)
    for method in ("label-free", "fitted", "prior"):
        made = twins(found, method)
        assert set(made) == {context.baseline.id, FIXED.id}
        for parent, twin in made.items():
            assert trials.by_id[twin.id].state == "complete"
            assert (trials.mean(twin.id) or 0) > 0.9 > 0.4 > (trials.mean(FIXED.id) or 0)
            keys = [[outcome.call_key for outcome in trials.outcomes[i]] for i in (twin.id, parent)]
            assert keys[0] == keys[1]
    prior = twins(found, "prior")[FIXED.id].part("calibration")
    assert prior is not None
    assert 1 / prior.temperature > 0.3, "a model that knows more than the classifier keeps its say"
    finalists = selection.finalists(context, lambda usage: float(usage.prompt_tokens), {})
    winner = selection.chosen(context, finalists, "best")
    usages = {each.candidate_id: each.usd for each in finalists}
    assert usages[winner.id] == usages[trials.proposals[winner.id].parent_id or ""] > 0


# -- the parts of a calibration ----------------------------------------------------------------------------------------


def calibration() -> LabelCalibration:
    return LabelCalibration("neighbours", dict.fromkeys(TEAMS, 0.5), 2.0, Neighbours(8, 1.5))


def test_a_calibration_is_a_part_of_the_candidate_and_neighbours_need_the_pool() -> None:
    fitted = FIXED.having(calibration=LabelCalibration("fitted", dict.fromkeys(TEAMS, 0.5), 1.2))
    other = FIXED.having(calibration=LabelCalibration("fitted", dict.fromkeys(TEAMS, 0.6), 1.2))
    assert len({FIXED.id, fitted.id, other.id}) == 3
    assert leave_one_out(fitted, FIXED) == {"calibration": FIXED}
    twin = PICKED.having(calibration=calibration())
    assert twin.shown().calibration == {
        "method": "neighbours",
        "bias": dict.fromkeys(TEAMS, 0.5),
        "temperature": 2.0,
        "neighbours": {"k": 8, "weight": 1.5},
    }
    assert read_as(LabelCalibration, json.loads(json.dumps(calibration().as_dict())), "calibration") == calibration()
    assert ("calibration", "neighbours") in features_of(twin)
    assert PROGRAM.check(twin) == ""
    assert "picks no examples" in PROGRAM.check(FIXED.having(calibration=calibration()))
    ablations = leave_one_out(twin, FIXED)
    assert isinstance(ablations["picked examples"], PromptCandidate)
    assert ablations["picked examples"].settings == {}
    assert ablations["calibration"] == PICKED


def test_scores_are_those_of_the_formula() -> None:
    votes, logs = (3.0, 0.0, 1.0), [-0.5, -1.0, -2.0]
    total = sum(votes) + 0.5 * len(votes)
    wanted = [log / 2 + 0.5 + 1.5 * math.log((vote + 0.5) / total) for log, vote in zip(logs, votes, strict=True)]
    assert calibration().scores(logs, votes) == pytest.approx(wanted)
    with pytest.raises(ValueError, match="zip"):
        calibration().scores(logs)


def test_a_train_row_has_no_vote_on_itself_or_its_near_duplicates_and_one_label_gives_no_prior() -> None:
    double = replace(NEAR.train[0], id="double")
    pool = PromptProgram(replace(NEAR, train=(*NEAR.train, double)), FakeModel(lambda request: "")).pool
    label = TEAMS.index(str(double.labels["team"]))
    asked = replace(NEAR.train[0], id="of another split")
    assert pool.votes(NEAR.train[0], 1000)[label] == pool.votes(double, 1000)[label]
    assert pool.votes(asked, 1000)[label] - pool.votes(double, 1000)[label] == pytest.approx(4.0)
    same_id = replace(NEAR.train[0], inputs={"message": "xyz"})
    assert pool.votes(same_id, 1000) == (0.0,) * len(TEAMS), "another row with the id of a train row"
    train = tuple(replace(each, labels={"team": TEAMS[0]}) for each in NEAR.train)
    assert PromptProgram(replace(NEAR, train=train), Listing()).opinions(FIXED, True) == []
