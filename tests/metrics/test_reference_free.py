"""Metrics without a label: what is repeated."""

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.errors import InputError
from agent.metrics.reference_free import distinct_ngrams
from agent.types import Score
from tests.cases import each_case
from tests.metrics.scored import score

approx = pytest.approx
any_text = st.text(st.characters())
tokens = st.lists(st.sampled_from("ab"), max_size=14)


@each_case(
    ("text", "words", "value"),
    [
        ("a b c d e", 3, 1.0),
        ("a b a b a b", 2, 2 / 5),
        ("a b a b a b", 3, 2 / 4),
        ("no no no no no", 3, 1 / 3),
        ("The cat the  CAT", 2, 2 / 3),
        ("a b c a b c", 1, 1 / 2),
        ("two words", 3, 1.0),
        ("", 3, 1.0),
    ],
)
def test_the_part_of_runs_that_are_new_is_counted_by_hand(text: str, words: int, value: float) -> None:
    assert distinct_ngrams(text, words) == approx(value)


@given(any_text, st.integers(1, 5))
def test_the_part_of_new_runs_stays_in_range(text: str, words: int) -> None:
    assert 0 < distinct_ngrams(text, words) <= 1


@given(tokens, st.sampled_from("ab"), st.integers(1, 3))
def test_a_word_that_ends_a_run_seen_before_never_raises_the_score(said: list[str], word: str, words: int) -> None:
    longer = [*said, word]
    runs = [longer[at : at + words] for at in range(len(longer) - words + 1)]
    assume(runs and runs[-1] in runs[:-1])
    assert distinct_ngrams(" ".join(longer), words) <= distinct_ngrams(" ".join(said), words)


@given(tokens)
def test_saying_all_of_it_twice_never_raises_the_score(said: list[str]) -> None:
    assert distinct_ngrams(" ".join(said + said), 3) <= distinct_ngrams(" ".join(said), 3)


@given(st.lists(st.integers(), unique=True, min_size=3))
def test_a_text_of_different_words_has_no_repetition(numbers: list[int]) -> None:
    assert distinct_ngrams(" ".join(map(str, numbers)), 3) == 1


def test_no_repeat_needs_no_label_and_says_how_much_is_repeated() -> None:
    assert score("no_repeat", "all of these differ", None) == Score("no_repeat", 1.0)
    found = score("no_repeat", "no no no no no", None)
    assert found.value == approx(1 / 3)
    assert found.reason == "67 % of its runs of 3 words are repetitions"
    assert score("no_repeat", "a b a b a b", None, words=2).value == approx(2 / 5)
    assert score("no_repeat", "a b a b", None, words=1).value == approx(1 / 2)


@each_case("words", [0, -1, True, False, 2.0, 2.5, "2", None, [2]])
def test_runs_of_no_whole_number_of_words_are_refused(words: Any) -> None:
    with pytest.raises(InputError, match=r"no_repeat has words = .*: should be"):
        score("no_repeat", "one two three", None, words=words)
