"""Votes of the nearest rows of a pool for the label of an input: similarity-weighted k-nearest neighbours (kNN).

Imports the standard library alone, as a released prompt counts its votes here.

Source: Dudani 1976, "The Distance-Weighted k-Nearest-Neighbor Rule"; Khandelwal et al. 2020, "Generalization through
Memorization", section 2 (interpolation with a language model).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.retrieval.pick import PoolIndex, PoolRow

NEIGHBOURS = 32
"""Rows that vote in a search: of 8, 16, 24, 32 and 48 the one with the least cross-fitted loss on dev."""
MOST_NEIGHBOURS = 1_000
SMOOTHING = 0.5  # of a vote for each label, so that one without any neighbour is not ruled out


def label_votes(
    index: PoolIndex,
    text: str,
    labels: Sequence[str],
    k: int,
    leave_out: Collection[str] = (),
    own: Sequence[PoolRow] = (),
) -> tuple[float, ...]:
    """Sum the similarities (0 to 2 each) of the nearest rows for each label.

    `labels`: a row with another label takes a place and counts for none. `k`: how many rows vote; fewer if fewer share
    a term with the input. `leave_out`: ids of rows of the pool that do not vote. `own`: rows of a user, which vote as
    if they were in the pool.
    """
    rows = (*index.rows, *own)
    alike = index.similarities(text, [row.text for row in own])
    able = ((value, -at) for at, value in alike.items() if at >= len(index.rows) or rows[at].id not in leave_out)
    votes = dict.fromkeys(labels, 0.0)
    for value, at in heapq.nlargest(k, able):  # of equal ones the first
        if (label := rows[-at].label) in votes:
            votes[label] += value
    return tuple(votes.values())


def log_shares(votes: Sequence[float]) -> list[float]:
    """Return the log of each label's share in the votes, each with SMOOTHING added.

    Without votes all are equal.

    >>> [round(share, 2) for share in log_shares([1.5, 0.0])]
    [-0.22, -1.61]
    """
    total = math.fsum(votes) + SMOOTHING * len(votes)
    return [math.log((vote + SMOOTHING) / total) for vote in votes]
