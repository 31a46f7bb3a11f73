"""Label weights estimated from log-probabilities on dev, and how far a confidence can be trusted. Pure.

`scores` is a table here: for each row the log-probability of each label, in nats. A row's answer is the label with the
highest `scores / temperature + bias`.

Source: Zhao et al. 2021, "Calibrate Before Use", section 4; Zhou et al. 2023, "Batch Calibration", section 3; Platt
1999; Guo et al. 2017, "On Calibration of Modern Neural Networks", sections 2 and 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Table = NDArray[Any]

FOLDS = 5
PRIOR = 1.0
"""The standard deviation, in nats, of what a fitted bias adds to the label-free one: a penalty of L2."""
HOTTEST = 100.0
"""The highest temperature; from there on the log-probabilities say nothing."""
DIGITS = 4
"""Decimals of a bias and a temperature, so that another machine's last digits make the same candidate."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A bias in nats for each label, and a temperature above 0."""

    bias: tuple[float, ...]
    temperature: float = 1.0


def label_free(scores: Sequence[Sequence[float]]) -> Weights:
    """Minus each label's mean score, so that no label is preferred over all rows together; knows no right answer.

    Args:
        scores: At least one row.

    Source: Zhou et al. 2023, section 3, on log-probabilities.

    >>> label_free([[-0.1, -2.4], [-0.3, -1.4]]).bias
    (0.2, 1.9)
    """
    return Weights(tuple(round(-math.fsum(column) / len(column), DIGITS) for column in zip(*scores, strict=True)))


def fitted(scores: Sequence[Sequence[float]], answers: Sequence[int]) -> Weights:
    """A bias for each label and one temperature by multinomial logistic regression, shrunk towards `label_free`.

    With few rows it is nearly label-free; the more there are, the more the right answers decide. The problem is convex
    in 1 / temperature and the biases, so there is one solution.

    Args:
        scores: At least one row, each with two labels or more.
        answers: For each row the index of the right label.

    Source: Platt 1999; Guo et al. 2017, section 4.2 (one temperature); the bias of each label as in "vector scaling".
    """
    import numpy as np
    from scipy.optimize import minimize

    table, right = np.asarray(scores, dtype=float), np.asarray(answers)
    mean = table.mean(axis=0)
    centred, rows = table - mean, np.arange(len(table))

    def loss(parameters: Table) -> tuple[float, Table]:
        sharpness, added = parameters[0], parameters[1:]
        logits = sharpness * centred + added
        logits -= logits.max(axis=1, keepdims=True)
        shares = np.exp(logits)
        totals = shares.sum(axis=1)
        shares /= totals[:, None]
        value = float((np.log(totals) - logits[rows, right]).sum())
        shares[rows, right] -= 1.0  # from here on the gradient of the logits
        slope = np.concatenate([[float((shares * centred).sum())], shares.sum(axis=0)])
        away = np.concatenate([[sharpness - 1.0], added]) / PRIOR
        return value + 0.5 * float(away @ away), slope + away / PRIOR

    start = np.concatenate([[1.0], np.zeros(table.shape[1])])
    bounds = [(1 / HOTTEST, None), *[(None, None)] * table.shape[1]]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-12, "gtol": 1e-8})
    sharpness, added = float(found.x[0]), found.x[1:]
    bias = tuple(round(float(value), DIGITS) for value in added - sharpness * mean)
    return Weights(bias, round(1 / sharpness, DIGITS))


def cross_fitted(scores: Sequence[Sequence[float]], answers: Sequence[int]) -> list[Weights]:
    """For each row the weights `fitted` to the rows of the other folds, so that no row reads itself.

    Args:
        scores: Rows in an order in which every beginning holds the labels evenly; the folds are every FOLDS-th row.
        answers: For each row the index of the right label.

    Source: Chernozhukov et al. 2018 (cross-fitting).
    """
    folds = min(FOLDS, len(scores))
    made = []
    for fold in range(folds):
        kept = [at for at in range(len(scores)) if at % folds != fold]
        made.append(fitted([scores[at] for at in kept], [answers[at] for at in kept]))
    return [made[at % folds] for at in range(len(scores))]


# -- how far a confidence can be trusted ------------------------------------------------------------------------------

BINS = 10
FEWEST_ANSWERED = 20
"""Dev rows that must remain answered, for a threshold to be chosen by their precision."""


@dataclass(frozen=True, slots=True)
class Bin:
    """The rows whose confidence is in (`low`, `high`]: how many, their mean confidence, and the part that is right."""

    low: float
    high: float
    n: int
    confidence: float
    right: float


def reliability(confidences: Sequence[float], right: Sequence[bool]) -> list[Bin]:
    """The reliability curve in BINS bins of equal width; bins without rows are left out.

    Args:
        confidences: In [0, 1], one for each row.
        right: Whether its answer was.

    Source: Guo et al. 2017, section 2.
    """
    bins = []
    for at in range(BINS):
        low, high = at / BINS, (at + 1) / BINS
        inside = [(c, ok) for c, ok in zip(confidences, right, strict=True) if min(BINS - 1, _bin_of(c)) == at]
        if inside:
            mean = math.fsum(c for c, _ in inside) / len(inside)
            bins.append(Bin(low, high, len(inside), mean, sum(ok for _, ok in inside) / len(inside)))
    return bins


def _bin_of(confidence: float) -> int:
    return max(0, math.ceil(confidence * BINS) - 1)


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """The mean distance, over rows, of confidence and accuracy in their bin; in [0, 1], 0 is perfect.

    Source: Naeini et al. 2015; Guo et al. 2017, equation 3.
    """
    rows = sum(one.n for one in bins)
    return math.fsum(one.n * abs(one.confidence - one.right) for one in bins) / rows if rows else 0.0


def abstain_below(confidences: Sequence[float], right: Sequence[bool], precision: float) -> float | None:
    """The lowest confidence from which on the answers are right often enough.

    It is chosen by these rows, so that other rows may fall somewhat short of the precision.

    Args:
        confidences: In [0, 1], one for each row.
        right: Whether its answer was.
        precision: The part of the answers that must be right, in (0, 1).

    Returns:
        A threshold with at least FEWEST_ANSWERED of the rows at it or above; None where there is none.

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
