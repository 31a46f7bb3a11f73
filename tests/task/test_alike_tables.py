"""Of tables whose rows are alike, test is like the data, and no source is in two splits."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from agent.task.copies import FEW
from agent.task.splits import split_rows
from tests.task.alike_tables import TABLES, Row

DRAWS = 200


def few_of_each_source(rows: Sequence[Row]) -> list[Row]:
    """The table with its large sources thinned, as a source is worth little more than one row."""
    used = Counter[int]()
    left = []
    for row in rows:
        used[row.source] += 1
        if used[row.source] <= FEW:
            left.append(row)
    return left


def chance_of(drawn: Counter[str], data: Counter[str], rng: np.random.Generator) -> float:
    """The share of random draws whose labels are as far from those of the data."""
    counts = np.array([data[label] for label in data])
    expected = counts * drawn.total() / counts.sum()
    by_chance = rng.multinomial(drawn.total(), counts / counts.sum(), size=200)
    far = ((np.array([drawn[label] for label in data]) - expected) ** 2 / expected).sum()
    return float(np.mean(((by_chance - expected) ** 2 / expected).sum(axis=1) >= far))


@pytest.mark.parametrize("made", TABLES, ids=lambda made: made.__name__)
def test_test_rows_are_like_the_data_and_no_source_is_in_two_parts(made: Callable[[random.Random], list[Row]]) -> None:
    rng, unlike = np.random.default_rng(0), 0
    for draw in range(DRAWS):
        rows = made(random.Random(draw))
        parts = split_rows([row.text for row in rows], [row.label for row in rows], random.Random(draw))
        homes: dict[int, set[int]] = {}
        for split, part in enumerate(parts):
            for at in part:
                homes.setdefault(rows[at].source, set()).add(split)
        assert all(len(found) == 1 for found in homes.values()), draw
        data = few_of_each_source(rows)
        assert len(parts[1]) >= 0.17 * len(data), draw
        assert len(parts[2]) >= 0.3 * len(data), draw
        sources = Counter(label for _, label in {(row.source, row.label) for row in rows})
        for label, count in sources.items():
            assert count < 3 or all(any(rows[at].label == label for at in part) for part in parts), (draw, label)
        unlike += chance_of(Counter(rows[at].label for at in parts[2]), Counter(row.label for row in data), rng) < 0.01
    assert unlike <= 0.02 * DRAWS
