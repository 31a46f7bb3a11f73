"""What each part of a prompt adds to the score: a ridge model over all that a run has seen. Knows no model, no SQL.

    score[candidate, row] = row + parts + demos + own[candidate] + noise

`parts` are one-hot: instruction, technique, format, role, each instruction and format once more where there are demos;
and the log of the number of demos and the share of each label among them. `demos` is one column per train row. `own` is
what no part explains. Rows are taken out first, exactly, also where candidates saw different numbers of them. Each of
the three has a penalty of its own (ridge as a Gaussian prior; Hoerl & Kennard 1970). The penalties are not chosen: all
of a small grid are averaged by how likely they make the scores, so that few candidates give wide errors and not a lucky
penalty. The noise is taken as equal on all rows; the order of the demos is not in the model.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from agent.prompt.prompt_candidate import PromptCandidate
from agent.types import Candidate, Demo

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[Any]

Feature = tuple[str, str]
"""Which part, and which of its kind: ("format", "inline")."""

SPREADS = {"parts": (0.03, 0.1, 0.3), "demo": (0.007, 0.015, 0.04, 0.1), "own": (0.01, 0.03, 0.1)}
"""The grid: standard deviations of coefficients, in score."""

NOISE_PRIOR, NOISE_ROWS = 0.1, 2.0  # a variance as if two rows had shown it: equal replies on few rows prove little
LOOSE = 1e-3  # of a row: what is known beforehand of the level that all candidates share


@dataclass(frozen=True, slots=True)
class Observed:
    """A candidate with its scores on the first rows of the common order; None where a row could not be scored."""

    candidate: Candidate
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Effect:
    """What having this in the prompt adds, in points (hundredths of score), and its standard error."""

    part: str
    name: str
    points: float
    se: float


class PartsModel:
    """The model, fitted."""

    def __init__(self, table: Sequence[Observed]) -> None:
        import numpy as np
        from scipy.linalg import cho_factor, cho_solve

        scored = [seen for seen in table if any(value is not None for value in seen.values)]
        features = [features_of(seen.candidate) for seen in scored]
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
        import numpy as np

        place = {feature: column for column, feature in enumerate(self._columns[group])}
        found = np.zeros((len(rows), len(place)))
        for number, row in enumerate(rows):
            for feature, value in row.items():
                if feature in place:
                    found[number, place[feature]] = value
        return found

    def sums(self, wanted: Sequence[Mapping[Feature, float]]) -> list[tuple[float, float]]:
        """For each weighted sum of coefficients its mean and standard error, in score. What was never seen counts 0."""
        import numpy as np
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

    def difference(self, one: Candidate, two: Candidate) -> tuple[float, float]:
        """How much better `one` is than `two`, in score, with its standard error; either may be one never tried."""
        mine, theirs = features_of(one), features_of(two)
        return self.sums([{f: mine.get(f, 0.0) - theirs.get(f, 0.0) for f in (*mine, *theirs)}])[0]

    def effects(self, part: str) -> list[Effect]:
        """The coefficients of one part ("instruction", "format", "demo", ...), each against nothing of its kind."""
        names = [feature for columns in self._columns.values() for feature in columns if feature[0] == part]
        found = self.sums([{feature: 1.0} for feature in names])
        return [Effect(part, name, 100 * m, 100 * e) for (_, name), (m, e) in zip(names, found, strict=True)]


def demo_effects(table: Sequence[Observed]) -> dict[str, Effect]:
    """By train row, what having it among the demos adds; only rows that stood in two candidates or more."""
    counts = Counter(name for seen in table for part, name in features_of(seen.candidate) if part == "demo")
    return {e.name: e for e in PartsModel(table).effects("demo") if counts[e.name] > 1} if counts else {}


def recombine(
    effects: Mapping[str, Effect], groups: Mapping[str, Sequence[str]], k: int, rng: random.Random
) -> list[str]:
    """Up to `k` train rows, labels in turn, those first that a draw from what is known of them ranks high.

    `groups` holds the ids of each label. Per place of a label one row that was never seen joins the draw, as unsure as
    the least sure of the known. A draw, not a ranking (Thompson 1933): what is unsure gets its chance.
    """
    unsure = max((effect.se for effect in effects.values()), default=1.0)
    labels = rng.sample(sorted(groups), len(groups))
    places = Counter(labels[number % len(labels)] for number in range(k)) if labels else Counter[str]()
    chosen: list[str] = []
    spare: list[tuple[float, str]] = []
    for label in labels:
        unseen = sorted(i for i in groups[label] if i not in effects)
        rng.shuffle(unseen)
        drawn = [(rng.gauss(effects[i].points, effects[i].se), i) for i in groups[label] if i in effects]
        drawn += [(rng.gauss(0.0, unsure), i) for i in unseen[: places[label]]]
        drawn.sort(reverse=True)
        chosen += [i for _, i in drawn[: places[label]]]
        spare += [*drawn[places[label] :], *((-math.inf, i) for i in unseen[places[label] :])]
    spare.sort(reverse=True)
    chosen += [i for _, i in spare[: max(0, k - len(chosen))]]  # where a label has too few rows
    rng.shuffle(chosen)
    return chosen


# -- the parts --------------------------------------------------------------------------------------------------------


def features_of(candidate: Candidate) -> dict[Feature, float]:
    """A candidate as columns of the model, which is one of prompts."""
    assert isinstance(candidate, PromptCandidate)
    found: dict[Feature, float] = {
        ("instruction", candidate.instruction): 1.0,
        ("technique", candidate.technique): 1.0,
        ("format", candidate.format): 1.0,
        ("role", candidate.role): 1.0,
        ("own", candidate.id): 1.0,
    }
    if candidate.demos:
        found["instruction beside demos", candidate.instruction] = 1.0
        found["format beside demos", candidate.format] = 1.0
        found["log2 demos", ""] = math.log2(1 + len(candidate.demos)) / 2
        labels = Counter(label_of(demo) for demo in candidate.demos)
        if max(labels.values()) > 1:  # else the answers are no labels
            found |= {("label share", label): count / len(candidate.demos) for label, count in labels.items()}
        found |= {("demo", demo.example_id): 1.0 for demo in candidate.demos}
    return found


def label_of(demo: Demo) -> str:
    """A demo's answer as one text."""
    return " | ".join(demo.outputs.values())


def _group(feature: Feature) -> str:
    return feature[0] if feature[0] in SPREADS else "parts"


def _levels(table: Sequence[Observed]) -> tuple[Matrix, Matrix]:
    """Each candidate's level with the rows taken out, and the covariance of these levels that comes from the noise.

    Least squares over candidates and rows at once. Averages over the rows that each saw would not do: late rows are
    seen by good candidates only, and against these everybody looks average.
    """
    import numpy as np

    width = max((len(seen.values) for seen in table), default=0)
    scores = np.array([[*seen.values, *[None] * (width - len(seen.values))] for seen in table], dtype=float)
    scores = scores.reshape(len(table), width)
    seen = (~np.isnan(scores)).astype(float)
    scores = np.nan_to_num(scores)
    per_row = np.maximum(1.0, seen.sum(axis=0))
    links = np.diag(seen.sum(axis=1)) - (seen / per_row) @ seen.T + LOOSE * np.eye(len(table))
    inverse = np.linalg.inv(links)
    level = inverse @ ((scores - scores.sum(axis=0) / per_row) * seen).sum(axis=1)
    rest = (scores - level[:, None]) * seen
    rest = (rest - rest.sum(axis=0) / per_row) * seen
    free = max(0.0, float(seen.sum()) - len(table) - width + 1)
    noise = (float((rest**2).sum()) + NOISE_ROWS * NOISE_PRIOR) / (free + NOISE_ROWS)
    return level, noise * inverse
