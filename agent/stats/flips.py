"""Whether more answers changed than repeat noise explains. Knows samples of rows; nothing of prompts, models or files.

Each row was answered some times before and some times now. Where nothing changed, all answers to a row come from the
same source, so which of them are called "before" is a matter of chance. The test shuffles that, within each row, and
asks how often answers of before and now would differ as much as they do. It is a permutation test in strata (Good 2005,
"Permutation, Parametric and Bootstrap Tests of Hypotheses", section 6.2) with the statistic of the energy distance
(Szekely & Rizzo 2013, J. Stat. Plan. Inference 143:1249). Nothing is assumed of the noise: a row may be a coin toss and
the next one certain. With the +1 correction (Phipson & Smyth 2010) its false-alarm rate is at most the level.

What it cannot do: one answer before and one now say nothing of the noise, so p is 1 whatever changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[Any]

DRAWS = 20_000
MOST_SAMPLES = 12
"""Of one row: 924 ways to choose six of them are looked through."""

T = TypeVar("T")


def flip_p_value(
    rows: Sequence[tuple[Sequence[T], Sequence[T]]],
    distance: Callable[[T, T], float],
    seed: int,
    draws: int = DRAWS,
) -> float:
    """p of "the answers to each row come from the same source before and now"; 1 where nothing can be told.

    `rows`: the samples of before and of now, of each row; `distance` in [0, 1] between two of them. Rows with no sample
    on a side are left out. Raises ValueError for more than 12 samples of a row.
    """
    import numpy as np

    seen, totals = _summed(rows, lambda before, now: _distances(before, now, distance), seed, draws)
    extreme = int(np.sum(totals >= seen - 1e-9))
    return (extreme + 1) / (draws + 1)


def moved_p_value(rows: Sequence[tuple[Sequence[float], Sequence[float]]], seed: int, draws: int = DRAWS) -> float:
    """Two-sided p of the same for scores: how often the sum over rows of (mean now - mean before) moves as far either
    way when the samples of each row are shuffled. Unlike a test on the differences of means it holds its level when
    rows were asked more often now than before, which makes these differences skew. Raises as `flip_p_value` does.
    """
    import numpy as np

    seen, totals = _summed(rows, _moves, seed, draws)
    fell, rose = int(np.sum(totals <= seen + 1e-9)), int(np.sum(totals >= seen - 1e-9))
    return min(1.0, 2 * (min(fell, rose) + 1) / (draws + 1))


def _summed(
    rows: Sequence[tuple[Sequence[T], Sequence[T]]],
    shuffled: Callable[[Sequence[T], Sequence[T]], Vector],
    seed: int,
    draws: int,
) -> tuple[float, Vector]:
    """The sum over rows of a statistic, as it is and in `draws` shuffles within rows. `shuffled` gives that of a row,
    for each way to say which samples are of before; the true one first."""
    import numpy as np

    rng = np.random.default_rng(seed)
    seen, totals = 0.0, np.zeros(draws)
    for before, now in rows:
        if not before or not now:
            continue
        if (count := len(before) + len(now)) > MOST_SAMPLES:
            raise ValueError(f"{count} samples of one row; at most {MOST_SAMPLES} can be compared")
        found = shuffled(before, now)
        if float(np.ptp(found)) < 1e-12:
            continue  # the same however it is shuffled
        seen += float(found[0])
        totals += found[rng.integers(0, len(found), draws)]
    return seen, totals


def _moves(before: Sequence[float], now: Sequence[float]) -> Vector:
    """Mean now minus mean before."""
    import numpy as np

    samples, first = [*before, *now], len(before)
    total, rest = sum(samples), len(samples) - first
    old = np.array([sum(chosen) for chosen in combinations(samples, first)])
    return (total - old) / rest - old / first


def _distances(before: Sequence[T], now: Sequence[T], distance: Callable[[T, T], float]) -> Vector:
    """The mean distance between the two sides."""
    import numpy as np

    samples, first = [*before, *now], len(before)
    count = len(samples)
    table = np.array([[distance(a, b) for b in samples] for a in samples], dtype=float)
    found = []
    for chosen in combinations(range(count), first):
        rest = [at for at in range(count) if at not in chosen]
        found.append(float(table[np.ix_(chosen, rest)].mean()))
    return np.array(found)
