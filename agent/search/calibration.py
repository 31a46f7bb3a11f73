"""Calibrated variants of the finalists: same calls, bias-corrected label scores.

They are ordinary trials, so the correction for having chosen among all (`stats/selection.py`) counts them. The score of
a fitted variant on a dev row comes from weights that were fitted without that row's fold; the variant has those of all.
A row of another fold did help to fit them, so two halves of dev are not quite independent: by one row in FOLDS and
through a few shrunk numbers. Pool and classifier are of train rows alone, so their votes on dev are out of sample.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.ledger.query import CALIBRATED
from agent.prompt.label_calibration import FLOOR, NEIGHBOURS, LabelCalibration, Method, calibrated, share_of_all
from agent.prompt.parts.calibration import Opinion
from agent.search.context import SearchContext
from agent.search.selection import Finalist
from agent.stats.calibration import Weights, cross_fitted, fitted, label_free, stacked
from agent.types import Example, Field, Outcome, Prediction, Proposal

Read = tuple[Prediction, float | None]  # a parsed reply, and its signal
FEWEST_ROWS = 20  # rows with label log-probabilities that estimating weights needs
LEAST_SHARE = 0.5  # of the dev rows
FITS: dict[Method, Callable[[Any, Any, Any], Weights]] = {"prior": stacked}  # methods that do not use `fitted`
REASONS: dict[Method, str] = {
    "label-free": "removes the model's preference for each label over all dev rows; no right answer was used",
    "fitted": "a bias for each label and one temperature, fitted to the dev rows; its score is cross-fitted",
    "neighbours": f"fitted, combined with a vote of the {NEIGHBOURS} nearest train rows; its score is cross-fitted",
    "prior": "combined with a classifier of the train rows, weights fitted to dev; its score is cross-fitted",
}


@dataclass(frozen=True, slots=True)
class _Estimate:
    """Weights of a variant (`all_rows`) and for reading each dev row; None: its reply decides. `votes`: by row."""

    method: Method
    all_rows: Weights
    each: Sequence[Weights | None]
    votes: Sequence[Sequence[float]] = ()
    opinion: Opinion | None = None

    def named(self, field: Field, weights: Weights) -> LabelCalibration:
        bias = dict(zip(field.choices, weights.bias, strict=True))
        more = self.opinion.weighed(weights.weight) if self.opinion else {}
        return LabelCalibration(self.method, bias, weights.temperature, **more)

    def read(self, field: Field, rows: Sequence[Example], outcomes: Sequence[Outcome]) -> list[Read]:
        votes = self.votes or [()] * len(outcomes)
        found: list[Read] = []
        for row, outcome, weights, vote in zip(rows, outcomes, self.each, votes, strict=True):
            if outcome.label_scores is None or weights is None:
                found.append((outcome.prediction, outcome.signal))
                continue
            named = self.named(field, weights)
            scores = named.scores(outcome.label_scores, vote)
            read = calibrated(outcome.prediction, outcome.label_scores, field, named, vote)
            right = row.labels[field.name]
            signal = share_of_all(scores, field.choices.index(right)) if right in field.choices else None
            found.append((read, signal))
        return found


def _estimated(
    method: Method,
    usable: Mapping[int, tuple[Sequence[float], int]],
    rows: int,
    said: Sequence[Sequence[float]] = (),
    logs: Sequence[Sequence[float]] = (),
    opinion: Opinion | None = None,
) -> _Estimate:
    """Fit to `usable` dev rows: label log-probabilities and right label. `logs`: of the votes `said`."""
    scores, answers = [scores for scores, _ in usable.values()], [answer for _, answer in usable.values()]
    more = [logs[at] for at in usable] if logs else None
    fit = FITS.get(method, fitted)
    each = dict(zip(usable, cross_fitted(scores, answers, more, fit), strict=True))
    return _Estimate(method, fit(scores, answers, more), [each.get(at) for at in range(rows)], said, opinion)


async def add_calibrated(context: SearchContext) -> None:
    """Score calibrated variants of every candidate that saw the whole of dev; makes no call."""
    outputs = context.task.signature.outputs
    if len(outputs) != 1 or len(outputs[0].choices) < 2:
        return
    field = outputs[0]
    labels = [row.labels[field.name] for row in context.dev]
    for candidate_id in context.trials.in_state("complete"):
        outcomes = context.trials.outcomes[candidate_id]
        usable = {
            at: (outcome.label_scores, field.choices.index(labels[at]))
            for at, outcome in enumerate(outcomes)
            if outcome.label_scores is not None and labels[at] in field.choices
        }
        if len(outcomes) < len(context.dev) or len(usable) < max(FEWEST_ROWS, LEAST_SHARE * len(outcomes)):
            continue
        base = context.trials.proposals[candidate_id]
        free = label_free([scores for scores, _ in usable.values()])
        estimates = [_Estimate("label-free", free, [free] * len(outcomes)), _estimated("fitted", usable, len(outcomes))]
        opinions = await asyncio.to_thread(context.program.opinions, base.candidate, True)  # may train a classifier
        for opinion in opinions:
            said = [opinion.said(row) for row in context.dev]
            estimates.append(_estimated(opinion.method, usable, len(outcomes), said, opinion.logs(said), opinion))
        for estimate in estimates:
            twin = context.program.calibrated(base.candidate, estimate.named(field, estimate.all_rows))
            if twin is None:
                continue
            operator, reason = f"{CALIBRATED}{estimate.method}", REASONS[estimate.method]
            if context.admit([Proposal(twin, base.place, operator, candidate_id, reason)]):
                context.trials.open(twin.id, context.round)
                read = zip(context.dev, outcomes, estimate.read(field, context.dev, outcomes), strict=True)
                seen = [await context.evaluator.read_again(twin, row, outcome, *one) for row, outcome, one in read]
                context.trials.record(twin.id, seen)
                context.trials.settle(twin.id, "complete", "read from the replies of its parent, the whole of dev")


def best_readings(context: SearchContext, candidates: Sequence[Finalist]) -> list[Finalist]:
    """Keep the variant of each prompt with the least log-loss on dev. The calls are the same."""
    trials = context.trials
    losses: dict[str, dict[str, float]] = {}
    for each in candidates:
        proposal = trials.proposals[each.candidate_id]
        if proposal.operator.startswith(CALIBRATED) and proposal.parent_id is not None:
            signals = [one.signal for one in trials.outcomes[each.candidate_id] if one.signal is not None]
            loss = -math.fsum(math.log(max(signal, FLOOR)) for signal in signals) / max(1, len(signals))
            losses.setdefault(proposal.parent_id, {})[each.candidate_id] = loss
    beaten = set[str]()
    for twins in losses.values():
        beaten |= twins.keys() - {min(twins, key=lambda twin: twins[twin])}
    return [each for each in candidates if each.candidate_id not in beaten]
