"""Splits are seeded, stratified, capped, and hold one of near-duplicates where rows are compared."""

import hashlib
import random
import time
import unicodedata
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.shipped import fold
from agent.task import copies
from agent.task.copies import are_near, compared, near_duplicates, sources
from agent.task.splits import split_rows

WORDS = [f"word{n}" for n in range(4000)]


def table(count: int, classes: int = 3, seed: int = 7) -> list[dict[str, str]]:
    rng = random.Random(seed)
    return [
        {"id": str(n), "text": " ".join(rng.sample(WORDS, 8)), "label": f"class{n % classes}"} for n in range(count)
    ]


def split(rows: list[dict[str, str]], seed: int = 0, stratify: bool = True) -> tuple[list[dict[str, str]], ...]:
    labels = [row["label"] if stratify else "" for row in rows]
    parts = split_rows([row["text"] for row in rows], labels, random.Random(seed))
    return tuple([rows[at] for at in part] for part in parts)


@pytest.mark.parametrize(
    ("count", "sizes"), [(30, (9, 8, 13)), (100, (30, 25, 45)), (1000, (300, 200, 400)), (5000, (300, 200, 400))]
)
def test_sizes_follow_the_shares_up_to_the_caps(count: int, sizes: tuple[int, ...]) -> None:
    parts = split(table(count))
    assert tuple(map(len, parts)) == sizes
    ids = [row["id"] for part in parts for row in part]
    assert len(ids) == len(set(ids))


@given(st.integers(2, 20), st.integers(40, 90), st.integers(0, 99))
def test_train_has_a_row_of_each_class_where_it_has_room(classes: int, count: int, seed: int) -> None:
    train, _, _ = split(table(count, classes), seed)
    assert len({row["label"] for row in train}) == min(classes, round(0.3 * count))


def brute(texts: list[str], threshold: float) -> set[frozenset[int]]:
    sets = [set(fold(text).split()) for text in texts]
    groups = {n: {n} for n in range(len(texts))}
    for one, other in combinations(range(len(texts)), 2):
        union = sets[one] | sets[other]
        alike = len(sets[one] & sets[other]) >= threshold * len(union) - 1e-9 if union else True
        if alike and groups[one] is not groups[other]:
            groups[one] |= groups[other]
            for member in groups[one]:
                groups[member] = groups[one]
    return {frozenset(group) for group in groups.values() if len(group) > 1}


@given(
    st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=7).map(" ".join), max_size=25),
    st.sampled_from([0.3, 0.5, 0.75, 0.8, 1.0]),
)
def test_near_duplicates_finds_what_comparing_all_pairs_finds(texts: list[str], threshold: float) -> None:
    assert {frozenset(group) for group in near_duplicates(texts, threshold)} == brute(texts, threshold)


ROWS = st.integers(1, 8).flatmap(lambda columns: st.lists(st.tuples(*[st.integers(0, 3)] * columns), max_size=60))


@given(ROWS, st.sampled_from([0.3, 0.5, 0.75, 0.8, 1.0]), st.sampled_from([1, 2, 5]), st.sampled_from([0.8, 9.0]))
def test_crowds_of_rows_of_a_table_are_told_apart_as_comparing_all_pairs_does(
    rows: list[tuple[int, ...]], threshold: float, crowd: int, worth: float
) -> None:
    texts = [" ".join(f"{'' if n % 3 == 0 else n}v{value}" for n, value in enumerate(row)) for row in rows]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copies, "_COMPARE_ALL", crowd)
        patch.setattr(copies, "_WORTH_SPLITTING", worth)
        found = near_duplicates(texts, threshold)
    assert {frozenset(group) for group in found} == brute(texts, threshold)


@pytest.mark.parametrize(
    "pair",
    [
        (
            "我昨天在这家餐厅等了四十分钟才上菜，服务员态度很差，再也不会来了。",
            "我昨天在这家餐厅等了五十分钟才上菜，服务员态度很差，再也不会来了。",
        ),
        (
            "この商品は届くまでに三週間かかり、箱も壊れていました。",
            "この商品は届くまでに四週間かかり、箱も壊れていました。",
        ),
        ("ฉันรอสินค้าสามสัปดาห์แล้วกล่องก็พังด้วย", "ฉันรอสินค้าสามสัปดาห์แล้วกล่องก็พังครับ"),
        ("Tôi đã đợi một tuần", unicodedata.normalize("NFD", "Tôi đã đợi một tuần")),
    ],
)
def test_scripts_without_spaces_and_letters_in_two_forms_have_near_duplicates_too(pair: tuple[str, str]) -> None:
    other = "今天的天气很好，我们去公园散步吧。"
    assert near_duplicates([pair[0], other, pair[1]]) == [(0, 2)]


def test_case_spaces_and_one_word_of_ten_make_near_duplicates() -> None:
    texts = ["One two  three four five six seven eight nine ten", "one TWO three four five six seven eight nine eleven",
             "?!", " ?! ", "other words here", "!!"]  # fmt: skip
    assert near_duplicates(texts) == [(0, 1), (2, 3)]


@given(*[st.lists(st.sampled_from(["a", "b", "c", "d", "E", "?!", "昨天", "!"]), max_size=6).map(" ".join)] * 2)
def test_two_texts_are_near_where_the_search_over_both_finds_them(one: str, other: str) -> None:
    for threshold in (0.3, 0.8, 1.0):
        found = near_duplicates([one, other], threshold) != []
        assert are_near(compared(one), compared(other), threshold) is found


@given(st.integers(0, 999))
def test_copies_are_in_one_split(seed: int) -> None:
    rows = table(90, seed=seed)
    for n in range(0, 60, 2):
        words = rows[n]["text"].split()
        rows[n + 1]["text"] = " ".join([*reversed(words), f"new{n}"]).upper()
    parts = split(rows, seed)
    home = [part for part, members in enumerate(parts) for _ in members]
    texts = [row["text"] for part in parts for row in part]
    assert all(len({home[position] for position in group}) == 1 for group in near_duplicates(texts))
    assert sum(map(len, parts)) in (89, 90)  # the last source may be cut
    assert all(abs(len(part) - size) < 2 for part, size in zip(parts, (27, 22, 41), strict=True))
    assert split(rows, seed) == parts


def giant(rows: list[dict[str, str]], count: int) -> list[dict[str, str]]:
    return [{**row, "text": f"{rows[0]['text']} {row['id']}"} if n < count else row for n, row in enumerate(rows)]


def test_one_giant_source_is_thinned_and_in_one_split() -> None:
    rows, homes = giant(table(100), 40), set()
    for seed in range(20):
        parts = split(rows, seed)
        train, dev, test = (sum(row["text"].startswith(rows[0]["text"][:-2]) for row in part) for part in parts)
        assert sum(map(bool, (train, dev, test))) == 1
        assert train == 14 or 0 < dev + test <= 3
        assert tuple(map(len, parts))[1] in (15, 16)  # of 60 different rows and three of the giant
        homes.add((bool(train), bool(dev)))
    assert len(homes) == 3


def test_a_text_that_most_rows_share_is_a_form_and_not_a_source() -> None:
    assert tuple(map(len, split(giant(table(100), 80)))) == (30, 25, 45)


def test_a_group_that_is_a_whole_label_is_divided() -> None:
    texts = [f"{row['text']} {n}" for row in table(5) for n in range(12)]
    labels = [f"l{n // 12}" for n in range(60)]
    assert len(sources(texts, labels)) == 60
    assert len(sources(texts, [f"l{n % 5}" for n in range(60)])) == 5


def test_the_rarest_label_represents_near_duplicates() -> None:
    rows = table(60)
    rows[1] = {**rows[0], "id": "1", "label": "rare"}
    rows[4] = {**rows[3], "id": "4", "label": "rare"}
    assert [row["id"] for row in split(rows)[0] if row["label"] == "rare"]


@pytest.mark.parametrize(
    ("count", "classes", "seed", "stratify", "digest"),
    [
        (30, 3, 0, True, "a8ac11570a7ab5bf"),
        (150, 4, 3, True, "d4a5ab91478aba2c"),
        (1200, 20, 1, True, "2b103ed90f68bc7f"),
        (150, 4, 3, False, "be05dbe884e3257c"),
    ],
)
def test_the_split_of_rows_without_near_duplicates_is_that_of_every_version_before(
    count: int, classes: int, seed: int, stratify: bool, digest: str
) -> None:
    ids = [[row["id"] for row in part] for part in split(table(count, classes), seed, stratify=stratify)]
    assert hashlib.sha256(repr(ids).encode()).hexdigest().startswith(digest)


def test_ten_thousand_rows_end_in_seconds() -> None:
    rng = random.Random(0)
    shares = [1 / (n + 1) for n in range(len(WORDS))]
    rows = [{"text": " ".join(rng.choices(WORDS, shares, k=12)), "label": str(n % 20)} for n in range(10_000)]
    start = time.process_time()
    parts = split(rows)
    assert tuple(map(len, parts)) == (300, 200, 400)
    assert time.process_time() - start < 10
