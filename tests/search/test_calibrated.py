"""Candidates are compared by what calibration would make of their replies, and reported by what the replies say."""

from __future__ import annotations

from dataclasses import replace

from agent.ledger.store import Ledger
from agent.search.trials import Calibrated
from agent.types import Outcome
from tests.search import test_neighbours as near
from tests.search.test_calibrated_twins import PLAIN, REASONS, Biased, searched
from tests.search.worlds import Searched


def mean(outcomes: list[Outcome]) -> float:
    return sum(outcome.value or 0.0 for outcome in outcomes) / len(outcomes)


def read(found: Searched, candidate_id: str, rows: int) -> list[Outcome]:
    context = found.context
    calibrated = Calibrated(context.program)
    outcomes = context.trials.outcomes[candidate_id][:rows]
    return calibrated.read(context.trials.candidate(candidate_id), context.dev[:rows], outcomes)


async def test_a_model_that_likes_a_label_is_read_without_its_liking(ledger: Ledger) -> None:
    found = await searched(ledger, Biased(), PLAIN, REASONS)
    plain = list(found.trials.outcomes[PLAIN.id])
    for rows in (8, len(plain)):
        assert mean(plain[:rows]) < 0.5 < 0.9 < mean(read(found, PLAIN.id, rows))
    assert all((outcome.signal or 0) > 0.3 for outcome in read(found, PLAIN.id, len(plain)))
    reasons = list(found.trials.outcomes[REASONS.id])
    assert read(found, REASONS.id, len(reasons)) == reasons, "a label that comes after reasons is not weighted"


async def test_a_search_ranks_by_it_and_reports_the_replies(ledger: Ledger) -> None:
    found = await near.searched(ledger, near.Clueless())
    context, trials = found.context, found.trials
    reported = {i: trials.mean(i) for i in trials.by_id}
    context.calibrated = Calibrated(context.program)
    for candidate_id, outcomes in list(trials.outcomes.items()):
        context.record(candidate_id, outcomes)
    assert trials.parents(1)[0].proposal.candidate.id == near.PICKED.id
    assert trials.estimate(near.PICKED.id).mean > trials.estimate(near.FIXED.id).mean + 0.3
    assert sum(value or 0 for value in trials.compared()[near.PICKED.id]) == len(context.dev)
    assert {i: trials.mean(i) for i in trials.by_id} == reported


async def test_rows_without_an_answer_or_a_known_label_stay(ledger: Ledger) -> None:
    found = await searched(ledger, Biased(), PLAIN)
    context, outcomes = found.context, list(found.trials.outcomes[PLAIN.id])
    calibrated = Calibrated(context.program)
    lost = [replace(outcomes[0], value=None), replace(outcomes[1], label_scores=None), *outcomes[2:]]
    assert calibrated.read(PLAIN, context.dev, lost)[:2] == lost[:2]
    foreign = [replace(row, labels={"team": "no such team"}) for row in context.dev]
    assert calibrated.read(PLAIN, foreign, outcomes) == outcomes
    assert calibrated.read(PLAIN, context.dev, []) == []
