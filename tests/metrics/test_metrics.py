"""Each metric by its table of answers, labels, values and reasons; and what holds for all answers."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import InputError
from agent.metrics.comparison import labels_in, quantity_of
from agent.metrics.metric_registry import METRICS
from agent.metrics.number_metrics import OrdinalOptions, ToleranceOptions, ordinal, quantity
from agent.metrics.reference_free import distinct_ngrams
from agent.metrics.text_match import SetOptions, set_f1
from agent.types import Field, Score
from tests.cases import each_case
from tests.metrics.scored import OUT, score
from tests.metrics.test_contract import JSON

approx = pytest.approx
CHECK = quantity(ToleranceOptions(), Field("amount"))
LIST = Field("out", "json", schema='{"type": "array"}')
LEVELS = {"order": ["low", "medium", "high"]}
LETTERS = {"pattern": r"^[A-Z]{2}\d+$"}


@each_case(
    ("name", "got", "label", "options", "value", "reason"),
    [
        ("exact_match", " Paris ", "Paris", {}, 1, ""),
        ("exact_match", "paris", "Paris", {}, 0, "expected Paris, got paris"),
        ("exact_match", "paris", "Paris", {"ignore_case": True}, 1, ""),
        ("exact_match", "Cafe\u0301", "Caf\u00e9", {}, 1, ""),
        ("exact_match", "b", ["a", "b"], {}, 1, ""),
        ("exact_match", {"a": 1.0, "b": [True]}, {"b": [True], "a": 1}, {}, 1, ""),
        ("exact_match", True, 1, {}, 0, "expected 1, got true"),
        ("choice", "Card Payment", "card payment", {}, 1, ""),
        ("choice", "card", "card payment", {}, 0, "got card"),
        ("choice", "caf\u00e9 bar", "Cafe\u0301 bar", {}, 1, ""),
        ("numeric", 10, 10.000000005, {}, 1, ""),
        ("numeric", 10, 10.1, {}, 0, "expected 10.1, got 10"),
        ("numeric", 0, 6.6e-34, {}, 0, "got 0"),
        ("numeric", 10, "10.1", {"tolerance": 0.2}, 1, ""),
        ("numeric", "ten", 10, {}, 0, "got ten, which is not a number"),
        ("numeric", "1,000", 1000, {}, 1, ""),
        ("numeric", 499467505185, 499467505186, {}, 0, "got 499467505185"),
        ("numeric", 499467505185, 499467505186, {"tolerance": 1}, 1, ""),
        ("numeric", 10**400, 10, {}, 0, "not a number"),
        ("numeric", 3, "three", {}, None, "the label three is not a number"),
        ("contains", "it is PARIS indeed", "Paris", {"ignore_case": True}, 1, ""),
        ("contains", "it is PARIS", "Paris", {}, 0, "Paris does not occur in it is PARIS"),
        ("contains", "in a caf\u00e9", "cafe\u0301", {}, 1, ""),
        ("contains", "no idea", " ", {}, None, "the label is empty"),
        ("regex", "AB12", None, LETTERS, 1, ""),
        ("regex", "ab12", None, LETTERS, 0, "ab12 does not match ^[A-Z]"),
        ("token_f1", "The cat sat.", "a cat", {}, 2 / 3, "expected a cat"),
        ("token_f1", "the", "a", {}, 0, "got the"),
        ("token_f1", "the", "The.", {}, 1, ""),
        ("token_f1", "cafe\u0301 noir", "caf\u00e9 noir", {}, 1, ""),
        ("token_f1", "dog", ["cat", "dog"], {}, 1, ""),
        ("length", "one two three", None, {"max_words": 3}, 1, ""),
        ("length", "one two three", None, {"max_words": 2}, 0, "3 words, at most 2 are allowed"),
        ("length", "one", None, {"min_words": 2}, 0, "1 words, at least 2 are wanted"),
        ("no_repeat", "all of these differ", None, {}, 1, ""),
        ("no_repeat", "no no no no no", None, {}, 1 / 3, "67 % of its runs of 3 words are repetitions"),
        ("no_repeat", "a b a b a b", None, {"words": 2}, 2 / 5, "60 %"),
        ("json_schema", {"name": "x"}, None, {}, 1, ""),
        ("json_schema", {"name": "x", "age": "old"}, None, {}, 0, "$.age: 'old' is not of type"),
        ("json_fields", {"name": "ADA  l", "age": 3.0}, {"name": "ada L", "age": 3}, {}, 1, ""),
        ("json_fields", {"name": "x", "tags": ["A", "b"]}, {"name": "x", "age": 3, "tags": ["a", "c"]}, {}, 0.5, "age"),
        ("json_fields", {"name": "B", "m": 1}, {"name": "A", "age": 3}, {}, 0.25, "m (expected nothing, got 1); name"),
        ("json_fields", [1], {"name": "x"}, {}, 0, "expected a JSON object, got [1]"),
        ("json_fields", {}, "text", {}, None, "the label text is not a JSON object or list"),
        ("ordinal", 4, 4, {}, 1, ""),
        ("ordinal", "3", "4", {}, 0.75, "expected 4, got 3"),
        ("ordinal", 4.5, 4, {}, 0.875, "got 4.5"),
        ("ordinal", 6, 5, {}, 0, "got 6, which is no number from 1 to 5"),
        ("ordinal", 1, "good", {}, None, "the label good is not a number"),
        ("ordinal", " HIGH ", "high", LEVELS, 1, ""),
        ("ordinal", "medium", "high", LEVELS, 0.5, "expected high"),
        ("ordinal", "extreme", "low", LEVELS, 0, "got extreme, which is none of low, medium, high"),
        ("ordinal", "low", "extreme", LEVELS, None, "the label extreme is not in order"),
        ("set_f1", "late; refund", "Refund;late", {}, 1, ""),
        ("set_f1", "late", "late;refund", {}, 2 / 3, "missing: refund"),
        ("set_f1", "none", "late", {}, 0, "missing: late; extra: none"),
        ("set_f1", "late;late", '["late"]', {}, 1, ""),
        ("set_f1", "[late", "[late", {}, 1, ""),
        ("set_f1", "b|a", "a|b", {"separator": "|"}, 1, ""),
        ("goal", "x", " ", {}, None, "the label is empty"),
    ],
)
def test_the_value_and_the_reason(
    name: str, got: Any, label: Any, options: dict[str, Any], value: float | None, reason: str
) -> None:
    kind = next(kind for kind in ("json", *METRICS.get(name).types) if kind in METRICS.get(name).types)
    kind = "number" if name == "ordinal" and not options else kind
    choices = tuple(options.get("order", ())) if kind == "choice" else ()
    found = score(name, got, label, OUT if kind == "json" else Field("out", kind, choices=choices), **options)
    assert found.value == (None if value is None else approx(value))
    assert reason in found.reason
    assert bool(found.reason) == (value != 1)


@each_case(
    ("got", "label", "value", "reason"),
    [
        (["rent", "deposit", "pets"], ["rent", "notice", "deposit", "x"], 4 / 7, "missing: notice, x; extra: pets"),
        (["a", "a", "b"], ["a", "b"], 4 / 5, "extra: a"),
        (["a", "b", "b", "b"], ["a", "a", "a", "b"], 0.5, "missing: a, a; extra: b, b"),
        ([], ["a", "a"], 0, "missing: a, a"),
        ([], [], 1, ""),
        ([{"who": "Ada ", "n": 1.0}, "LATE  fee"], [{"n": 1, "who": "ada"}, "late fee"], 1, ""),
        ([True], [1], 0, "missing: 1; extra: true"),
        (
            ["Späte  GEBÜHR", {"W": "A"}],
            ["für März", None],
            0,
            'missing: für März, null; extra: Späte GEBÜHR, {"W": "A"}',
        ),
        ("a", ["a"], 0, "expected a JSON list, got a"),
        (None, ["a"], 0, "expected a JSON list, got null"),
    ],
)
def test_lists_are_scored_by_their_items(got: Any, label: Any, value: float, reason: str) -> None:
    assert score("json_fields", got, label, LIST) == Score("json_fields", approx(value), reason)


def test_long_items_of_one_kind_do_not_hide_the_other_kind() -> None:
    got, label = ([f"{at:03}{letter * 400}" for at in range(100)] for letter in "yx")
    missing, extra = score("json_fields", got, label, LIST).reason.split("; ")
    assert missing.startswith("missing: 000x")
    assert extra.startswith("extra: 000y")
    assert max(len(missing), len(extra)) <= 300


ITEMS = st.lists(st.text(max_size=3) | st.integers(-2, 2) | st.booleans() | st.none() | st.lists(st.integers(0, 1)))


@given(ITEMS, ITEMS, st.dictionaries(st.text(), JSON), st.dictionaries(st.text(), JSON), st.randoms())
def test_json_fields_is_symmetric_and_1_on_itself_in_any_order(
    one: Any, two: Any, got: Any, label: Any, rng: Any
) -> None:
    for field, first, second in ((LIST, one, two), (OUT, got, label)):
        found, turned = (score("json_fields", *each, field) for each in ((first, second), (second, first)))
        assert found.value is not None
        assert 0 <= found.value <= 1
        assert found.value == approx(turned.value)
        assert bool(found.reason) == (found.value < 1)
    assert score("json_fields", rng.sample(one, len(one)), one, LIST) == Score("json_fields", 1.0)


@given(st.lists(st.text(st.characters(categories=["L"]), min_size=1), min_size=2, unique_by=str.casefold), st.data())
def test_a_scale_of_words_scores_as_one_of_numbers(words: list[str], data: st.DataObject) -> None:
    at, other = (data.draw(st.integers(0, len(words) - 1)) for _ in range(2))
    numbers = ordinal(OrdinalOptions(low=0, high=len(words) - 1), Field("n", "number"))
    if len({word.casefold() for word in words}) == len(words):
        named = ordinal(OrdinalOptions(order=words), Field("w", "choice", choices=tuple(words)))
        assert named(words[at], words[other])[0] == numbers(at, other)[0]


def test_labels_are_split_and_named_in_the_spelling_of_the_label() -> None:
    assert labels_in("a | b|", "|") == ["a", "b"]
    assert set_f1(SetOptions(separator=","), Field("tags"))("A", "a,C") == (approx(2 / 3), "missing: C")


# -- n-grams -----------------------------------------------------------------------------------------------------------


@each_case(
    ("text", "words", "value"),
    [
        ("a b a b a b", 3, 2 / 4),
        ("The cat the  CAT", 2, 2 / 3),
        ("a b c a b c", 1, 1 / 2),
        ("two words", 3, 1),
        ("", 3, 1),
    ],
)
def test_the_share_of_distinct_ngrams(text: str, words: int, value: float) -> None:
    assert distinct_ngrams(text, words) == approx(value)


tokens = st.lists(st.sampled_from("ab"), max_size=14)


@given(tokens, st.sampled_from("ab"), st.integers(1, 3), st.lists(st.integers(), unique=True, min_size=3))
def test_what_was_said_before_never_raises_the_share(
    said: list[str], word: str, words: int, numbers: list[int]
) -> None:
    """A whole text again, or a word that ends a run seen before."""
    assert distinct_ngrams(" ".join(map(str, numbers)), 3) == 1
    share, longer = distinct_ngrams(" ".join(said), words), [*said, word]
    assert 0 < distinct_ngrams(" ".join(said + said), words) <= share
    runs = [longer[at : at + words] for at in range(len(longer) - words + 1)]
    if runs and runs[-1] in runs[:-1]:
        assert distinct_ngrams(" ".join(longer), words) <= share


@each_case("words", [0, -1, True, 2.0, "2", None, 21])
def test_a_wrong_number_of_words_is_refused(words: Any) -> None:
    with pytest.raises(InputError, match=r"no_repeat has words = .*: should be"):
        score("no_repeat", "one two three", None, words=words)


# -- quantities --------------------------------------------------------------------------------------------------------


@each_case(
    ("text", "found"),
    [
        *(("12 kg", (12, "kg")), ("12kg", (12, "kg")), ("1,250 g", (1250, "g")), ("−8 °C", (-8, "°C"))),
        *(("EUR 12", (12, "EUR")), ("12.50 €", (12.5, "€")), ("-$3", (-3, "$")), ("40 %", (40, "%"))),
        *(("5 m²", (5, "m²")), ("6.5 l/100 km", (6.5, "l/100 km")), ("12 kg.", (12, "kg")), ("12", None)),
        *(("5 business days", (5, "business days")), ("kg", None), ("3,5 h", (3.5, "h")), ("007b", None)),
        *(("Minus 5 °C", (-5, "°C")), ("1.250,50 €", (1250.5, "€")), ("1'250,5 g", (1250.5, "g"))),
        *(("0,125 l", (0.125, "l")), ("12,3456 m", (12.3456, "m")), ("1,25,3 m", None), ("minuscule 5 m", None)),
        *(("10-20 kg", None), ("2026-11-01", None), ("10:30", None), ("$5 each", None), ("", None)),
    ],
)
def test_a_quantity_is_a_number_with_its_unit(text: str, found: tuple[float, str] | None) -> None:
    assert quantity_of(text) == found


@each_case(
    ("label", "reply", "why"),
    [
        *(("12 kg", "12kg", ""), ("12 kg", "It weighs **12.0 KG**.", ""), ("12 kg", "12 kg = 12 kg", "")),
        *(("1250 g", "1,250 g", ""), ("45 min", "45 min.", ""), ("5 m2", "about 5 m2", ""), ("$20", "20 $", "")),
        *(("6.5 l/100 km", "it takes 6.5 l/100 km", ""), ("-8 °C", "−8°C", ""), ("$20", "- $20.00", "")),
        *(("-$3", "-$3", ""), ("EUR 12", "12 EUR", ""), ("5 %", "5 %, I think", ""), ("12 kg", "13 kg", "got 13 kg")),
        ("12 kg", "12", "the unit kg is not next to the number"),
        *(("12 kg", "12 g", "the unit kg"), ("12 kg", "12 kgs", "the unit kg"), ("5 km", "5 km/h", "the unit km")),
        *(("5 m", "5 m²", "the unit m"), ("5 m", "5 m2", "several numbers"), ("5 min", "5 minutes", "the unit min")),
        *(("12 kg", "10-12 kg", "it holds several numbers"), ("12 kg", "12 kg or 26 lb", "several numbers")),
        *(("12 kg", "twelve kg", "no number in digits"), ("12 kg", "", "no number")),
        *(("3.5 h", "3,5 h", ""), ("3,5 h", "It took 3.5 h, no more", ""), ("-5 °C", "minus 5 °C", "")),
        *(("1250.5 €", "1.250,50 €", ""), ("5 °C", "minus 5 °C", "got minus 5"), ("3,5 h", "35 h", "got 35 h")),
        *(("-8 °C", "8 °C", "got 8 °C"), ("$3", "-$3", "got -$3")),
    ],
)
def test_a_reply_is_right_with_one_number_next_to_its_unit(label: str, reply: str, why: str) -> None:
    value, reason = CHECK(reply, label)
    assert value == float(not why)
    assert why in reason


def test_the_tolerance_is_of_the_number_and_a_label_without_a_unit_is_unscored() -> None:
    check = quantity(ToleranceOptions(tolerance=0.5), Field("amount"))
    assert [check(reply, "12 kg")[0] for reply in ("12.5 kg", "11.4 kg", "12 g")] == [1.0, 0.0, 0.0]
    assert CHECK("12 kg", "12") == (None, "the label 12 is no number with a unit")


@given(st.floats(-1e6, 1e6).map(lambda number: round(number, 3)), st.sampled_from(["kg", "°C", "m²", "fl oz", "%"]))
def test_a_quantity_is_read_back_as_it_was_written(number: float, unit: str) -> None:
    text = f"{number:,} {unit}"
    assert quantity_of(text) == (number, unit)
    assert CHECK(f"I would say {text}", text)[0] == 1.0
    assert CHECK(f"{number + 1:,} {unit}", text)[0] == 0.0
