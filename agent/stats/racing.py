"""A race that may be looked at after every row: who is out, so that the best falls with a small, stated chance.

Knows vectors of scores in [0, 1], row by row in one common order, and nothing of prompts or models. Draws nothing.

The tests are bets (Waudby-Smith & Ramdas 2024, JRSS-B 86:1, "Estimating means of bounded random variables by
betting"). A bettor who holds that a candidate is not the best stakes part of its wealth, on each row, on somebody else
scoring higher there. While the candidate is the best the bets are unfair or fair at most, and by Ville's inequality the
wealth ever reaches 1 / alpha with probability <= alpha, however often one looks. On 0/1 scores only the rows that
differ move the wealth: it is a sequential sign test with a mixture over the win rates below a half.

All this takes candidates as given: rows that helped to write a candidate (failures shown to a proposer) flatter it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Table = NDArray[Any]

ALPHA = 0.05
BETS = tuple((2 * step + 1) / 20 for step in range(10))  # the part of its wealth that a bettor stakes on a row
WEIGHTS = tuple(bet / sum(BETS) for bet in BETS)  # bold bets weigh more: it is the early ends that save rows


def behind(scores: Sequence[Sequence[float | None]], alpha: float = ALPHA) -> list[int]:
    """Places of those that are out, of a field that saw the rows together, in one order; None is "not scored".

    The best candidate is out with probability <= `alpha`, whatever their number: only one of them is the best, and each
    is judged by one bettor. One that runs in several fields is at risk once in each.

    Give the whole field at every look, those that left too, each with the rows that it saw before it left; only
    those that saw the most rows are judged. On each row a bettor stakes on whoever led on the rows before, of the
    others that are still there (equal leaders share the stake). The best mean is never out. Raises ValueError for
    scores outside [0, 1].
    """
    import numpy as np

    lengths = np.array([len(row) for row in scores], dtype=int)
    rows = int(lengths.max(initial=0))
    table = np.full((len(scores), rows), np.nan)
    for place, row in enumerate(scores):
        table[place, : len(row)] = [np.nan if value is None else value for value in row]
    seen = ~np.isnan(table)
    table = np.where(seen, table, 0.0)
    if np.any((table < 0) | (table > 1)):
        raise ValueError("scores must lie in [0, 1]")
    if rows == 0:
        return []
    running = np.flatnonzero(lengths == rows)
    wealth = largest_wealth(_leads(table, seen)[running])
    means = (table.sum(axis=1) / np.maximum(seen.sum(axis=1), 1))[running]
    best = running[np.argmax(means)]
    return [int(place) for place, won in zip(running, wealth, strict=True) if place != best and won >= 1 / alpha]


def _leads(table: Table, seen: Table) -> Table:
    """For each candidate and row: by how much the leader of the others on the rows before was better on this one."""
    import numpy as np

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
    """Who of those that are there was the best so far, on each row; equal ones all."""
    import numpy as np

    standing = np.where(there, before, -1.0)
    leaders: Table = there & (standing >= standing.max(axis=0) - 1e-9)
    return leaders


def largest_wealth(leads: Table) -> Table:
    """For each line of leads in [-1, 1], the largest wealth (>= 1) of one who bets on them."""
    import numpy as np

    if not leads.shape[1]:
        return np.ones(len(leads))
    logs = np.cumsum(np.log1p(np.clip(leads, -1.0, 1.0)[:, :, None] * np.array(BETS)), axis=1)
    top = logs.max(axis=2)
    paths = top + np.log(np.exp(logs - top[:, :, None]) @ np.array(WEIGHTS))
    wealth: Table = np.exp(np.clip(paths.max(axis=1), 0.0, 700.0))
    return wealth
