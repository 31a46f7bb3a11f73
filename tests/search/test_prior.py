"""The twin with a classifier: scored from the replies of its parent, and the same in all forms of a release."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from agent.ledger.store import Ledger
from agent.programs.moves.prompt_parts import features_of, leave_one_out
from agent.programs.prompt import PromptProgram
from agent.prompt.calibration import LabelCalibration, Prior
from agent.prompt.parts.calibration import TrainedPrior
from agent.prompt.prompt_candidate import PromptCandidate
from agent.release.export import hostile_rows, write_release
from agent.release.formats.export_format import FORMATS, Material
from agent.release.formats.proof import verify_exports
from agent.release.formats.python_module import load_module
from agent.release.prompt_file import MESSAGES_FILE, PROMPT_FILE, PromptRelease
from agent.release.runtime import load_prompt
from agent.safe_data import read_as
from agent.search import selection
from agent.search.calibration import add_calibrated, best_readings
from agent.types import Budget, Example, Proposal
from tests.search.test_calibrated_twins import Biased
from tests.search.test_neighbours import FIXED, PICKED, PROGRAM, TASK, Clueless, searched
from tests.search.worlds import Searched, made_search, with_baseline
from tests.toys import TEAMS

PARAMETERS = {"max_tokens": 8, "logprobs": 6}


def twins(found: Searched) -> dict[str, PromptCandidate]:
    """The twins with a classifier, by the id of their parent."""
    made = [p for p in found.trials.proposals.values() if p.operator == "calibration:prior"]
    return {str(p.parent_id): p.candidate for p in made if isinstance(p.candidate, PromptCandidate)}


def released(twin: PromptCandidate) -> PromptRelease:
    return PROGRAM.release(twin, PARAMETERS, {})


async def test_what_the_model_does_not_know_the_classifier_does_for_each_prompt(ledger: Ledger) -> None:
    model = Clueless()
    found = await searched(ledger, model)
    await add_calibrated(found.context)
    made = twins(found)
    assert model.seen == [], "not one more call"
    assert set(made) == {found.context.baseline.id, PICKED.id, FIXED.id}, "the user's own prompt, fixed and picked"
    for parent, twin in made.items():
        assert (found.trials.mean(twin.id) or 0) > 0.9 > 0.6 > (found.trials.mean(parent) or 0)
        assert twin.calibration is not None
        assert twin.calibration.prior is not None
        assert twin.calibration.prior.rows == PROGRAM.shared.of(TrainedPrior).rows
        assert twin.calibration.prior.weight > 1
    winner = selection.chosen(found.context, selection.finalists(found.context, None, {}), "best")
    assert isinstance(winner, PromptCandidate)
    assert winner.picks is None, "a prompt that picks is no better than one with the same classifier that does not"
    assert winner in made.values()


async def test_a_model_that_knows_more_keeps_its_say(ledger: Ledger) -> None:
    """The notes of this task say their team to the model and nothing to a classifier."""
    found = made_search(ledger, Biased(), budget=Budget(max_calls=400), graded=True)
    await with_baseline(found)
    found.context.admit([Proposal(FIXED, {}, "op", None, "why")])
    await found.context.see([FIXED.id], len(found.context.dev))
    await add_calibrated(found.context)
    twin = twins(found)[FIXED.id]
    assert twin.calibration is not None
    assert 1 / twin.calibration.temperature > 0.3
    assert (found.trials.mean(twin.id) or 0) > 0.9


async def test_of_the_readings_of_one_prompt_the_one_with_the_least_log_loss_is_offered(ledger: Ledger) -> None:
    """Also where another one is right on more dev rows, by chance."""
    found = await searched(ledger, Clueless())
    await add_calibrated(found.context)
    trials, made = found.context.trials, twins(found)
    fitted = next(
        p.candidate
        for p in found.trials.proposals.values()
        if p.operator == "calibration:fitted" and p.parent_id == FIXED.id
    )
    trials.outcomes[fitted.id] = [replace(one, value=1.0) for one in trials.outcomes[fitted.id]]
    offered = {each.candidate_id for each in best_readings(found.context, selection.finalists(found.context, None, {}))}
    parents = {found.context.baseline.id, FIXED.id, PICKED.id}
    assert parents <= offered, "a prompt that is read as it stands stays"
    assert made[FIXED.id].id in offered
    assert len(offered - parents) == len(parents), "one reading for each"
    signals = [[one.signal or 0 for one in trials.outcomes[i]] for i in (made[FIXED.id].id, fitted.id)]
    assert math.fsum(map(math.log, signals[0])) > math.fsum(map(math.log, signals[1]))


async def test_what_dev_was_read_with_is_cross_fitted(ledger: Ledger) -> None:
    found = await searched(ledger, Clueless())
    await add_calibrated(found.context)
    twin = twins(found)[FIXED.id]
    now = [(await found.context.evaluator.outcome(twin, one)).prediction for one in found.context.dev]
    then = [outcome.prediction for outcome in found.trials.outcomes[twin.id]]
    assert [one.confidence for one in now] != [one.confidence for one in then]


@pytest.mark.parametrize("parent", [FIXED, PICKED], ids=["fixed", "picked"])
async def test_every_form_of_the_release_answers_as_the_search_did(
    ledger: Ledger, tmp_path: Path, parent: PromptCandidate
) -> None:
    found = await searched(ledger, Clueless())
    context = found.context
    await add_calibrated(context)
    twin = twins(found)[parent.id]
    release = released(twin)
    folder = write_release(release, tmp_path).parent
    exported = verify_exports(
        [FORMATS.get(name) for name in ("python", "dspy")],
        {name: Material(release) for name in ("python", "dspy")},
    )
    (folder / "prompt.py").write_text(exported[0].texts["prompt.py"], "utf-8")
    module = load_module(folder / "prompt.py", "exported_prior")
    prompts = [load_prompt(folder / name) for name in (PROMPT_FILE, MESSAGES_FILE)]
    assert {prompt.version for prompt in prompts} == {release.version}
    hostile = [Example(f"x{n}", values, {"team": TEAMS[0]}) for n, values in enumerate(hostile_rows(release.inputs))]
    model, answers = Clueless(), set[str]()
    for example in [*TASK.dev, *TASK.test, *hostile]:
        wanted = (await context.evaluator.outcome(twin, example)).prediction
        reply = await model.complete(PROGRAM.request(twin, example, logprobs=6))
        for prompt in prompts:
            assert prompt.parse(reply.text, reply.logprobs, inputs=example.inputs) == wanted
            assert await prompt.acomplete(model, **example.inputs) == wanted
        answer, confidence = module.answer(reply.logprobs, dict(example.inputs))
        assert (answer, confidence) == (wanted.fields["team"], pytest.approx(wanted.confidence))
        answers.add(answer)
    assert answers == set(TEAMS)


async def test_a_program_that_loads_it_imports_no_library(ledger: Ledger, tmp_path: Path) -> None:
    found = await searched(ledger, Clueless())
    await add_calibrated(found.context)
    release = released(twins(found)[FIXED.id])
    write_release(release, tmp_path)
    (export,) = verify_exports([FORMATS.get("python")], {"python": Material(release)})
    (tmp_path / "alone.py").write_text(export.texts["prompt.py"], "utf-8")
    row = TASK.dev[1]
    tokens = [[[team, math.log(1 / len(TEAMS))] for team in TEAMS]]
    code = (
        "import json, sys; from promptassay import load_prompt; sys.path.insert(0, sys.argv[1]); import alone\n"
        "inputs, tokens = json.loads(sys.argv[2])\n"
        "found = load_prompt(sys.argv[1]).parse('x', tokens, inputs=inputs)\n"
        "print(json.dumps([dict(found.fields), found.confidence, *alone.answer(tokens, inputs),\n"
        "    [name for name in ('sklearn', 'scipy', 'numpy', 'openai') if name in sys.modules]]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path), json.dumps([dict(row.inputs), tokens])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    fields, confidence, answer, sure, imported = json.loads(done.stdout)
    assert fields == {"team": row.labels["team"]} == {"team": answer}
    assert confidence == pytest.approx(sure)
    assert imported == []


def test_a_prior_is_a_part_of_the_weights_and_names_its_rows() -> None:
    rows = PROGRAM.shared.of(TrainedPrior).rows
    twin = replace(FIXED, calibration=LabelCalibration("prior", dict.fromkeys(TEAMS, 0.5), 2.0, prior=Prior(1.5, rows)))
    assert twin.calibration is not None
    assert (
        read_as(LabelCalibration, json.loads(json.dumps(twin.calibration.as_dict())), "calibration") == twin.calibration
    )
    assert ("calibration", "prior") in features_of(twin)
    assert PROGRAM.check(twin) == ""
    other = replace(twin, calibration=replace(twin.calibration, prior=Prior(1.5, "rows_other")))
    assert "the train rows of the task are" in PROGRAM.check(other)
    (ablation,) = leave_one_out(twin, FIXED)
    assert (ablation.part, ablation.candidate) == ("calibration", FIXED)


def test_scores_are_those_of_the_formula() -> None:
    calibration = LabelCalibration("prior", dict.fromkeys(TEAMS, 0.5), 2.0, prior=Prior(1.5, "rows"))
    logs, said = [-0.5 * at for at in range(len(TEAMS))], [-1.0 * at for at in range(len(TEAMS))][::-1]
    wanted = [log / 2 + 0.5 + 1.5 * other for log, other in zip(logs, said, strict=True)]
    assert calibration.scores(logs, said) == pytest.approx(wanted)
    with pytest.raises(ValueError, match="zip"):
        calibration.scores(logs)


def test_a_task_whose_train_rows_have_one_label_has_no_prior() -> None:
    train = tuple(replace(row, labels={"team": TEAMS[0]}) for row in TASK.train)
    assert PromptProgram(replace(TASK, train=train), Clueless()).traits(FIXED).opinions() == []
