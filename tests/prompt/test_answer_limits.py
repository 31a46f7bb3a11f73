"""A reply that breaks a limit of its field says which one, and keeps what it parsed to."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.prompt.reply_parser import broken_limit, parse_reply
from agent.types import Field
from tests.cases import each_case

TEASER = Field("teaser", min_words=2, max_words=4, forbidden=("#", "Click Here"), required=("Ada", "radio"))


RANGE = Field("t", min_words=2, max_words=3)


@each_case(
    ("field", "value", "why"),
    [
        (TEASER, "Ada radio a b c", "The teaser has 5 words, at most 4 are allowed."),
        (TEASER, "Ada-radio", "The teaser has 1 word, at least 2 are wanted."),
        *((TEASER, value, "The teaser has 0 words, at least 2 are wanted.") for value in ("", " \n\t")),
        (TEASER, "Ada radio #1", "The teaser holds '#', which is forbidden."),
        (TEASER, "Ada radio CLICK HERE", "The teaser holds 'Click Here', which is forbidden."),
        (TEASER, "on the radio", "The teaser lacks 'Ada', which is required."),
        (TEASER, "of Ada", "The teaser lacks 'radio', which is required."),
        # of several the first is named, words before texts
        (TEASER, "# a b c d e", "The teaser has 6 words, at most 4 are allowed."),
        (TEASER, "#", "The teaser has 1 word, at least 2 are wanted."),
        (TEASER, "# nothing", "The teaser holds '#', which is forbidden."),
        (TEASER, "no thing", "The teaser lacks 'Ada', which is required."),
        # the limits themselves are allowed, and what is no text has none
        *((RANGE, value, "") for value in ("x x", "x x x")),
        (RANGE, "x", "The t has 1 word, at least 2 are wanted."),
        (RANGE, "x x x x", "The t has 4 words, at most 3 are allowed."),
        *((TEASER, value, "") for value in (None, 7, 7.5, True, [], ["#"], {"a": "#"})),
    ],
)
def test_a_broken_limit_is_named_in_one_sentence(field: Field, value: Any, why: str) -> None:
    assert broken_limit(field, value) == why


@each_case(
    ("text", "value"),
    [("STRASSE", "eine Straße"), ("straße", "STRASSE"), ("É", "é"), ("e\u0301", "É"), ("ΣΑΣ", "σας"), ("a\nb", "A\nB")],
)
def test_case_is_folded_in_every_script(text: str, value: str) -> None:
    assert "forbidden" in broken_limit(Field("t", forbidden=(text,)), value)
    assert broken_limit(Field("t", required=(text,)), value) == ""


texts = st.lists(st.text(st.characters(codec=None, exclude_categories=()), min_size=1, max_size=4), max_size=3).map(
    tuple
)
counts = st.none() | st.integers(1, 5)


@given(st.text(st.characters(codec=None, exclude_categories=())), counts, counts, texts, texts)
def test_any_text_is_held_against_any_limits_in_one_printable_line(
    value: str, fewest: int | None, most: int | None, forbidden: tuple[str, ...], required: tuple[str, ...]
) -> None:
    field = Field("t", min_words=fewest, max_words=most, forbidden=forbidden, required=required)
    why = broken_limit(field, value)
    assert why.isprintable()
    words, folded = len(value.split()), value.casefold()
    kept = (fewest or 0) <= words <= (most or words)
    kept = kept and not any(text.casefold() in folded for text in forbidden)
    assert (why == "") == (kept and all(text.casefold() in folded for text in required))


# ---- in a reply

SHORT = Field("teaser", max_words=3, forbidden=("#",))
TITLE = Field("title", required=("Ada",))
COUNT = Field("count", "number")
TAGS = Field("tags", "json")


@each_case(
    "reply",
    ["Press play now, please.", "teaser\nPress play #", '{"teaser": "Press play now, please."}', '{"teaser": "#"}'],
)
def test_one_output_that_breaks_a_limit_has_an_error_and_keeps_its_value(reply: str) -> None:
    prediction = parse_reply(reply, (SHORT,))
    assert prediction.error == broken_limit(SHORT, prediction.fields["teaser"]) != ""
    assert prediction.raw == reply


def test_an_empty_reply_is_empty_before_it_is_too_short() -> None:
    prediction = parse_reply(" ", (TEASER,))
    assert prediction.fields == {}
    assert "is empty" in prediction.error


def test_the_limits_are_for_the_answer_and_not_for_the_reasoning_before_it() -> None:
    reply = "One could write #1, or something of many more words.\nAnswer: Press play."
    prediction = parse_reply(reply, (SHORT,), reasoning=True)
    assert (prediction.fields, prediction.error) == ({"teaser": "Press play."}, "")
    prediction = parse_reply("Short.\nAnswer: Press play #1", (SHORT,), reasoning=True)
    assert prediction.fields == {"teaser": "Press play #1"}
    assert "forbidden" in prediction.error


@pytest.mark.parametrize(
    "form",
    [
        "teaser: {teaser}\ntitle: {title}\ncount: 3",
        '{{"teaser": "{teaser}", "title": "{title}", "count": 3}}',
        "[[ ## teaser ## ]]\n{teaser}\n[[ ## title ## ]]\n{title}\n[[ ## count ## ]]\n3\n[[ ## completed ## ]]",
    ],
    ids=["lines", "object", "sections"],
)
def test_several_outputs_keep_every_value_and_say_every_broken_limit(form: str) -> None:
    outputs = (SHORT, TITLE, COUNT)
    fine = parse_reply(form.format(teaser="Press play.", title="Ada"), outputs)
    assert (fine.fields, fine.error) == ({"teaser": "Press play.", "title": "Ada", "count": 3}, "")
    one = parse_reply(form.format(teaser="Press play.", title="Eve"), outputs)
    assert one.fields == {"teaser": "Press play.", "title": "Eve", "count": 3}
    assert one.error == "The title lacks 'Ada', which is required."
    both = parse_reply(form.format(teaser="a b c d", title="Eve"), outputs)
    assert both.fields == {"teaser": "a b c d", "title": "Eve", "count": 3}
    assert both.error == "The teaser has 4 words, at most 3 are allowed. The title lacks 'Ada', which is required."


def test_a_broken_limit_and_what_is_missing_or_unreadable_are_said_together() -> None:
    prediction = parse_reply("teaser: #\ncount: many", (SHORT, TITLE, COUNT))
    assert prediction.fields == {"teaser": "#"}
    assert "lacks title" in prediction.error
    assert "The teaser holds '#', which is forbidden." in prediction.error
    assert "count: " in prediction.error


def test_a_text_given_as_a_number_is_held_against_its_limits_as_a_text() -> None:
    prediction = parse_reply('{"title": 5, "count": 3}', (TITLE, COUNT))
    assert prediction.fields == {"title": "5", "count": 3}
    assert "lacks 'Ada'" in prediction.error


outputs_of = st.sampled_from([(SHORT,), (TEASER,), (SHORT, TITLE), (TITLE, COUNT), (TAGS, SHORT)])
replies = st.text() | st.lists(
    st.sampled_from(
        ["teaser: ", "title: ", "count: 3", "tags: []", "#", "Ada ", "radio ", "a b c d e", "\n", '{"', '": "']
    )
).map("".join)


@given(replies, outputs_of, st.booleans())
def test_no_reply_raises_and_each_broken_limit_of_what_parsed_is_in_the_error(
    reply: str, outputs: tuple[Field, ...], reasoning: bool
) -> None:
    prediction = parse_reply(reply, outputs, reasoning=reasoning)
    whys = [broken_limit(field, prediction.fields[field.name]) for field in outputs if field.name in prediction.fields]
    assert all(why in prediction.error for why in whys)
    if set(prediction.fields) == {field.name for field in outputs}:
        assert prediction.error == " ".join(why for why in whys if why)
