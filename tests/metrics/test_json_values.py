"""The metric `json_fields` where the label of a JSON field is a list."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.types import Score
from tests.cases import each_case
from tests.metrics.scored import score

approx = pytest.approx


def test_missing_and_extra_items_lower_f1_and_are_named() -> None:
    found = score("json_fields", ["rent", "deposit", "pets"], ["rent", "deposit", "notice", "repairs"])
    assert found.value == approx(2 * 2 / (3 + 4))
    assert found.reason == "missing: notice, repairs; extra: pets"


def test_only_what_is_wrong_is_named() -> None:
    assert score("json_fields", ["a"], ["a", "b"]) == Score("json_fields", approx(2 / 3), "missing: b")
    assert score("json_fields", ["a", "b"], ["a"]) == Score("json_fields", approx(2 / 3), "extra: b")


def test_an_item_said_once_too_often_is_extra() -> None:
    assert score("json_fields", ["a", "a", "b"], ["a", "b"]) == Score("json_fields", approx(4 / 5), "extra: a")


def test_each_copy_that_is_missing_or_extra_is_named() -> None:
    assert score("json_fields", [], ["a", "a"]) == Score("json_fields", 0.0, "missing: a, a")
    assert score("json_fields", ["a", "b", "b", "b"], ["a", "a", "a", "b"]).reason == "missing: a, a; extra: b, b"


def test_items_are_named_in_their_own_spelling_and_without_quotes() -> None:
    found = score("json_fields", ["Späte  GEBÜHR", {"Who": "Ada"}, 2, True], ["für März", {"who": "Bob"}, None])
    assert found.reason == 'missing: für März, null, {"who": "Bob"}; extra: Späte GEBÜHR, 2, true, {"Who": "Ada"}'


def test_two_empty_lists_agree_and_one_empty_list_does_not() -> None:
    assert score("json_fields", [], []) == Score("json_fields", 1.0)
    assert score("json_fields", [], ["a"]) == Score("json_fields", 0.0, "missing: a")
    assert score("json_fields", ["a"], []) == Score("json_fields", 0.0, "extra: a")


@each_case("count", [1, 5, 100])
def test_long_or_many_items_of_one_kind_do_not_hide_the_other_kind(count: int) -> None:
    got = [f"{at:03} is extra {'y' * 400}" for at in range(count)]
    label = [f"{at:03} {'x' * 400}" for at in range(count)]
    missing, extra = score("json_fields", got, label).reason.split("; ")
    assert missing.startswith("missing: 000 x")
    assert extra.startswith("extra: 000 is extra y")
    assert max(len(missing), len(extra)) <= 300
    assert "…" in missing
    assert "…" in extra


def test_items_agree_whatever_their_case_spacing_or_kind_of_number() -> None:
    got, label = [{"who": "Ada ", "n": 1.0}, "LATE  fee"], [{"n": 1, "who": "ada"}, "late fee"]
    assert score("json_fields", got, label) == Score("json_fields", 1.0)
    assert score("json_fields", [True], [1]).value == 0


@each_case("got", [{}, "a", 3, None])
def test_an_answer_that_is_no_list_scores_zero(got: Any) -> None:
    found = score("json_fields", got, ["a"])
    assert found.value == 0
    assert "expected a JSON list" in found.reason


items = st.lists(st.text(max_size=3) | st.integers(-2, 2) | st.booleans() | st.none() | st.lists(st.integers(0, 1)))


@given(items.flatmap(lambda label: st.tuples(st.just(label), st.permutations(label))))
def test_the_order_of_items_does_not_matter(lists: tuple[list[Any], list[Any]]) -> None:
    assert score("json_fields", lists[1], lists[0]) == Score("json_fields", 1.0)


@given(items, items)
def test_f1_of_lists_is_symmetric_in_range_and_gives_a_reason_below_one(one: list[Any], two: list[Any]) -> None:
    found, turned = score("json_fields", one, two), score("json_fields", two, one)
    assert found.value is not None
    assert 0 <= found.value <= 1
    assert found.value == approx(turned.value)
    assert bool(found.reason) == (found.value < 1)
