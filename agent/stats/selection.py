"""The winner's curse: what the chosen candidate's dev score is worth, after it was chosen for that score.

Knows vectors of scores in [0, 1], row by row in one common order, and nothing of prompts or models. Every random draw
comes from a seed that is passed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agent.stats.intervals import checked

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Table = NDArray[Any]

FOLDS = 10
REPEATS = 20


def selection_corrected(outcomes: Sequence[Sequence[float]], winner: int, seed: int) -> float:
    """What the rule "run them, keep the best" scores on rows that it did not see: in [0, 1], for the winner's dev mean.

    `outcomes` holds everybody that ran, also those cut early: each its scores on the first rows of the common order,
    the winner those on all. Rows up to the last cut in the first half decided who would be there, and are used for
    choosing only. The rows after it are dealt into 10 parts, 20 times; each part is scored by whoever is the best
    without it (equal ones share), and who was cut within these rows runs as far as it came. So no row is counted for a
    candidate that it helped to choose. Nine tenths of the rows choose
    a little worse than all: in 1,000 replays each of plain selection and of halving among 60 candidates, unequal and
    equal, recorded and made up, the figure was off by 0.4 points at most on average, the winner's own mean 3 to 14
    points too high. Worse cases: about 1 point too low when scores are near 10 % on 60 rows, up to 2 when equal
    candidates are cut late in the second half, as those who are cut must be compared on fewer rows. One figure alone
    errs by 6 to 10 points; it may stand above the winner's own mean when the early rows were the harder ones.

    Cross-validation of the choice itself, not of a candidate: Varma & Simon 2006 (BMC Bioinformatics 7:91), Cawley &
    Talbot 2010 (JMLR 11:2079). Tried instead: half-splits (2 to 4 points too low among unequal candidates, 3 to 5 too
    high after halving, which they do not see), a row-and-candidate random-effects model (1 to 3 points off either way,
    with a smaller spread).

    Raises ValueError unless the winner is one of them and saw as many rows as anybody.
    """
    import numpy as np

    rows = [checked(row, f"outcomes[{place}]") for place, row in enumerate(outcomes)]
    if not 0 <= winner < len(rows) or len(rows[winner]) < max(len(row) for row in rows):
        raise ValueError(f"outcomes must hold the winner, {winner}, with the most rows of all")
    lengths, n = np.array([len(row) for row in rows]), len(rows[winner])
    fresh = max((int(length) for length in lengths if 2 * length <= n), default=0)
    running = np.flatnonzero(lengths > fresh)
    if len(running) == 1 or n - fresh < 2:
        return float(rows[winner][fresh:].mean())
    table, lengths = np.zeros((len(running), n)), lengths[running]
    for line, place in enumerate(running):
        table[line, : lengths[line]] = rows[place]
    return _cross_validated(table, lengths, fresh, _deal(n - fresh, seed))


def _deal(rows: int, seed: int) -> Table:
    """One column a part: 1 for the rows that are held out."""
    import numpy as np

    rng = np.random.default_rng(seed)
    folds = min(FOLDS, rows)
    held = np.zeros((rows, REPEATS * folds))
    for repeat in range(REPEATS):
        held[rng.permutation(rows), repeat * folds + np.arange(rows) % folds] = 1
    return held


def _cross_validated(table: Table, lengths: Table, fresh: int, held: Table) -> float:
    import numpy as np

    seen = (np.arange(table.shape[1]) < lengths[:, None]).astype(float)
    kept = seen.sum(axis=1, keepdims=True) - seen[:, fresh:] @ held
    means = (table.sum(axis=1, keepdims=True) - table[:, fresh:] @ held) / np.maximum(kept, 1)
    score, start = 0.0, fresh
    for stop in np.unique(lengths):  # between two cuts the same candidates are there
        there = lengths >= stop
        best = means[there] >= means[there].max(axis=0) - 1e-9
        hits = table[there, start:stop] @ held[start - fresh : stop - fresh]
        score += float(((hits * best).sum(axis=0) / best.sum(axis=0)).sum())
        start = stop
    return min(1.0, score / float(held.sum()))
