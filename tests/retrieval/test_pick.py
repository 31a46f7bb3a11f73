"""Which rows are picked: the same every time, never too many, never what must be left out, whatever the text."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.release.export import HOSTILE
from agent.retrieval.pick import ORDERS, RETRIEVERS, Picks, PoolIndex, PoolRow
from tests.cases import each_case

LABELS = ("a", "b", "c")
WORDS = re.findall(r"\w+", "card lost stolen fee refund late parcel door code login reset screen noise fast slow open")
TEXTS = st.lists(st.sampled_from([*WORDS, "東京都", "שלום", "é", "e\u0301"]), max_size=12).map(" ".join)
PICKS = st.builds(
    Picks, st.sampled_from(RETRIEVERS), st.integers(1, 16), st.sampled_from(ORDERS), st.booleans(), st.booleans()
)


def rows(texts: list[str], twins: int = 0) -> list[PoolRow]:
    """Rows with labels in turn; of the first `twins` every two are near-duplicates."""
    return [PoolRow(f"r{n}", text, LABELS[n % 3], f"r{n - n % 2 if n < twins else n}") for n, text in enumerate(texts)]


def some(count: int, seed: int = 1) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=6)) for _ in range(count)]


POOL = PoolIndex(rows(some(40), twins=20))


@settings(deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=30), TEXTS, PICKS, st.data())
def test_picks_are_the_same_each_time_and_keep_their_rules(
    texts: list[str], text: str, picks: Picks, data: st.DataObject
) -> None:
    pool = rows(texts, twins=len(texts))
    left_out = data.draw(st.sets(st.sampled_from([row.id for row in pool]), max_size=5))
    found = PoolIndex(pool).pick(text, picks, left_out)
    assert found == PoolIndex(pool).pick(text, picks, sorted(left_out))
    assert len(found) == len(set(found)) <= picks.k
    assert not {pool[at].id for at in found} & left_out
    if picks.diverse:
        assert len({pool[at].group for at in found}) == len(found)
    if picks.balanced:
        assert max(Counter(pool[at].label for at in found).values(), default=0) <= math.ceil(picks.k / 2)
    if not picks.diverse and not picks.balanced:
        assert len(found) == min(picks.k, len(pool) - len(left_out))
    other = Picks(picks.retriever, picks.k, ORDERS[picks.order == ORDERS[0]], picks.diverse, picks.balanced)
    assert PoolIndex(pool).pick(text, other, left_out) == found[::-1]


@each_case("retriever", RETRIEVERS)
def test_the_nearest_row_stands_right_before_the_input(retriever: str) -> None:
    pool = PoolIndex(rows(["late parcel", "stolen card abroad", "login code", "card fee", "noise"]))
    found = pool.pick("my card was stolen abroad", Picks(retriever, 3))
    assert found[-1] == 1
    assert pool.pick("my card was stolen abroad", Picks(retriever, 3, "nearest-first"))[0] == 1


@each_case(
    "texts, asked, retrievers, wanted",
    [
        ([*some(12), "cancellation of subscription"], "cancelation subscribtion", ["chars"], [12]),
        ([*some(12), "cancellation of subscription"], "cancelation subscribtion", ["bm25"], [0]),
        (["大阪の天気", "京都の寺", "東京都の天気", "沖縄の海"], "東京都はどうですか", RETRIEVERS, [2]),
        (["the cafe", "the caf\u00e9"], "cafe\u0301", ["bm25"], [1]),
    ],
)
def test_letters_words_and_scripts_are_compared_as_each_retriever_does(
    texts: list[str], asked: str, retrievers: list[str], wanted: list[int]
) -> None:
    for retriever in retrievers:
        assert PoolIndex(rows(texts)).pick(asked, Picks(retriever, 1)) == wanted


def test_what_has_nothing_in_common_gets_labels_in_turn_and_of_one_label_only_half_is_picked() -> None:
    pool = [PoolRow(f"r{n}", "x", "a" if n < 5 else "b", f"r{n}") for n in range(8)]
    assert PoolIndex(pool).pick("nothing alike", Picks("bm25", 4, "nearest-first")) == [0, 5, 1, 6]
    pool = [PoolRow(f"r{n}", "same words", "a", f"r{n}") for n in range(8)]
    assert len(PoolIndex(pool).pick("same words", Picks("bm25", 5, balanced=True))) == 3


@each_case(
    "text", [*HOSTILE, "word " * 10_000, " ".join(f"w{n}" for n in range(10_000)), "x" * 1_000_000, "ﬁﬂ ① Ⅳ İ ı ß"]
)
def test_hostile_texts_are_picked_for_and_may_be_in_the_pool(text: str) -> None:
    mixed = PoolIndex(rows([text, *HOSTILE, *some(10)]))
    for retriever in RETRIEVERS:
        assert len(POOL.pick(text, Picks(retriever, 6))) == 6
        assert mixed.pick(text, Picks(retriever, 6)) == mixed.pick(text, Picks(retriever, 6))


def test_threads_share_an_index() -> None:
    texts, fresh = some(200, seed=4), PoolIndex(POOL.rows)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: fresh.pick(text, Picks("hybrid", 6)), texts))
    assert found == [POOL.pick(text, Picks("hybrid", 6)) for text in texts]
