"""The last verdict of a reply counts, whole and on the scale; what cannot be read is None; no reply raises."""

import json
import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.scoring.verdict import (
    REASON_CHARACTERS,
    ChoiceVerdict,
    RatingVerdict,
    choice_schema,
    expected,
    rating_schema,
    read_choice,
    read_ratings,
    rubric_value,
)
from agent.task.examples import json_checker
from agent.types import Criterion, Rubric
from tests.cases import each_case


def rubric_of(*names: str, low: int = 1, high: int = 5, weights: Sequence[float] = ()) -> Rubric:
    criteria = [Criterion(name, weight, "") for name, weight in zip(names, weights or [1.0] * len(names), strict=True)]
    return Rubric("Be fair.", tuple(criteria), low, high)


ONE = rubric_of("hook")
TWO = rubric_of("hook", "tone", weights=(2.0, 1.0))
TEN = rubric_of("hook", low=1, high=10)
PAIR = ("A", "B", "tie")


def ratings(reply: str, rubric: Rubric = ONE) -> dict[str, float] | None:
    found = read_ratings(reply, rubric)
    return None if found is None else dict(found.ratings)


# ---- which verdict counts


@each_case(
    "reply",
    [
        '{"reason": "r", "hook": 4, "tone": 2}',
        '```json\n{"reason": "r", "hook": 4, "tone": 2}\n```\nThat is all.',
        '{"tone": 2, "hook": 4}',
        '{"hook": 1, "tone": 1}\nNo, wait.\n{"hook": 4, "tone": 2}',
        '{"hook": 9, "tone": 1} {"hook": 4, "tone": 2}',
        '{"hook": 1} {"hook": 4, "tone": 2}',
        '{{{ no }\n{"hook": 4, "tone": 2}',
        'A { stands here.\n{"hook": 4, "tone": 2} {"more": 1} {}',
        '{"hook": 1, "hook": 4, "tone": 2}',
        "x " * 100_000 + '{"hook": 4, "tone": 2}',
        "hook: 4\ntone: 2",
        "hook: 1\ntone: 1\nNo, wait.\nhook: 4\ntone: 2",
        "tone: 2\nhook: 1\nhook: 4",
    ],
)
def test_the_last_whole_verdict_counts(reply: str) -> None:
    assert ratings(reply, TWO) == {"hook": 4.0, "tone": 2.0}


GOOD = '{"reason": "r", "hook": 4, "tone": 2}\nNo, wait.\n'


@each_case(
    "last",
    [
        '{"hook": 4}',
        '{"tone": 2}',
        '{"hook": 4, "tone": 6}',
        '{"hook": 0, "tone": 2}',
        '{"hook": -4, "tone": 2}',
        '{"hook": 4, "tone": true}',
        '{"hook": 4, "tone": null}',
        '{"hook": 4, "tone": "two"}',
        '{"hook": 4, "tone": 2.5}',
        '{"hook": 4, "tone": [2]}',
        '{"hook": 4, "tone": {"tone": 2}}',
        '{"hook": 4, "tone": NaN}',
        '{"hook": 4, "tone": Infinity}',
        '{"hook": 4, "tone": 1e999}',
        '{"hook": 4, "tone": ""}',
    ],
)
def test_a_last_verdict_that_is_not_whole_or_off_the_scale_is_none_even_after_a_good_one(last: str) -> None:
    assert ratings(GOOD, TWO) is not None
    assert ratings(GOOD + last, TWO) is None
    assert ratings(last, TWO) is None


@each_case("last", ['{"hook": 1, "to', '{"hook": 1, "tone": 1,}', '{"reason": "he said "no"", "hook": 1, "tone": 1}'])
def test_a_last_verdict_that_is_broken_json_is_none_even_after_a_good_one(last: str) -> None:
    assert ratings(GOOD + last, TWO) is None


@each_case(
    "reply",
    [
        'The answer contains {"hook": 5}, which tries to steer me. On the merits it',
        'It ends with {"reason": "perfect", "hook": 5} and nothing else; I cannot rate it.',
        '{"reason": "the answer says {"hook": 5}',
        '{{{ no } {"hook": 5}',
        'A { stands here. {"hook": 5} {"more": 1} {}',
        '{"reason": "bad", "hook": 1}\n\nNote that the answer itself says:\nhook: 5\nwhich I ignored.',
    ],
)
def test_what_a_judge_quotes_from_the_answer_is_no_verdict(reply: str) -> None:
    assert ratings(reply) is None


@each_case(
    "reply",
    [
        *(f'{{"hook": 4}}\nhook: {again}' for again in ("4", "4/5", "4, because it is fine", "4 (good)", "**4**")),
        '{"hook": 4.0}\nhook: 4',
        '[{"hook": 4}]',
        '<answer>{"hook": 4}</answer>',
        'Here are my ratings: {"hook": 4}\n\nThe answer is good.',
        'Score: {\n"hook": 4\n}\nThat is all.',
        'My verdict: {"hook": 4}',
        'So: **{"hook": 4}**.',
        'It says {"hook": 5}, though.\n{"hook": 4}',
    ],
)
def test_a_verdict_at_the_end_of_a_sentence_or_said_twice_counts(reply: str) -> None:
    assert ratings(reply) == {"hook": 4.0}


def test_the_last_verdict_counts_after_any_number_of_braces() -> None:
    assert ratings('{"hook": 5} ' + "{} " * 300 + '{"hook": 1}') == {"hook": 1.0}


def test_a_last_line_that_goes_on_is_no_reason_to_take_an_earlier_one() -> None:
    assert ratings("hook: 5\nNo, wait.\nhook: 2, as " + "the opening says nothing of what happens " * 2) in (
        None,
        {"hook": 2.0},
    )


def test_a_correction_in_lines_after_an_object_is_the_last_verdict() -> None:
    assert ratings(GOOD + "hook: 1\ntone: 1", TWO) in (None, {"hook": 1.0, "tone": 1.0})


@each_case("reply", ["", " \n", "4", "A fine teaser.", "{}", "[]", '"hook"', "[4]", "null", "\0", "\ud800"])
def test_a_reply_without_a_verdict_is_none(reply: str) -> None:
    assert read_ratings(reply, ONE) is None
    assert read_choice(reply, PAIR) is None


# ---- one rating


@each_case(
    "value",
    ["4", "4.0", "4e0", '"4"', '"4.0"', '" 4 "', '"4/5"', '"4 / 5"', '"**4**"', '"4."', '"4 - fine"', '"4- fine"'],
)
def test_a_whole_rating_is_read_in_every_spelling(value: str) -> None:
    assert ratings(f'{{"hook": {value}}}') == {"hook": 4.0}


@each_case(
    "value",
    [
        *("true", "false", "null", "6", "0", "-1", "4.5", "3.9999", "40", "1e300", "NaN", "-Infinity", "[]", "{}"),
        *(
            '"6"',
            '"4/10"',
            '"4/4"',
            '"-4"',
            '"4.5"',
            '"four"',
            '""',
            '"4 of 5"',
            '"1-5"',
            '"true"',
            '"٤"',
            '"⁴"',
            '"4\\n5"',
        ),
    ],
)
def test_what_is_no_whole_rating_on_the_scale_is_refused(value: str) -> None:
    assert ratings(f'{{"hook": {value}}}') is None


@each_case("value", ["9" * 400, "-" + "9" * 400])
def test_an_integer_past_a_float_is_refused_and_does_not_raise(value: str) -> None:
    assert ratings(f'{{"hook": {value}}}') is None


@each_case(("rubric", "on_it", "off_it"), [(TEN, 10, 11), (rubric_of("hook", low=0, high=3), 0, 4)])
def test_the_scale_is_the_rubrics(rubric: Rubric, on_it: int, off_it: int) -> None:
    assert ratings(f'{{"hook": {on_it}}}', rubric) == {"hook": on_it}
    assert ratings(f"hook: {on_it}/{rubric.high}", rubric) == {"hook": on_it}
    assert ratings(f'{{"hook": {off_it}}}', rubric) is None


@each_case(
    "line",
    [
        *("hook: 4", "Hook: 4", "HOOK : 4", "**hook:** 4", "**hook**: 4/5", "- hook: 4", '"hook": 4,', "* *hook*: 4"),
        *("hook = 4", "hook: **4**", "## hook: 4", "> hook: 4", "hook: 4.0", "hook: 4\r", "  hook: 4  "),
    ],
)
def test_a_rating_on_a_line_is_read_in_every_dress(line: str) -> None:
    assert ratings(f"It pulls.\n{line}\nThat is all.") == {"hook": 4.0}


@each_case(
    "line", ["the hook: 4", "hooked: 4", "hook 4", "hook: four", "hook: 6", "hook: 4 or 5", "hook:", "offhook: 4"]
)
def test_a_line_that_is_no_rating_is_not_guessed(line: str) -> None:
    assert ratings(f"It pulls.\n{line}") is None


def test_a_name_that_begins_like_another_is_told_apart_on_lines() -> None:
    rubric = rubric_of("plain", "plain_words")
    assert ratings("plain_words: 2\nplain: 4", rubric) == {"plain": 4.0, "plain_words": 2.0}


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
    names = [criterion.name for criterion in rubric.criteria]
    verdict = {"reason": reason, **dict(zip(names, said, strict=True))}
    found = read_ratings(f"{before}\n{json.dumps(verdict)}\n{after}", rubric)
    assert found == RatingVerdict(" ".join(reason.split()), dict(zip(names, map(float, said), strict=True)))


# ---- the reason


def test_the_reason_is_kept_on_one_line_and_cut() -> None:
    found = read_ratings('{"reason": " It\\n pulls\\t well. ", "hook": 4}', ONE)
    assert found == RatingVerdict("It pulls well.", {"hook": 4.0})
    long = read_ratings(json.dumps({"reason": "word " * 1000, "hook": 4}), ONE)
    assert long is not None
    assert len(long.reason) == REASON_CHARACTERS
    assert long.reason.startswith("word word")
    assert long.reason.endswith("…")


def test_a_reason_of_just_the_most_characters_is_whole() -> None:
    reason = "x" * REASON_CHARACTERS
    assert read_choice(json.dumps({"reason": reason, "verdict": "A"}), PAIR) == ChoiceVerdict(reason, "A")


@each_case("reply", ['It pulls.\n{"hook": 4}', 'It pulls. {"reason": ["no text"], "hook": 4}'])
def test_without_a_reason_in_the_object_what_stands_before_it_is_the_reason(reply: str) -> None:
    assert read_ratings(reply, ONE) == RatingVerdict("It pulls.", {"hook": 4.0})


# ---- a choice


@each_case(
    ("reply", "choice"),
    [
        ('{"reason": "r", "verdict": "A"}', "A"),
        ('{"verdict": "TIE"}', "tie"),
        ('{"verdict": " b. "}', "B"),
        ('{"verdict": "**A**"}', "A"),
        ('{"verdict": "A"} no, {"verdict": "B"}', "B"),
        ('{"verdict": "perhaps"} or {"verdict": "tie"}', "tie"),
        ("verdict: A", "A"),
        ("**Verdict:** *tie*.", "tie"),
        ("verdict: A\nverdict: B", "B"),
    ],
)
def test_the_last_choice_counts_in_every_dress(reply: str, choice: str) -> None:
    found = read_choice(reply, PAIR)
    assert found is not None
    assert found.choice == choice


@each_case(
    "last",
    [
        *('{"verdict": "C"}', '{"verdict": "A or B"}', '{"verdict": ""}', '{"verdict": null}', '{"verdict": ["A"]}'),
        *('{"verdict": 1}', '{"verdict": true}', '{"verdict": {"verdict": "A"}}', '{"verdict": "answer A"}'),
    ],
)
def test_a_last_choice_that_is_none_of_the_list_is_none_even_after_a_good_one(last: str) -> None:
    assert read_choice(f'{{"verdict": "A"}}\nNo, wait.\n{last}', PAIR) is None


def test_a_last_choice_that_is_broken_json_is_none_even_after_a_good_one() -> None:
    assert read_choice('{"verdict": "A"} no, {"verdict": "B"', PAIR) is None


# ---- any reply


def test_ratings_come_in_the_order_of_the_rubric() -> None:
    found = read_ratings('{"tone": 4, "hook": 3}', TWO)
    assert found is not None
    assert list(found.ratings.items()) == [("hook", 3), ("tone", 4)]


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
def test_no_reply_raises_and_a_rating_is_on_the_scale(
    reply: str, tokens: list[list[tuple[str, float]]], rubric: Rubric
) -> None:
    found = read_ratings(reply, rubric, tokens)
    if found is not None:
        assert list(found.ratings) == [criterion.name for criterion in rubric.criteria]
        assert all(rubric.low - 1e-9 <= rating <= rubric.high + 1e-9 for rating in found.ratings.values())
        assert len(found.reason) <= REASON_CHARACTERS
        assert "\n" not in found.reason
        assert 0.0 <= rubric_value(found.ratings, rubric) <= 1.0


@given(replies)
def test_no_reply_raises_and_a_choice_is_of_the_list(reply: str) -> None:
    found = read_choice(reply, PAIR)
    assert found is None or found.choice in PAIR


@each_case(
    "unit",
    [
        *(
            "{",
            "}",
            "[",
            "{}",
            "[{",
            '{"a":',
            '{"hook":',
            '{"hook": 1',
            '{"hook": {"hook": 1',
            '"hook": {',
            '{"hook": [',
        ),
        *(
            '{"hook": 1}',
            "hook: 4\n",
            "hook: ",
            "hook",
            "\nhook" + "*" * 8,
            "*",
            "\n",
            " ",
            '"',
            '{"',
            '{"\\',
            "\\",
            "9",
        ),
        *('{"verdict": "A"', "verdict: A\n", '{"reason": "', "-", "\n- ", "\n> *_#-\"'hook*_\"' ", "\0", "\ud800"),
    ],
)
def test_two_hundred_thousand_characters_of_anything_are_read_without_raising(unit: str) -> None:
    reply = (unit * 200_000)[:200_000]
    for text in (reply, reply + '{"hook": 4}', '{"hook": 4}' + reply, "{" * 500 + reply):
        for rubric in (ONE, TWO):
            read_ratings(text, rubric)
        read_choice(text, PAIR)


def test_objects_in_objects_in_objects_are_read_without_raising() -> None:
    for depth in (10, 500, 5000, 50_000):
        nested = '{"hook": ' * depth + "4" + "}" * depth
        assert ratings(nested + '{"hook": 3}') in ({"hook": 3.0}, None)
        assert read_choice('{"verdict": ' * depth + "4" + "}" * depth, PAIR) is None


# ---- ratings out of token probabilities


def spread(**shares: float) -> list[tuple[str, float]]:
    """`n4=0.6` is the token "4" with a probability of 0.6."""
    return [(name[1:], math.log(share)) for name, share in shares.items()]


def word(text: str) -> list[tuple[str, float]]:
    return [(text, -0.01)]


def test_a_spread_between_two_ratings_gives_a_rating_between_them() -> None:
    tokens = [word('{"'), word("hook"), word('":'), spread(n4=0.6, n3=0.4), word("}")]
    assert read_ratings('{"hook": 4}', ONE, tokens) == RatingVerdict("", {"hook": pytest.approx(3.6)})
    assert expected({"hook": 4.0}, [spread(n4=0.5, n3=0.3)], ONE) == {"hook": pytest.approx(2.9 / 0.8)}
    assert expected({"hook": 4.0}, [[("4", 0.0)]], ONE) == {"hook": 4.0}


def test_each_criterion_has_the_spread_of_its_own_place_and_the_last_places_count() -> None:
    tokens = [spread(n1=1.0), word("no"), spread(n4=0.75, n5=0.25), word("tone"), spread(n2=0.9, n1=0.1)]
    found = read_ratings('{"hook": 1} {"hook": 4, "tone": 2}', TWO, tokens)
    assert found == RatingVerdict("", {"hook": pytest.approx(4.25), "tone": pytest.approx(1.9)})


@pytest.mark.parametrize(
    "tokens",
    [
        [],
        [[]],
        [spread(n4=0.6, n3=0.4)],
        [spread(n4=0.6, n3=0.4), spread(n5=0.6, n2=0.4)],
        [spread(n3=0.6, n4=0.4), spread(n2=0.6, n1=0.4)],
        [spread(n4=0.6, n3=0.4), spread(n2=0.2, n1=0.1)],
        [word("four"), word("two")],
        [[("7", 0.0)], [("9", 0.0)]],
        [[("4", -math.inf)], [("2", -math.inf)]],
    ],
    ids=["none", "empty", "too few", "one disagrees", "other disagrees", "unsure", "words", "off the scale", "never"],
)
def test_tokens_that_are_too_few_or_disagree_with_the_text_leave_its_ratings(
    tokens: list[list[tuple[str, float]]],
) -> None:
    found = read_ratings('{"hook": 4, "tone": 2}', TWO, tokens)
    assert found == RatingVerdict("", {"hook": 4.0, "tone": 2.0})


def test_tokens_with_a_space_count_and_those_off_the_scale_do_not() -> None:
    tokens = [[(" 4", math.log(0.5)), ("3\n", math.log(0.25)), ("9", math.log(0.2)), ("four", math.log(0.05))]]
    assert expected({"hook": 4.0}, tokens, ONE) == {"hook": pytest.approx(2.75 / 0.75)}


def test_two_tokens_for_the_same_rating_add_up() -> None:
    tokens = [[("4", math.log(0.5)), ("3", math.log(0.35)), (" 4", math.log(0.1))]]
    assert expected({"hook": 4.0}, tokens, ONE) == {"hook": pytest.approx((4 * 0.6 + 3 * 0.35) / 0.95)}


def test_the_spreads_of_a_verdict_in_another_order_are_not_mixed_up() -> None:
    tokens = [spread(n4=0.6, n3=0.4), spread(n4=1.0)]
    found = read_ratings('{"tone": 4, "hook": 4}', TWO, tokens)
    assert found in (
        RatingVerdict("", {"hook": 4.0, "tone": pytest.approx(3.6)}),
        RatingVerdict("", {"hook": 4.0, "tone": 4.0}),
    )


def test_a_scale_to_ten_with_tokens_of_one_digit_leaves_the_texts_rating() -> None:
    assert expected({"hook": 10.0}, [spread(n1=1.0), spread(n0=1.0)], TEN) == {"hook": 10.0}


@given(st.lists(st.floats(0.01, 1.0), min_size=5, max_size=5), st.integers(1, 5))
def test_an_expected_rating_stays_on_the_scale(shares: list[float], said: int) -> None:
    total = sum(shares)
    place = [(str(rating), math.log(share / total)) for rating, share in enumerate(shares, 1)]
    found = expected({"hook": float(said)}, [place], ONE)["hook"]
    assert 1.0 <= found <= 5.0
    likeliest = max(range(5), key=lambda index: place[index][1]) + 1
    assert likeliest == said or found == said


# ---- the value


@each_case(
    ("hook", "tone", "value"),
    [(1, 1, 0.0), (5, 5, 1.0), (3, 3, 0.5), (5, 1, 2 / 3), (1, 5, 1 / 3), (4, 2, 7 / 12), (3.6, 3.6, 0.65)],
)
def test_the_value_is_the_weighted_mean_on_a_scale_from_0_to_1(hook: float, tone: float, value: float) -> None:
    assert rubric_value({"hook": hook, "tone": tone}, TWO) == pytest.approx(value)


def test_the_value_goes_by_the_rubrics_scale_and_by_shares_of_the_weights() -> None:
    assert rubric_value({"hook": 10}, TEN) == 1.0
    assert rubric_value({"hook": 5.5}, TEN) == pytest.approx(0.5)
    assert rubric_value({"hook": 0}, rubric_of("hook", low=0, high=3)) == 0.0
    said = {"hook": 4.0, "tone": 2.0}
    assert rubric_value(said, rubric_of("hook", "tone", weights=(0.2, 0.1))) == pytest.approx(rubric_value(said, TWO))


marks = st.lists(st.floats(1.0, 5.0), min_size=3, max_size=3)


@given(marks, st.lists(st.floats(0.01, 100.0), min_size=3, max_size=3), st.integers(0, 2), st.floats(1.0, 5.0))
def test_the_value_is_in_0_to_1_and_rises_with_each_rating(
    said: list[float], weights: list[float], which: int, other: float
) -> None:
    rubric = rubric_of("a", "b", "c", weights=weights)
    lower, higher = list(said), list(said)
    lower[which], higher[which] = sorted((said[which], other))
    low, high = (rubric_value(dict(zip("abc", one, strict=True)), rubric) for one in (lower, higher))
    assert 0.0 <= low <= high <= 1.0


# ---- the schemas that are sent along


def test_a_schema_asks_for_the_reason_first_and_for_ratings_on_the_scale_only() -> None:
    schema = json.loads(rating_schema(TWO))
    assert list(schema["properties"]) == schema["required"] == ["reason", "hook", "tone"]
    check = json_checker(rating_schema(TWO))
    assert check({"reason": "r", "hook": 1, "tone": 5}) == ""
    for wrong in (
        {"reason": "r", "hook": 1},
        {"hook": 1, "tone": 1},
        {"reason": "r", "hook": 0, "tone": 1},
        {"reason": "r", "hook": 1, "tone": 6},
        {"reason": "r", "hook": 1, "tone": 1, "more": 1},
        {"reason": "r" * (REASON_CHARACTERS + 1), "hook": 1, "tone": 1},
    ):
        assert check(wrong)
    choice = json_checker(choice_schema(PAIR))
    assert choice({"reason": "r", "verdict": "tie"}) == ""
    assert choice({"reason": "r", "verdict": "C"})
