"""Twins of the finalists that decide among the labels by label weights: the same calls, read otherwise.

A finalist with log-probabilities gets two, `label-free` and `fitted`. They are trials like any other, so the correction
for having chosen among all (`stats/selection.py`) counts them. What a fitted twin scores on a dev row comes from
weights that were fitted without that row's fold; the twin itself has those of all rows. A row of another fold did help
to fit them, so two halves of dev are not quite independent: by one row in FOLDS and through a few shrunk numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.ledger.query import WEIGHTED
from agent.prompt.label_weights import LabelWeights, Method, weighed
from agent.search.context import SearchContext
from agent.stats.calibration import Weights, cross_fitted, fitted, label_free
from agent.types import Candidate, Field, Outcome, Prediction, Proposal

FEWEST_ROWS = 20
"""Rows with log-probabilities of the labels below which no weights are estimated."""
LEAST_SHARE = 0.5  # of the dev rows
REASONS: dict[Method, str] = {
    "label-free": "takes out how much the model prefers each label over all dev rows; no right answer was used",
    "fitted": "a bias for each label and one temperature, fitted to the dev rows; its score here is cross-fitted",
}


async def add_label_weights(context: SearchContext) -> None:
    """Scores the twins of every candidate that saw the whole of dev; makes no call.

    Args:
        context: a search that is over.
    """
    outputs = context.task.signature.outputs
    if len(outputs) != 1 or len(outputs[0].choices) < 2:
        return
    for candidate_id in context.board.in_state("complete"):
        outcomes = context.board.outcomes[candidate_id]
        if len(outcomes) < len(context.dev):
            continue
        base = context.board.proposals[candidate_id]
        for method, all_weights, each in _estimates(context, outputs[0], outcomes):
            twin = context.program.weighted(base.candidate, _named(method, outputs[0], all_weights))
            if twin is None:
                continue
            twin_proposal = Proposal(twin, base.place, f"{WEIGHTED}{method}", candidate_id, REASONS[method])
            if context.admit([twin_proposal]):
                read = [
                    _read(outcome, outputs[0], method, weights) for outcome, weights in zip(outcomes, each, strict=True)
                ]
                await _score(context, twin, outcomes, read)


def _estimates(
    context: SearchContext, field: Field, outcomes: Sequence[Outcome]
) -> list[tuple[Method, Weights, Sequence[Weights | None]]]:
    """By method the weights of all rows, and those that each row is read with; None: it reads as it stands."""
    usable = [
        (at, outcome.label_scores, field.choices.index(context.dev[at].labels[field.name]))
        for at, outcome in enumerate(outcomes)
        if outcome.label_scores is not None and context.dev[at].labels[field.name] in field.choices
    ]
    if len(usable) < max(FEWEST_ROWS, LEAST_SHARE * len(outcomes)):
        return []
    scores, answers = [logs for _, logs, _ in usable], [right for _, _, right in usable]
    free = label_free(scores)
    apart: list[Weights | None] = [None] * len(outcomes)
    for (at, _, _), weights in zip(usable, cross_fitted(scores, answers), strict=True):
        apart[at] = weights
    return [("label-free", free, [free] * len(outcomes)), ("fitted", fitted(scores, answers), apart)]


def _named(method: Method, field: Field, weights: Weights) -> LabelWeights:
    return LabelWeights(method, dict(zip(field.choices, weights.bias, strict=True)), weights.temperature)


def _read(outcome: Outcome, field: Field, method: Method, weights: Weights | None) -> Prediction:
    if outcome.label_scores is None or weights is None:
        return outcome.prediction
    return weighed(outcome.prediction, outcome.label_scores, field, _named(method, field, weights))


async def _score(
    context: SearchContext, twin: Candidate, outcomes: Sequence[Outcome], read: Sequence[Prediction]
) -> None:
    context.board.open(twin.id, context.round)
    rows = zip(context.dev, outcomes, read, strict=True)
    seen = [await context.evaluator.read_again(twin, row, outcome, reply) for row, outcome, reply in rows]
    context.board.record(twin.id, seen)
    context.board.settle(twin.id, "complete", "read from the replies of its parent, the whole of dev")
