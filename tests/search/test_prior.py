"""The twin with a classifier: scored from the replies of its parent, and the same in all forms of a release."""

from __future__ import annotations

import math
from dataclasses import replace

from agent.ledger.store import Ledger
from agent.programs.prompt import PromptProgram
from agent.prompt.parts.calibration import TrainedPrior
from agent.prompt.prompt_candidate import PromptCandidate
from agent.search import selection
from agent.search.calibration import add_calibrated, best_readings
from agent.types import Budget, Proposal
from tests.search.test_calibrated_twins import Biased
from tests.search.test_neighbours import FIXED, PICKED, PROGRAM, TASK, Clueless, searched
from tests.search.worlds import Searched, made_search, with_baseline
from tests.toys import TEAMS


def twins(found: Searched) -> dict[str, PromptCandidate]:
    """The twins with a classifier, by the id of their parent."""
    made = [p for p in found.trials.proposals.values() if p.operator == "calibration:prior"]
    return {str(p.parent_id): p.candidate for p in made if isinstance(p.candidate, PromptCandidate)}


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


def test_a_task_whose_train_rows_have_one_label_has_no_prior() -> None:
    train = tuple(replace(row, labels={"team": TEAMS[0]}) for row in TASK.train)
    assert PromptProgram(replace(TASK, train=train), Clueless()).traits(FIXED).opinions() == []
