"""Means of candidates that saw different numbers of rows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.stats.racing import adjusted_means

SCORES = st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=1, max_size=9)


@given(st.lists(SCORES, min_size=1, max_size=6))
def test_on_the_same_rows_they_are_the_means(rows: list[list[float]]) -> None:
    width = min(map(len, rows))
    scores = {str(at): row[:width] for at, row in enumerate(rows)}
    found = adjusted_means(scores)
    assert found == pytest.approx({name: sum(row) / width for name, row in scores.items()}, abs=1e-4)


def test_easy_first_rows_do_not_flatter_the_one_that_saw_no_others() -> None:
    easy, hard = [1.0] * 6, [0.0, 1.0, 0.0, 0.0, 1.0, 0.0] * 5
    others = {f"long-{n}": [*easy, *hard] for n in range(6)}
    found = adjusted_means({"short": [1.0] * 5 + [0.0], **others})
    assert found["short"] < found["long-0"], "it did worse on the rows that all have"
    assert sum(found.values()) / 7 < 0.6


def test_rows_without_a_score_and_candidates_without_any() -> None:
    assert adjusted_means({}) == {}
    assert adjusted_means({"none": [None, None], "empty": []}) == {}
    found = adjusted_means({"one": [1.0, None, 0.0], "other": [None, 1.0]})
    assert set(found) == {"one", "other"}
    assert all(0 <= mean <= 1 for mean in found.values())
