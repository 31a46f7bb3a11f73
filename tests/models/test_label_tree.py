"""Labels part at their tokens, and each gets what the forks on its way give it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.models.engine import FLOOR, LabelTree, TokenPath

TREE = LabelTree(((1, 2, 5, 6), (1, 2, 7), (1, 2), (4, 8)))


def test_only_the_places_where_labels_part_or_end_are_forks() -> None:
    assert TREE.forks() == {(): [1, 4], (1, 2): [5, 7]}
    assert LabelTree(((1, 2),)).forks() == {}
    assert LabelTree(((1,), (1, 2))).forks() == {(1,): [2]}


def test_a_label_has_the_product_of_its_forks_and_one_that_ends_what_the_others_leave() -> None:
    found = TREE.scores({(): {1: -0.5, 4: -3.0}, (1, 2): {5: math.log(0.5), 7: math.log(0.3)}})
    assert found == pytest.approx((-0.5 + math.log(0.5), -0.5 + math.log(0.3), -0.5 + math.log(0.2), -3.0))
    sure = LabelTree(((1,), (1, 2))).scores({(1,): {2: 0.0}})
    assert sure == pytest.approx((math.log(FLOOR), 0.0))


LABELS = st.lists(st.lists(st.integers(0, 3), max_size=4).map(tuple), min_size=1, max_size=8)


@given(LABELS)
def test_labels_that_share_all_of_each_fork_share_a_probability_of_one(labels: list[TokenPath]) -> None:
    """Different labels, each fork's whole probability dealt out among its next tokens and the end."""
    tree = LabelTree(tuple(labels))
    logs = {}
    for path, tokens in tree.forks().items():
        ways = len(tokens) + (path in labels)
        logs[path] = dict.fromkeys(tokens, -math.log(ways))
    scores = dict(zip(labels, tree.scores(logs), strict=True))
    assert math.fsum(map(math.exp, scores.values())) == pytest.approx(1.0)
