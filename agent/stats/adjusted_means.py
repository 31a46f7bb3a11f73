"""Means of candidates that saw different numbers of rows, without what easy or hard rows add. Pure.

The first rows of dev may be easier than those after them, and only good candidates see the later ones. So a plain mean
over 6 rows and one over 60 are not comparable. Here a score is a candidate's mean and an effect of its row together.

Source: the additive model of a two-way layout with empty cells, fitted by backfitting (Hastie & Tibshirani 1990,
"Generalized Additive Models", section 4.4), with shrunk row effects (Robinson 1991, "That BLUP is a Good Thing").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

PRIOR_CANDIDATES = 1.0  # for which an effect of 0 of a row counts
STEPS = 50
CLOSE = 1e-6


def adjusted_means(scores: Mapping[str, Sequence[float | None]]) -> dict[str, float]:
    """The mean of each candidate as if it had seen all rows that any has seen.

    Args:
        scores: by candidate its scores, in [0, 1], on the first rows of one order; None: no score. One without any is
            left out.

    Returns:
        Means in [0, 1].

    >>> adjusted_means({"one": [1.0, 0.0], "other": [1.0, 0.0]})
    {'one': 0.5, 'other': 0.5}
    """
    import numpy as np

    names = [name for name, row in scores.items() if any(value is not None for value in row)]
    if not names:
        return {}
    width = max(len(scores[name]) for name in names)
    table = np.full((len(names), width), np.nan)
    for at, name in enumerate(names):
        row = scores[name]
        table[at, : len(row)] = [np.nan if value is None else value for value in row]
    seen = ~np.isnan(table)
    table, seen = table[:, seen.any(axis=0)], seen[:, seen.any(axis=0)]
    filled, by_row = np.where(seen, table, 0.0), seen.sum(axis=0) + PRIOR_CANDIDATES
    effects = np.zeros(table.shape[1])
    means = np.zeros(len(names))
    for _ in range(STEPS):
        before = means
        means = np.where(seen, filled - effects, 0.0).sum(axis=1) / seen.sum(axis=1)
        effects = np.where(seen, filled - means[:, None], 0.0).sum(axis=0) / by_row
        effects -= effects.mean()
        if np.abs(means - before).max() < CLOSE:
            break
    return dict(zip(names, means.clip(0.0, 1.0).tolist(), strict=True))
