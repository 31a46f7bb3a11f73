"""Votes of the nearest rows: counted as a naive count does, bounded, and the same with rows of a user."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.prompt.label_calibration import SMOOTHING, log_shares
from agent.release.export import HOSTILE
from agent.retrieval.pick import PoolIndex, PoolRow
from tests.cases import each_case

LABELS = ("billing", "delivery", "account")
WORDS = ("card", "fee", "parcel", "late", "door", "code", "refund", "box", "naïve", "東京都")


def pool(seed: int, size: int = 30) -> list[PoolRow]:
    rng = random.Random(seed)
    texts = [" ".join(rng.choices(WORDS, k=4)) for _ in range(size)]
    return [PoolRow(f"t{at}", text, rng.choice(LABELS), f"t{at}") for at, text in enumerate(texts)]


@given(st.integers(0, 10**6), st.integers(1, 40), st.lists(st.sampled_from(WORDS), max_size=5), st.booleans())
def test_the_votes_are_the_similarities_of_the_nearest_rows(seed: int, k: int, words: list[str], known: bool) -> None:
    rows = pool(seed)
    text = rows[7].text if known else " ".join(words)
    known = text == rows[7].text
    index = PoolIndex(rows)
    alike = index.similarities(text)
    assert all(0 < value <= 2 for value in alike.values())
    assert max(alike.values(), default=2) <= 2
    able = sorted((-value, at) for at, value in alike.items() if not (known and at == 7))[:k]
    wanted = [math.fsum(-value for value, at in able if rows[at].label == label) for label in LABELS]
    assert index.votes(text, LABELS, k, "t7") == pytest.approx(wanted)


@given(st.integers(0, 10**6), st.sampled_from(WORDS))
def test_a_text_outside_the_pool_is_compared_as_a_row_of_it_would_be(seed: int, word: str) -> None:
    """By how rare its terms are in the pool: a copy of a row is as near as the row."""
    rows = pool(seed, 12)
    alike = PoolIndex(rows).similarities(word, [row.text for row in rows])
    for at, value in alike.items():
        assert alike[at + len(rows) if at < len(rows) else at - len(rows)] == pytest.approx(value)


def test_rows_of_a_user_vote_with_those_of_the_pool_and_without_votes_all_labels_are_equal() -> None:
    index = PoolIndex([PoolRow("a", "card fee", "billing", "a"), PoolRow("b", "late parcel", "delivery", "b")])
    assert index.similarities("card fee") == {0: 2.0}, "as near as can be, and nothing in common"
    own = [PoolRow("own", "card fee", "account", "own")]
    assert index.votes("card fee", LABELS, 8, "", own) == (0.0, 0.0, 2.0), "a row with the same words is corrected"
    other = [PoolRow("own", "card fee due", "account", "own")]
    assert index.votes("card fee", LABELS, 8, "", other)[0] > index.votes("card fee", LABELS, 8, "", other)[2] > 0
    assert index.votes("card fee", LABELS, 8, "a", own)[0] == 0.0, "a row does not vote for itself"
    assert PoolIndex([]).votes("card", LABELS, 32) == (0.0, 0.0, 0.0)
    assert log_shares((0.0, 0.0, 0.0)) == pytest.approx([math.log(1 / 3)] * 3)
    assert log_shares((1.0, 0.0)) == pytest.approx([math.log((1 + SMOOTHING) / 2), math.log(SMOOTHING / 2)])


@each_case("text", [*HOSTILE, "x" * 50_000, "card " * 20_000])
def test_any_text_has_votes(text: str) -> None:
    rows = [*pool(1), PoolRow("h", text[:5_000], "no label of these", "h"), PoolRow("e", "", "billing", "e")]
    votes = PoolIndex(rows).votes(text, LABELS, 32)
    assert math.fsum(map(math.exp, log_shares(votes))) == pytest.approx(1.0)
    assert 0 <= sum(votes) <= 2 * 32
