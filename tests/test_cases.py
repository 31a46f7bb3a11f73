"""Cases in one test: all are checked, and the failing ones are named."""

import pytest

from tests.cases import each_case


def test_every_case_that_fails_is_named_and_the_others_are_checked() -> None:
    seen: list[tuple[int, str]] = []

    @each_case("word", ["a", "b"])
    @each_case(("number", "limit"), [(1, 2), (5, 3), (4, 4)])
    def check(number: int, limit: int, word: str) -> None:
        seen.append((number, word))
        assert number < limit
        with pytest.raises(KeyError):
            raise KeyError(word)

    with pytest.raises(BaseExceptionGroup) as caught:
        check()
    assert len(seen) == 6
    outer = caught.value
    assert [error.__notes__ for error in outer.exceptions] == [["the case: {'word': 'a'}"], ["the case: {'word': 'b'}"]]
    (inner, _) = outer.exceptions
    assert isinstance(inner, BaseExceptionGroup)
    assert [error.__notes__ for error in inner.exceptions] == [
        ["the case: {'number': 5, 'limit': 3}"],
        ["the case: {'number': 4, 'limit': 4}"],
    ]


def test_a_test_that_raises_nothing_where_it_should_is_a_failing_case() -> None:
    @each_case("text", ["x"])
    def check(text: str) -> None:
        with pytest.raises(ValueError, match="no"):
            text.upper()

    with pytest.raises(BaseExceptionGroup, match="1 of 1 cases failed"):
        check()
