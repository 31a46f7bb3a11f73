"""The order of dev rows: every row once, the same for the same seed, and every beginning balanced like the whole."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from agent.search.context import dev_rows, stratified
from tests.programs.moves.test_pool import free_task
from tests.toys import make_task


@given(st.lists(st.sampled_from("abc"), max_size=60), st.integers(0, 1000))
def test_every_beginning_holds_each_label_about_as_often_as_the_whole(labels: list[str], seed: int) -> None:
    rows = list(range(len(labels)))
    order = stratified(rows, labels, random.Random(seed))
    assert sorted(order) == rows
    whole = Counter(labels)
    for n in range(len(order) + 1):
        here = Counter(labels[row] for row in order[:n])
        assert all(abs(here[label] - n * count / len(labels)) <= len(whole) for label, count in whole.items())


def test_the_seed_decides_and_fewer_rows_are_a_beginning_of_more() -> None:
    task = make_task(30)
    assert dev_rows(task, 30, 1) == dev_rows(task, 30, 1) != dev_rows(task, 30, 2)
    assert dev_rows(task, 30, 1)[:12] == dev_rows(task, 12, 1)
    assert {row.id for row in dev_rows(task, 30, 1)} == {row.id for row in task.dev}


def test_without_classes_the_rows_stay_as_they_stand() -> None:
    task = free_task(10)
    assert dev_rows(task, 6, 3) == task.dev[:6]
