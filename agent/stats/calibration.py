"""Calibration of label log-probabilities on dev, and reliability of confidences. Pure.

`scores` is a table here: the log-probability (nats) of each label for each row. A row's answer is the label with the
highest `scores / temperature + bias`. With `shares`, a table of log shares of each label among the votes of the row's
nearest neighbours or in the probability of a classifier, it is the label with the highest `scores / temperature +
bias + weight * shares`.

Source: Zhao et al. 2021, "Calibrate Before Use", section 4; Zhou et al. 2023, "Batch Calibration", section 3; Platt
1999; Guo et al. 2017, "On Calibration of Modern Neural Networks", sections 2 and 4.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.results.breakdown import ReliabilityBin

Table = NDArray[Any]

FOLDS = 5
PRIOR = 1.0
"""Standard deviation (nats) of a fitted bias around the label-free one: an L2 penalty."""
HOTTEST = 100.0
"""The highest temperature; there the log-probabilities carry no information."""
STACKED_HOTTEST = 1000.0
"""The same with a classifier, where they must not even break ties of two likely labels."""
STACKED_PRIOR = 3.0
"""Standard deviation of the weights of model and classifier around 1."""
DIGITS = 4
"""Decimals of a bias and a temperature, so that every machine makes the same candidate."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A bias in nats for each label, a temperature above 0, and the weight of the kNN vote or the classifier."""

    bias: tuple[float, ...]
    temperature: float = 1.0
    weight: float = 0.0


def label_free(scores: Sequence[Sequence[float]]) -> Weights:
    """Subtract each label's mean score, so that no label is preferred. Uses no right answer.

    Source: Zhou et al. 2023, section 3, on log-probabilities.

    >>> label_free([[-0.1, -2.4], [-0.3, -1.4]]).bias
    (0.2, 1.9)
    """
    return Weights(tuple(round(-math.fsum(column) / len(column), DIGITS) for column in zip(*scores, strict=True)))


def fitted(
    scores: Sequence[Sequence[float]], answers: Sequence[int], shares: Sequence[Sequence[float]] | None = None
) -> Weights:
    """Fit a bias per label and one temperature by multinomial logistic regression, shrunk towards `label_free`.

    The kNN vote (`shares`) gets one more weight, shrunk towards 1: the product of both distributions. The problem is
    convex, so there is one solution. `answers`: for each row the index of the right label.

    Source: Platt 1999; Guo et al. 2017, section 4.2 (one temperature); the bias of each label as in "vector scaling";
    kNN: Khandelwal et al. 2020, section 2, here of logs, as in a product of experts (Hinton 2002).
    """
    tables, mean = _tables(scores, shares)
    slopes = len(tables)
    start = np.concatenate([np.ones(slopes), np.zeros(len(mean))])
    bounds = [(1 / HOTTEST, None), (0.0, None)][:slopes] + [(None, None)] * len(mean)
    found = _minimum(penalised_loss(tables, np.asarray(answers)), start, bounds, gtol=1e-8)
    return _weights(found[:slopes], found[slopes:], mean)


def stacked(scores: Sequence[Sequence[float]], answers: Sequence[int], logs: Sequence[Sequence[float]]) -> Weights:
    """Weigh the model's label-free scores against a classifier's log-probabilities, by log-loss.

    Both weights are at least 0 (the model's 1 / STACKED_HOTTEST) and shrunk towards 1. The classifier (`logs`) must not
    be trained on these rows.

    Source: Wolpert 1992, "Stacked Generalization"; Breiman 1996, "Stacked Regressions" (weights of at least 0).
    """
    tables, mean = _tables(scores, logs)
    loss, none = penalised_loss(tables, np.asarray(answers), STACKED_PRIOR), np.zeros(len(mean))

    def of_two(slopes: Table) -> tuple[float, Table]:
        value, slope = loss(np.concatenate([slopes, none]))
        return value, slope[:2]

    return _weights(_minimum(of_two, np.ones(2), [(1 / STACKED_HOTTEST, None), (0.0, None)]), none, mean)


def _tables(scores: Any, more: Any) -> tuple[list[Table], Table]:
    table = np.asarray(scores, dtype=float)
    mean = table.mean(axis=0)
    return [table - mean, *([] if more is None else [np.asarray(more, dtype=float)])], mean


def _minimum(loss: Callable[[Table], tuple[float, Table]], start: Table, bounds: Any, **more: Any) -> Table:
    from scipy.optimize import minimize

    options: Any = {"ftol": 1e-12, **more}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return np.asarray(found.x)


def _weights(slopes: Table, added: Table, mean: Table) -> Weights:
    sharpness = float(slopes[0])
    weight = float(slopes[1]) if len(slopes) > 1 else 0.0
    bias = tuple(round(float(value), DIGITS) for value in added - sharpness * mean)
    return Weights(bias, round(1 / sharpness, DIGITS), round(weight, DIGITS))


def penalised_loss(
    tables: Sequence[Table], right: Table, spread: float = PRIOR
) -> Callable[[Table], tuple[float, Table]]:
    """Return the loss of the logistic regression and its gradient, as functions of the parameters.

    The one parameter of each table (rows x labels) is shrunk towards 1; a bias for each label follows, shrunk towards
    0. `right`: for each row the index of the right label. `spread`: standard deviation around these targets.
    """
    rows, slopes = np.arange(len(right)), len(tables)

    def loss(parameters: Table) -> tuple[float, Table]:
        logits = parameters[0] * tables[0] + parameters[slopes:]
        for parameter, table in zip(parameters[1:slopes], tables[1:], strict=True):
            logits += parameter * table
        logits -= logits.max(axis=1, keepdims=True)
        parts = np.exp(logits)
        totals = parts.sum(axis=1)
        parts /= totals[:, None]
        value = float((np.log(totals) - logits[rows, right]).sum())
        parts[rows, right] -= 1.0  # from here on the gradient of the logits
        slope = np.concatenate([[float((parts * table).sum()) for table in tables], parts.sum(axis=0)])
        away = np.concatenate([parameters[:slopes] - 1.0, parameters[slopes:]]) / spread
        return value + 0.5 * float(away @ away), slope + away / spread

    return loss


def cross_fitted(
    scores: Sequence[Sequence[float]],
    answers: Sequence[int],
    shares: Sequence[Sequence[float]] | None = None,
    fit: Callable[[Any, Any, Any], Weights] = fitted,
) -> list[Weights]:
    """Return each row's weights from `fit` on the other folds only. A fold is every FOLDS-th row.

    Source: Chernozhukov et al. 2018 (cross-fitting).
    """
    folds = min(FOLDS, len(scores))
    made = []
    for fold in range(folds):
        kept = [at for at in range(len(scores)) if at % folds != fold]
        near = None if shares is None else [shares[at] for at in kept]
        made.append(fit([scores[at] for at in kept], [answers[at] for at in kept], near))
    return [made[at % folds] for at in range(len(scores))]


# -- how far a confidence can be trusted ------------------------------------------------------------------------------

BINS = 10
FEWEST_ANSWERED = 20
"""The fewest answered dev rows for choosing a threshold."""


def reliability(confidences: Sequence[float], right: Sequence[bool]) -> list[ReliabilityBin]:
    """Compute the reliability curve in BINS bins of equal width; empty bins are omitted.

    Source: Guo et al. 2017, section 2.
    """
    bins = defaultdict[int, list[tuple[float, bool]]](list)
    for confidence, ok in zip(confidences, right, strict=True):
        bins[min(BINS - 1, max(0, math.ceil(confidence * BINS) - 1))].append((confidence, ok))
    return [
        ReliabilityBin(
            low=at / BINS,
            high=(at + 1) / BINS,
            n=len(inside),
            confidence=math.fsum(confidence for confidence, _ in inside) / len(inside),
            right=sum(ok for _, ok in inside) / len(inside),
        )
        for at, inside in sorted(bins.items())
    ]


def expected_calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Return the row-weighted mean gap between confidence and accuracy per bin; 0 is perfect.

    Source: Naeini et al. 2015; Guo et al. 2017, equation 3.
    """
    rows = sum(one.n for one in bins)
    return math.fsum(one.n * abs(one.confidence - one.right) for one in bins) / rows if rows else 0.0


def abstain_below(confidences: Sequence[float], right: Sequence[bool], precision: float) -> float | None:
    """Find the lowest confidence threshold that reaches the wanted precision; None if none does.

    At least FEWEST_ANSWERED of the rows are at it or above. Other rows may fall somewhat short of the precision.

    Source: El-Yaniv & Wiener 2010 (selective classification).
    """
    ranked = sorted(zip(confidences, right, strict=True), key=lambda pair: -pair[0])
    found, hits = None, 0
    for answered, (confidence, ok) in enumerate(ranked, 1):
        hits += ok
        is_last = answered == len(ranked) or ranked[answered][0] < confidence  # equal confidences stand together
        if is_last and answered >= FEWEST_ANSWERED and hits >= precision * answered:
            found = confidence
    return found
