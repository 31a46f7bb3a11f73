"""The last verdict of a reply counts, whole and on the scale; what cannot be read is None; no reply raises."""

import json
import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.scoring.judge_reply import (
    PAIR,
    REASON_CHARACTERS,
    choice_form,
    expected,
    ratings_form,
    read_choice,
    read_ratings,
    rubric_value,
)
from agent.task.examples import json_checker
from agent.types import Criterion, Rubric
from tests.cases import each_case

Said = list[tuple[str, float]]


def rubric_of(*names: str, low: int = 1, high: int = 5, weights: Sequence[float] = ()) -> Rubric:
    criteria = [Criterion(name, weight, "") for name, weight in zip(names, weights or [1.0] * len(names), strict=True)]
    return Rubric("Be fair.", tuple(criteria), low, high)


ONE = rubric_of("hook")
TWO = rubric_of("hook", "tone", weights=(2.0, 1.0))
TEN = rubric_of("hook", low=1, high=10)
approx = pytest.approx


def ratings(reply: str, rubric: Rubric = ONE) -> dict[str, float] | None:
    found = read_ratings(reply, rubric)
    return None if found.value is None else dict(found.ratings)


# -- which verdict counts ----------------------------------------------------------------------------------------------


@each_case(
    "reply",
    [
        '```json\n{"reason": "r", "hook": 4, "tone": 2}\n```\nThat is all.',
        '{"hook": 1, "tone": 1}\nNo, wait.\n{"tone": 2, "hook": 4}',
        '{"hook": 9, "tone": 1} {"hook": 4, "tone": 2}',
        '{{{ no }\n{"hook": 4, "tone": 2}',
        'A { is here.\n{"hook": 4, "tone": 2} {"more": 1} {}',
        '{"hook": 1, "hook": 4, "tone": 2}',
        "x " * 100_000 + '{"hook": 4, "tone": 2}',
        '{"hook": 5, "tone": 5} ' + "{} " * 300 + '{"hook": 4, "tone": 2}',
        "hook: 1\ntone: 1\nNo, wait.\nhook: 4\ntone: 2",
        "tone: 2\nhook: 1\nhook: 4",
    ],
)
def test_the_last_whole_verdict_counts(reply: str) -> None:
    found = ratings(reply, TWO)
    assert found == {"hook": 4.0, "tone": 2.0}
    assert list(found) == ["hook", "tone"]


GOOD = '{"reason": "r", "hook": 4, "tone": 2}\nNo, wait.\n'


@each_case(
    "last",
    [
        *('{"hook": 4}', '{"tone": 2}', '{"hook": 4, "tone": 6}', '{"hook": 0, "tone": 2}', '{"hook": -4, "tone": 2}'),
        *('{"hook": 4, "tone": true}', '{"hook": 4, "tone": null}', '{"hook": 4, "tone": "two"}'),
        *('{"hook": 4, "tone": 2.5}', '{"hook": 4, "tone": [2]}', '{"hook": 4, "tone": {"tone": 2}}'),
        *('{"hook": 4, "tone": NaN}', '{"hook": 4, "tone": Infinity}', '{"hook": 4, "tone": ""}'),
        *('{"hook": 1, "to', '{"hook": 1, "tone": 1,}', '{"reason": "he said "no"", "hook": 1, "tone": 1}'),
    ],
)
def test_a_last_verdict_that_is_wrong_or_broken_does_not_count_even_after_a_good_one(last: str) -> None:
    assert ratings(GOOD, TWO) is not None
    assert ratings(GOOD + last, TWO) is None
    assert ratings(last, TWO) is None


@each_case(
    "reply",
    [
        'The answer contains {"hook": 5}, which tries to steer me. On the merits it',
        'It ends with {"reason": "perfect", "hook": 5} and nothing else; I cannot rate it.',
        '{"reason": "the answer says {"hook": 5}',
        '{{{ no } {"hook": 5}',
        'A { is here. {"hook": 5} {"more": 1} {}',
        '{"reason": "bad", "hook": 1}\n\nNote that the answer itself says:\nhook: 5\nwhich I ignored.',
        *("", " \n", "4", "A fine teaser.", "{}", "[]", '"hook"', "[4]", "null", "\0", "\ud800"),
    ],
)
def test_a_quoted_or_missing_verdict_does_not_count(reply: str) -> None:
    assert ratings(reply) is None
    assert read_choice(reply, PAIR).value is None


@each_case(
    "reply",
    [
        *(f'{{"hook": 4}}\nhook: {again}' for again in ("4", "4/5", "4, because it is fine", "4 (good)", "**4**")),
        *('{"hook": 4.0}\nhook: 4', '[{"hook": 4}]', '<answer>{"hook": 4}</answer>', 'My verdict: {"hook": 4}'),
        'Here are my ratings: {"hook": 4}\n\nThe answer is good.',
        'Score: {\n"hook": 4\n}\nThat is all.',
        *('So: **{"hook": 4}**.', 'It says {"hook": 5}, though.\n{"hook": 4}'),
        *(f'{{"hook": {value}}}' for value in ("4", "4.0", "4e0", '"4"', '" 4 "', '"4/5"', '"4 / 5"', '"**4**"')),
        *(f'{{"hook": {value}}}' for value in ('"4."', '"4 - fine"', '"4- fine"')),
        *(f"It pulls.\n{line}\nThat is all." for line in ("Hook: 4", "HOOK : 4", "**hook:** 4", "**hook**: 4/5")),
        *(f"It pulls.\n{line}\nThat is all." for line in ("- hook: 4", '"hook": 4,', "* *hook*: 4", "hook = 4")),
        *(f"It pulls.\n{line}\nThat is all." for line in ("## hook: 4", "> hook: 4", "hook: 4.0", "hook: 4\r")),
    ],
)
def test_a_rating_is_read_in_every_spelling(reply: str) -> None:
    assert ratings(reply) == {"hook": 4.0}


@each_case(
    "reply",
    [
        *(f'{{"hook": {value}}}' for value in ("true", "6", "0", "-1", "4.5", "3.9999", "40", "1e300", "NaN", "[]")),
        *(f'{{"hook": {value}}}' for value in ('"6"', '"4/10"', '"4/4"', '"-4"', '"4.5"', '"four"', '""', '"4 of 5"')),
        *(f'{{"hook": {value}}}' for value in ('"1-5"', '"٤"', '"⁴"', '"4\\n5"', "9" * 400, "-" + "9" * 400)),
        *(f"It pulls.\n{line}" for line in ("the hook: 4", "hooked: 4", "hook 4", "hook: four", "hook: 6", "hook:")),
        *("It pulls.\nhook: 4 or 5", "It pulls.\noffhook: 4"),
    ],
)
def test_what_is_no_whole_rating_on_the_scale_is_not_guessed(reply: str) -> None:
    assert ratings(reply) is None


@each_case(("rubric", "on_it", "off_it"), [(TEN, 10, 11), (rubric_of("hook", low=0, high=3), 0, 4)])
def test_the_scale_is_that_of_the_rubric(rubric: Rubric, on_it: int, off_it: int) -> None:
    assert ratings(f'{{"hook": {on_it}}}', rubric) == {"hook": on_it}
    assert ratings(f"hook: {on_it}/{rubric.high}", rubric) == {"hook": on_it}
    assert ratings(f'{{"hook": {off_it}}}', rubric) is None


def test_lines_after_an_object_and_names_with_a_common_start() -> None:
    assert ratings("plain_words: 2\nplain: 4", rubric_of("plain", "plain_words")) == {"plain": 4.0, "plain_words": 2.0}
    assert ratings(GOOD + "hook: 1\ntone: 1", TWO) is None, "a contradiction"
    assert ratings("hook: 5\nNo, wait.\nhook: 2, as " + "the opening says nothing of it " * 2) == {"hook": 2.0}


@given(
    st.lists(st.integers(1, 5), min_size=3, max_size=3),
    st.text(max_size=80),
    st.text(st.characters(exclude_characters='{}"'), max_size=80),
    st.text(max_size=REASON_CHARACTERS),
)
def test_every_verdict_survives_what_is_said_before_and_after_it(
    said: list[int], before: str, after: str, reason: str
) -> None:
    rubric = rubric_of("hook", "tone", "craft")
    verdict = {"reason": reason, **dict(zip(("hook", "tone", "craft"), said, strict=True))}
    found = read_ratings(f"{before}\n{json.dumps(verdict)}\n{after}", rubric)
    wanted = dict(zip(("hook", "tone", "craft"), map(float, said), strict=True))
    assert found.ratings == wanted
    assert found.reason.endswith(f": {' '.join(reason.split())}")


def test_the_reason_is_kept_on_one_line_and_cut() -> None:
    for reply in (
        '{"reason": " It\\n pulls. ", "hook": 4}',
        'It pulls.\n{"hook": 4}',
        'It pulls. {"reason": [], "hook": 4}',
    ):
        assert read_ratings(reply, ONE).reason == "hook 4/5: It pulls."
    long = read_ratings(json.dumps({"reason": "word " * 1000, "hook": 4}), ONE).reason.removeprefix("hook 4/5: ")
    assert (len(long), long[:9], long[-1]) == (REASON_CHARACTERS, "word word", "…")
    reason = "x" * REASON_CHARACTERS
    assert read_choice(json.dumps({"reason": reason, "verdict": "A"}), PAIR).reason == f"A: {reason}"


@each_case(
    ("reply", "choice"),
    [
        *(('{"reason": "r", "verdict": "A"}', "A"), ('{"verdict": "TIE"}', "tie"), ('{"verdict": " b. "}', "B")),
        *(('{"verdict": "**A**"}', "A"), ('{"verdict": "A"} no, {"verdict": "B"}', "B"), ("verdict: A", "A")),
        *(('{"verdict": "perhaps"} or {"verdict": "tie"}', "tie"), ("**Verdict:** *tie*.", "tie")),
        *((f'{{"verdict": "A"}}\nNo, wait.\n{{"verdict": {last}}}', None) for last in ('"C"', '"A or B"', '""', "1")),
        *((f'{{"verdict": "A"}}\nNo, wait.\n{{"verdict": {last}}}', None) for last in ("null", '["A"]', '"answer A"')),
        ('{"verdict": "A"} no, {"verdict": "B"', None),
        *(('{"verdict": "A"}\nverdict: a', "A"), ('{"verdict": "A"}\nverdict: B', None)),
    ],
)
def test_the_last_choice_counts_and_is_one_of_the_list(reply: str, choice: str | None) -> None:
    assert read_choice(reply, PAIR).value == PAIR.get(choice or "")


def test_a_pair_without_a_readable_verdict_is_unscored() -> None:
    found = read_choice("I like both", PAIR)
    assert (found.value, found.reason) == (None, "the judge's answer has no readable verdict: I like both")


# -- any reply ---------------------------------------------------------------------------------------------------------

names = st.sampled_from(["hook", "tone", "verdict", "reason", "x"])
values = st.sampled_from(["4", "4.0", '"4/5"', "6", "true", "null", "NaN", "1e999", '"A"', "[", "{", '"', "[4]", ""])
pairs = st.tuples(names, values).map(lambda pair: f'"{pair[0]}": {pair[1]}')
objects = st.lists(pairs, max_size=4).map(lambda items: "{" + ", ".join(items) + "}")
lines = st.tuples(names, values).map(lambda pair: f"\n{pair[0]}: {pair[1]}\n")
noise = st.text(st.characters(codec=None, exclude_categories=()), max_size=20) | st.text(
    '{}[]":,\\*_-# \n', max_size=20
)
replies = st.lists(objects | lines | pairs | noise, max_size=8).map("".join)
logprobs = st.floats(max_value=5.0) | st.sampled_from([math.nan, -math.inf, 0.0, -0.1])
spreads = st.lists(st.tuples(st.sampled_from(["1", "3", "4", " 4", "5", "6", "a", "", '"']), logprobs), max_size=5)


@given(replies, st.lists(spreads, max_size=6), st.sampled_from([ONE, TWO, TEN, rubric_of("hook", low=0, high=1)]))
def test_no_reply_raises_and_a_verdict_is_on_the_scale(reply: str, tokens: list[Said], rubric: Rubric) -> None:
    assert read_choice(reply, PAIR).value in (*PAIR.values(), None)
    found = read_ratings(reply, rubric, tokens)
    if found.value is not None:
        assert list(found.ratings) == [criterion.name for criterion in rubric.criteria]
        assert all(rubric.low - 1e-9 <= rating <= rubric.high + 1e-9 for rating in found.ratings.values())
        assert "\n" not in found.reason
        assert 0.0 <= found.value <= 1.0


@each_case(
    "unit",
    [
        *("{", "{}", "[{", '{"a":', '{"hook": 1', '{"hook": {"hook": 1', '{"hook": [', '{"hook": 1}', "hook: 4\n"),
        *("hook: ", "\nhook" + "*" * 8, "\n", " ", '"', '{"\\', "9", "verdict: A\n", "\n> *_#-\"'hook*_\"' ", "\ud800"),
    ],
)
def test_two_hundred_thousand_characters_of_anything_are_read_without_raising(unit: str) -> None:
    reply = (unit * 200_000)[:200_000]
    for text in (reply + '{"hook": 4}', '{"hook": 4}' + reply, "{" * 500 + reply):
        read_ratings(text, TWO)
        read_choice(text, PAIR)


@each_case("depth", [10, 500, 50_000])
def test_nested_objects_are_read_without_raising(depth: int) -> None:
    nested = '{"hook": ' * depth + "4" + "}" * depth
    assert ratings(nested + '{"hook": 3}') in ({"hook": 3.0}, None)
    assert read_choice('{"verdict": ' * depth + "4" + "}" * depth, PAIR).value is None


# -- ratings from token probabilities ----------------------------------------------------------------------------------


def spread(**shares: float) -> Said:
    """`n4=0.6` is the token "4" with a probability of 0.6."""
    return [(name[1:], math.log(share)) for name, share in shares.items()]


def word(text: str) -> Said:
    return [(text, -0.01)]


@each_case(
    ("said", "tokens", "rubric", "rating"),
    [
        (4, [word('{"'), word("hook"), spread(n4=0.6, n3=0.4), word("}")], ONE, 3.6),
        (4, [spread(n4=0.5, n3=0.3)], ONE, 2.9 / 0.8),
        (4, [[("4", 0.0)]], ONE, 4.0),
        (4, [[(" 4", math.log(0.5)), ("3\n", math.log(0.25)), ("9", math.log(0.2))]], ONE, 2.75 / 0.75),
        (4, [[("4", math.log(0.5)), ("3", math.log(0.35)), (" 4", math.log(0.1))]], ONE, (4 * 0.6 + 3 * 0.35) / 0.95),
        (4, [spread(n4=0.3, n3=0.19)], ONE, 4.0),  # less than half of the probability is on ratings
        (10, [spread(n1=1.0), spread(n0=1.0)], TEN, 10.0),
    ],
)
def test_a_rating_is_its_expectation_over_the_scale(
    said: int, tokens: list[Said], rubric: Rubric, rating: float
) -> None:
    assert expected({"hook": float(said)}, tokens, rubric) == {"hook": approx(rating)}


def test_each_criterion_has_its_own_place_and_the_last_places_count() -> None:
    tokens = [spread(n1=1.0), word("no"), spread(n4=0.75, n5=0.25), word("tone"), spread(n2=0.9, n1=0.1)]
    found = read_ratings('{"hook": 1} {"hook": 4, "tone": 2}', TWO, tokens)
    assert found.ratings == {"hook": approx(4.25), "tone": approx(1.9)}
    turned = read_ratings('{"tone": 4, "hook": 4}', TWO, [spread(n4=0.6, n3=0.4), spread(n4=1.0)])
    assert turned.ratings == {"hook": 4.0, "tone": approx(3.6)}


@each_case(
    "tokens",
    [
        *([], [[]], [spread(n4=0.6, n3=0.4)], [spread(n4=0.6, n3=0.4), spread(n5=0.6, n2=0.4)]),
        *([spread(n3=0.6, n4=0.4), spread(n2=0.6, n1=0.4)], [spread(n4=0.6, n3=0.4), spread(n2=0.2, n1=0.1)]),
        *([word("four"), word("two")], [[("7", 0.0)], [("9", 0.0)]], [[("4", -math.inf)], [("2", -math.inf)]]),
    ],
)
def test_tokens_that_are_too_few_or_disagree_with_the_text_leave_its_ratings(tokens: list[Said]) -> None:
    found = read_ratings('{"hook": 4, "tone": 2}', TWO, tokens)
    assert found.ratings == {"hook": 4.0, "tone": 2.0}


# -- the value and the schemas -----------------------------------------------------------------------------------------


@each_case(
    ("rubric", "said", "value"),
    [
        *((TWO, {"hook": 1, "tone": 1}, 0.0), (TWO, {"hook": 5, "tone": 5}, 1.0), (TWO, {"hook": 5, "tone": 1}, 2 / 3)),
        *((TWO, {"hook": 1, "tone": 5}, 1 / 3), (TWO, {"hook": 4, "tone": 2}, 7 / 12), (TEN, {"hook": 5.5}, 0.5)),
        (rubric_of("hook", "tone", weights=(0.2, 0.1)), {"hook": 4, "tone": 2}, 7 / 12),
        (rubric_of("hook", low=0, high=3), {"hook": 0}, 0.0),
    ],
)
def test_the_value_is_the_weighted_mean_from_0_to_1(rubric: Rubric, said: dict[str, float], value: float) -> None:
    assert rubric_value(said, rubric) == approx(value)


@given(
    st.lists(st.floats(1.0, 5.0), min_size=3, max_size=3),
    st.lists(st.floats(0.01, 100.0), min_size=3, max_size=3),
    st.integers(0, 2),
    st.floats(1.0, 5.0),
)
def test_the_value_is_in_range_and_rises_with_each_rating(
    said: list[float], weights: list[float], which: int, other: float
) -> None:
    rubric = rubric_of("a", "b", "c", weights=weights)
    lower, higher = list(said), list(said)
    lower[which], higher[which] = sorted((said[which], other))
    low, high = (rubric_value(dict(zip("abc", one, strict=True)), rubric) for one in (lower, higher))
    assert 0.0 <= low <= high <= 1.0


def test_a_schema_asks_for_the_reason_first_and_for_ratings_on_the_scale_only() -> None:
    schema = json.loads(ratings_form(TWO).schema)
    assert list(schema["properties"]) == schema["required"] == ["reason", "hook", "tone"]
    check, choice = json_checker(ratings_form(TWO).schema), json_checker(choice_form(PAIR).schema)
    right = {"reason": "r", "hook": 1, "tone": 5}
    assert check(right) == ""
    for wrong in ({"hook": 0}, {"tone": 6}, {"more": 1}, {"reason": "r" * (REASON_CHARACTERS + 1)}, {"tone": "5"}):
        assert check({**right, **wrong})
    assert all(check({name: right[name] for name in right if name != lacking}) for lacking in right)
    assert choice({"reason": "r", "verdict": "tie"}) == ""
    assert choice({"reason": "r", "verdict": "C"})


@given(st.lists(st.floats(0.01, 1.0), min_size=5, max_size=5), st.integers(1, 5))
def test_an_expected_rating_stays_on_the_scale(shares: list[float], said: int) -> None:
    total = sum(shares)
    place = [(str(rating), math.log(share / total)) for rating, share in enumerate(shares, 1)]
    found = expected({"hook": float(said)}, [place], ONE)["hook"]
    assert 1.0 <= found <= 5.0
    likeliest = max(range(5), key=lambda index: place[index][1]) + 1
    assert likeliest == said or found == said
