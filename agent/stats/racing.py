"""Racing of candidates: those significantly worse than the best, and means on unequal rows. Pure.

The tests are bets (Waudby-Smith & Ramdas 2024, JRSS-B 86:1, "Estimating means of bounded random variables by
betting"), valid after every row. On each row a bettor stakes part of its wealth on another candidate scoring higher
than this one. While this one is the best the bets are fair at most, and by Ville's inequality the wealth ever reaches
1 / alpha with probability <= alpha, however often one looks. On 0/1 scores only rows that differ move the wealth: a
sequential sign test with a mixture over the win rates below a half.

Candidates are taken as given: rows that helped to write one (failures shown to a proposer) flatter it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Table = NDArray[Any]
ALPHA = 0.05
BETS = tuple((2 * step + 1) / 20 for step in range(10))  # parts of the wealth that are staked on a row
WEIGHTS = tuple(bet / sum(BETS) for bet in BETS)  # large bets weigh more: early ends save most rows


def behind(scores: Sequence[Sequence[float | None]], alpha: float = ALPHA) -> list[int]:
    """Return the indices of candidates significantly worse than the best. Those with the most rows are tested.

    The best candidate is among them with probability <= `alpha`, whatever their number; never the one with the best
    mean. A candidate in several races is at risk once in each. On each row a bettor stakes on the leader of the rows
    before among the other remaining candidates (equal leaders share the stake).

    `scores`: candidates x rows in one common order, None for "not scored"; at every look all candidates, also pruned
    ones, with the rows that they had by then. Raises ValueError for scores outside [0, 1].

    >>> behind([[1.0] * 12, [0.0] * 12])
    [1]
    """
    table, seen = _table(scores)
    if np.any((table < 0) | (table > 1)):
        raise ValueError("scores must be in [0, 1]")
    if not table.size:
        return []
    running = np.flatnonzero([len(row) == table.shape[1] for row in scores])
    wealth = largest_wealth(_leads(table, seen)[running])
    means = (table.sum(axis=1) / np.maximum(seen.sum(axis=1), 1))[running]
    best = running[np.argmax(means)]
    return [int(place) for place, won in zip(running, wealth, strict=True) if place != best and won >= 1 / alpha]


def _table(scores: Sequence[Sequence[float | None]]) -> tuple[Table, Table]:
    """Return candidates x rows with 0 for no score, and where a score is."""
    table = np.full((len(scores), max(map(len, scores), default=0)), np.nan)
    for place, row in enumerate(scores):
        table[place, : len(row)] = [np.nan if value is None else value for value in row]
    seen = ~np.isnan(table)
    return np.where(seen, table, 0.0), seen


def _leads(table: Table, seen: Table) -> Table:
    before = (np.cumsum(table, axis=1) - table) / np.maximum(np.cumsum(seen, axis=1) - seen, 1)
    first = _leaders(before, seen)
    second = _leaders(before, seen & ~first)
    leaders, hits = first.sum(axis=0), (table * first).sum(axis=0)
    followed = (table * second).sum(axis=0) / np.maximum(second.sum(axis=0), 1)
    of_a_leader = np.where(leaders > 1, (hits - table) / np.maximum(leaders - 1, 1), followed)
    others = np.where(first, of_a_leader, hits / np.maximum(leaders, 1))
    leads: Table = np.where(seen & (seen.sum(axis=0) > 1), others - table, 0.0)
    return leads


def _leaders(before: Table, there: Table) -> Table:
    standing = np.where(there, before, -1.0)
    leaders: Table = there & (standing >= standing.max(axis=0) - 1e-9)
    return leaders


def largest_wealth(leads: Table) -> Table:
    """Return the largest wealth (>= 1) of a bettor on each candidate. `leads`: candidates x rows, in [-1, 1]."""
    if not leads.shape[1]:
        return np.ones(len(leads))
    logs = np.cumsum(np.log1p(np.clip(leads, -1.0, 1.0)[:, :, None] * np.array(BETS)), axis=1)
    top = logs.max(axis=2)
    paths = top + np.log(np.exp(logs - top[:, :, None]) @ np.array(WEIGHTS))
    wealth: Table = np.exp(np.clip(paths.max(axis=1), 0.0, 700.0))
    return wealth


PRIOR_CANDIDATES = 1.0  # for which an effect of 0 of a row counts
STEPS = 50
CLOSE = 1e-6


def adjusted_means(scores: Mapping[str, Sequence[float | None]]) -> dict[str, float]:
    """Estimate each candidate's mean over all rows that any candidate has seen. Leaves out those without scores.

    Plain means over 6 rows and over 60 are not comparable, as the first rows of dev may be easier. Here a score is the
    sum of a candidate's mean and an effect of its row. `scores`: by candidate, on the first rows of one order.

    Source: the additive model of a two-way layout with empty cells, fitted by backfitting (Hastie & Tibshirani 1990,
    "Generalized Additive Models", section 4.4), with shrunk row effects (Robinson 1991, "That BLUP is a Good Thing").

    >>> adjusted_means({"one": [1.0, 0.0], "other": [1.0, 0.0]})
    {'one': 0.5, 'other': 0.5}
    """
    names = [name for name, row in scores.items() if any(value is not None for value in row)]
    if not names:
        return {}
    filled, seen = _table([scores[name] for name in names])
    filled, seen = filled[:, seen.any(axis=0)], seen[:, seen.any(axis=0)]
    by_row = seen.sum(axis=0) + PRIOR_CANDIDATES
    effects, means = np.zeros(filled.shape[1]), np.zeros(len(names))
    for _ in range(STEPS):
        before = means
        means = np.where(seen, filled - effects, 0.0).sum(axis=1) / seen.sum(axis=1)
        effects = np.where(seen, filled - means[:, None], 0.0).sum(axis=0) / by_row
        effects -= effects.mean()
        if np.abs(means - before).max() < CLOSE:
            break
    return dict(zip(names, means.clip(0.0, 1.0).tolist(), strict=True))
