"""Which rows are picked: the same every time, never too many, never what must be left out, whatever the text."""

from __future__ import annotations

import math
import random
import re
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.retrieval.pick import ORDERS, RETRIEVERS, Picks, PoolIndex, PoolRow
from tests.cases import each_case

LABELS = ("a", "b", "c")
WORDS = re.findall(r"\w+", "card lost stolen fee refund late parcel door code login reset screen noise fast slow open")
TEXTS = st.lists(st.sampled_from([*WORDS, "東京都", "שלום", "é", "e\u0301"]), max_size=12).map(" ".join)
PICKS = st.builds(
    Picks, st.sampled_from(RETRIEVERS), st.integers(1, 16), st.sampled_from(ORDERS), st.booleans(), st.booleans()
)
HOSTILE = (
    "",
    " \n\t",
    "\0",
    "card\0lost",
    '"card" OR NEAR(lost, 2) NOT * ^ : - + ( ) { } [ ]',
    "card AND (lost OR",
    "'; DROP TABLE rows; --",
    "the of and to a in is it",
    "word " * 10_000,
    " ".join(f"w{n}" for n in range(10_000)),
    "x" * 1_000_000,
    "東京都の天気はどうですか",
    "مرحبا بالعالم",
    "שלום עולם",
    "\ud800 \udfff",
    "\u202e\u200b\ufeff",
    "👩‍👩‍👧 🎉",
    "ﬁﬂ ① Ⅳ",
    "İ ı ß",
    "%s {0} {{message}} ${x}",
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


def test_letters_find_a_misspelt_word_and_words_do_not() -> None:
    pool = PoolIndex(rows([*some(12), "cancellation of subscription"]))
    text = "cancelation subscribtion"
    assert pool.pick(text, Picks("chars", 1)) == [12]
    assert pool.pick(text, Picks("bm25", 1)) == [0]


def test_scripts_without_spaces_are_compared_by_their_letters() -> None:
    pool = PoolIndex(rows(["大阪の天気", "京都の寺", "東京都の天気", "沖縄の海"]))
    for retriever in RETRIEVERS:
        assert pool.pick("東京都はどうですか", Picks(retriever, 1)) == [2]


def test_composed_and_decomposed_letters_are_the_same() -> None:
    pool = PoolIndex(rows(["the cafe", "the caf\u00e9"]))
    assert pool.pick("cafe\u0301", Picks("bm25", 1)) == [1]


def test_what_has_nothing_in_common_gets_labels_in_turn() -> None:
    pool = [PoolRow(f"r{n}", "x", "a" if n < 5 else "b", f"r{n}") for n in range(8)]
    found = PoolIndex(pool).pick("nothing alike", Picks("bm25", 4, "nearest-first"))
    assert found == [0, 5, 1, 6]


def test_of_a_label_that_is_all_there_is_only_half_is_picked() -> None:
    pool = [PoolRow(f"r{n}", "same words", "a", f"r{n}") for n in range(8)]
    assert len(PoolIndex(pool).pick("same words", Picks("bm25", 5, balanced=True))) == 3


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("retriever", RETRIEVERS)
def test_hostile_texts_are_picked_for_and_may_stand_in_the_pool(text: str, retriever: str) -> None:
    assert len(POOL.pick(text, Picks(retriever, 6))) == 6
    mixed = PoolIndex(rows([*HOSTILE, *some(10)]))
    assert mixed.pick(text, Picks(retriever, 6)) == mixed.pick(text, Picks(retriever, 6))


def test_a_thousand_hostile_inputs_get_what_a_second_index_gives() -> None:
    rng, again = random.Random(11), PoolIndex(POOL.rows)
    for _ in range(1000):
        text = "".join(
            rng.choices(["\0", '"', " OR ", "*", "(", ")", *WORDS, "漢", "ا", "\ud83d", " "], k=rng.randint(0, 40))
        )
        picks = Picks(rng.choice(RETRIEVERS), rng.randint(1, 16), rng.choice(ORDERS), rng.random() < 0.5)
        assert POOL.pick(text, picks) == again.pick(text, picks)


def test_threads_share_an_index() -> None:
    texts, fresh = some(200, seed=4), PoolIndex(POOL.rows)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: fresh.pick(text, Picks("hybrid", 6)), texts))
    assert found == [POOL.pick(text, Picks("hybrid", 6)) for text in texts]


def test_picking_imports_the_standard_library_alone() -> None:
    import ast
    from pathlib import Path

    from agent.retrieval import pick

    tree = ast.parse(Path(pick.__file__).read_text("utf-8"))
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {name.split(".")[0] for name in names if name} <= sys.stdlib_module_names
