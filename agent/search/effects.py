"""The contribution of each part of a candidate to the score: a ridge model over all scores of a run.

    score[candidate, row] = row + parts + examples + own[candidate] + noise

The columns of a candidate are its `features`, named by its kind: `demo` is one column per train row, `own` is what no
part explains, all others are parts. Row effects are removed first, exactly, also if candidates have different numbers
of rows. Each of the three groups has its own penalty (ridge as a Gaussian prior; Hoerl & Kennard 1970): those of a
small grid are averaged by their likelihood, so that few candidates give wide errors and not a lucky penalty. The noise
is taken as equal on all rows; the order of the examples is not in the model.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.search.study import Feature

Matrix = NDArray[Any]

SPREADS = {"parts": (0.03, 0.1, 0.3), "demo": (0.007, 0.015, 0.04, 0.1), "own": (0.01, 0.03, 0.1)}
"""The grid: standard deviations of coefficients, in score."""

NOISE_PRIOR, NOISE_ROWS = 0.1, 2.0  # a variance that counts for two rows: equal replies on few rows prove little
LOOSE = 1e-3  # of a row: the weight of the prior on the level that all candidates share


@dataclass(frozen=True, slots=True)
class ScoredCandidate:
    """A candidate as columns of the model, with its scores on the first dev rows."""

    candidate_id: str
    features: Mapping[Feature, float]
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Effect:
    """The contribution of a choice of a part, in points (hundredths of score)."""

    part: str
    name: str
    points: float
    se: float


class PartsModel:
    """The model, fitted to scored candidates."""

    def __init__(self, table: Sequence[ScoredCandidate]) -> None:
        from scipy.linalg import cho_factor, cho_solve

        scored = [each for each in table if any(value is not None for value in each.values)]
        features = [each.features for each in scored]
        self._columns = {group: sorted({f for row in features for f in row if _group(f) == group}) for group in SPREADS}
        self._design = {group: self._matrix(group, features) for group in SPREADS}
        level, spread = _levels(scored)
        grams = {group: design @ design.T for group, design in self._design.items()}
        fits = []
        for spreads in product(*SPREADS.values()):
            variances = {group: value * value for group, value in zip(SPREADS, spreads, strict=True)}
            total = spread + sum(variances[group] * grams[group] for group in SPREADS)
            factor = cho_factor(total, lower=True)
            solved = cho_solve(factor, level)
            likely = -float(level @ solved) / 2 - float(np.log(np.diag(factor[0])).sum())
            fits.append((likely, variances, factor[0], solved))
        top = max(fit[0] for fit in fits)
        weights = [math.exp(fit[0] - top) for fit in fits]
        self._fits = [
            (weight / sum(weights), *fit[1:]) for weight, fit in zip(weights, fits, strict=True) if weight > 1e-3
        ]

    def _matrix(self, group: str, rows: Sequence[Mapping[Feature, float]]) -> Matrix:
        place = {feature: column for column, feature in enumerate(self._columns[group])}
        matrix = np.zeros((len(rows), len(place)))
        for number, row in enumerate(rows):
            for feature, value in row.items():
                if feature in place:
                    matrix[number, place[feature]] = value
        return matrix

    def sums(self, wanted: Sequence[Mapping[Feature, float]]) -> list[tuple[float, float]]:
        """Return mean and standard error, in score, of weighted sums of coefficients. Unscored ones are 0."""
        from scipy.linalg import solve_triangular

        rows = {group: self._matrix(group, wanted) @ self._design[group].T for group in SPREADS}
        sizes = {
            group: np.array([sum(v * v for f, v in row.items() if _group(f) == group) for row in wanted])
            for group in SPREADS
        }
        mean, square = np.zeros(len(wanted)), np.zeros(len(wanted))
        for weight, variances, lower, solved in self._fits:
            shared: Any = sum(variances[group] * rows[group] for group in SPREADS)
            prior = sum(variances[group] * sizes[group] for group in SPREADS)
            at = shared @ solved
            mean += weight * at
            known = (solve_triangular(lower, shared.T, lower=True) ** 2).sum(axis=0)
            square += weight * (at**2 + np.maximum(0.0, prior - known))
        errors = np.sqrt(np.maximum(0.0, square - mean**2))
        return [(float(m), float(e)) for m, e in zip(mean, errors, strict=True)]

    def difference(self, one: Mapping[Feature, float], two: Mapping[Feature, float]) -> tuple[float, float]:
        """Estimate the lead of `one` over `two`, in score, with its standard error."""
        return self.sums([{f: one.get(f, 0.0) - two.get(f, 0.0) for f in (*one, *two)}])[0]

    def effects(self, part: str) -> list[Effect]:
        """Return the coefficients of one part ("instruction", "format", "demo", ...)."""
        names = [feature for columns in self._columns.values() for feature in columns if feature[0] == part]
        sums = self.sums([{feature: 1.0} for feature in names])
        return [Effect(part, name, 100 * m, 100 * e) for (_, name), (m, e) in zip(names, sums, strict=True)]


def demo_effects(table: Sequence[ScoredCandidate]) -> dict[str, Effect]:
    """Estimate the contribution, by id, of train rows that two or more candidates use."""
    counts = Counter(name for each in table for part, name in each.features if part == "demo")
    return {e.name: e for e in PartsModel(table).effects("demo") if counts[e.name] > 1} if counts else {}


def recombine(
    effects: Mapping[str, Effect], groups: Mapping[str, Sequence[str]], k: int, rng: random.Random
) -> list[str]:
    """Draw train rows for a demo set by Thompson sampling of their effects (Thompson 1933).

    Labels take turns; for each place of a label one row without an effect joins, as uncertain as the least certain one.
    """
    unsure = max((effect.se for effect in effects.values()), default=1.0)
    labels = rng.sample(sorted(groups), len(groups))
    places = Counter(labels[number % len(labels)] for number in range(k)) if labels else Counter[str]()
    chosen: list[str] = []
    spare: list[tuple[float, str]] = []
    for label in labels:
        untried = sorted(i for i in groups[label] if i not in effects)
        rng.shuffle(untried)
        drawn = [(rng.gauss(effects[i].points, effects[i].se), i) for i in groups[label] if i in effects]
        drawn += [(rng.gauss(0.0, unsure), i) for i in untried[: places[label]]]
        drawn.sort(reverse=True)
        chosen += [i for _, i in drawn[: places[label]]]
        spare += [*drawn[places[label] :], *((-math.inf, i) for i in untried[places[label] :])]
    spare.sort(reverse=True)
    chosen += [i for _, i in spare[: max(0, k - len(chosen))]]  # where a label has too few rows
    rng.shuffle(chosen)
    return chosen


def _group(feature: Feature) -> str:
    return feature[0] if feature[0] in SPREADS else "parts"


def _levels(table: Sequence[ScoredCandidate]) -> tuple[Matrix, Matrix]:
    """Solve for candidates and rows at once, as only good candidates have late rows."""
    width = max((len(each.values) for each in table), default=0)
    scores = np.array([[*each.values, *[None] * (width - len(each.values))] for each in table], dtype=float)
    scores = scores.reshape(len(table), width)
    mask = (~np.isnan(scores)).astype(float)
    scores = np.nan_to_num(scores)
    per_row = np.maximum(1.0, mask.sum(axis=0))
    links = np.diag(mask.sum(axis=1)) - (mask / per_row) @ mask.T + LOOSE * np.eye(len(table))
    inverse = np.linalg.inv(links)
    level = inverse @ ((scores - scores.sum(axis=0) / per_row) * mask).sum(axis=1)
    rest = (scores - level[:, None]) * mask
    rest = (rest - rest.sum(axis=0) / per_row) * mask
    free = max(0.0, float(mask.sum()) - len(table) - width + 1)
    noise = (float((rest**2).sum()) + NOISE_ROWS * NOISE_PRIOR) / (free + NOISE_ROWS)
    return level, noise * inverse
