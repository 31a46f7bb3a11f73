"""The pieces that the hosted models share, one by one."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import AgentError, BadResponse, Interrupted, ModelError, RateLimited, RunRefused, TransportUnknown
from agent.models.hosted import (
    SPARE_BYTES,
    SPARE_CHARS,
    cut,
    estimate_tokens,
    key_from,
    most_bytes,
    most_chars,
    web_address,
)
from agent.models.transport import MAX_RESPONSE_BYTES, parse_retry_after, status_to_error
from agent.models.wire_format import finish_reason, token_count
from tests.toys import ask


@given(st.text())
def test_the_estimate_is_never_below_the_words_nor_negative(text: str) -> None:
    assert estimate_tokens(text) >= len(text.split())
    assert (estimate_tokens(text) == 0) == (text == "")


@given(st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms"]), st.text()))
def test_any_retry_after_is_a_wait_or_nothing(headers: dict[str, str]) -> None:
    seconds = parse_retry_after(headers)
    assert seconds is None or 0 <= seconds < float("inf")


def test_an_http_date_is_measured_from_now() -> None:
    assert parse_retry_after({"retry-after": formatdate(1_000_060, usegmt=True)}, now=lambda: 1_000_000) == 60


@given(st.integers(0, 999), st.text(), st.text())
def test_every_status_is_some_model_error(status: int, code: str, detail: str) -> None:
    error = status_to_error(status, code=code, detail=detail, where="m", variable="KEY", retry_after=2.0)
    assert isinstance(error, ModelError)
    assert type(error) is not ModelError
    assert (error.status, error.retry_after) == (status, 2.0)


@pytest.mark.parametrize("kind", [RateLimited, BadResponse, RunRefused, TransportUnknown])
def test_an_error_says_where_it_came_from_and_loses_nothing(kind: type[ModelError]) -> None:
    error = kind("it failed", 2.0, status=429).within("openai/m", status=500)
    assert (type(error), str(error), error.retry_after, error.status) == (kind, "openai/m: it failed", 2.0, 429)
    assert kind("it failed").within("openai/m", status=500).status == 500
    assert (kind("it failed").status, kind("it failed").retry_after) == (None, None)


def test_an_interrupted_run_is_no_failure_of_a_model() -> None:
    assert issubclass(Interrupted, AgentError)
    assert Interrupted.exit_code == 130
    assert "resumed" in str(Interrupted())


def test_unknown_reasons_to_stop_are_other() -> None:
    assert [finish_reason(value) for value in ("END_TURN", "tool_calls", "tool_use")] == ["stop"] * 3
    assert [finish_reason(value) for value in ("paused", None, 3)] == ["other"] * 3


@given(st.text())
def test_any_text_is_a_web_address_or_none(url: str) -> None:
    scheme, host = web_address(url)
    assert bool(scheme) == bool(host)
    assert scheme in ("", "http", "https")


@pytest.mark.parametrize("value", [None, -1, 1.0, "3", True, (1 << 64) - 1])
def test_only_a_count_is_a_count(value: object) -> None:
    assert token_count(value) is None
    assert token_count(0) == 0


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1), st.sampled_from(["", " ", "\n"]))
def test_a_key_of_printable_ascii_is_taken_without_the_blanks_around_it(key: str, blank: str) -> None:
    assert key_from("THE_VARIABLE", blank + key + blank) == key


@given(st.text(), st.sampled_from([" ", "\n", "\x00", "é", "\ud800"]), st.text())
def test_a_key_that_cannot_be_sent_is_refused_by_the_name_of_its_variable(before: str, bad: str, after: str) -> None:
    with pytest.raises(RunRefused, match="THE_VARIABLE"):
        key_from("THE_VARIABLE", f"a{before}{bad}{after}b")


@given(st.integers(1, 1_000_000), st.integers(0, 20))
def test_more_tokens_may_be_more_bytes_up_to_a_limit(max_tokens: int, logprobs: int) -> None:
    request = ask("a", max_tokens, logprobs=logprobs)
    assert SPARE_BYTES < most_bytes(request) <= most_bytes(ask("a", max_tokens + 1, logprobs=logprobs))
    assert most_bytes(request) <= MAX_RESPONSE_BYTES
    assert most_chars(request) > SPARE_CHARS


@given(st.text(), st.integers(0, 10))
def test_a_cut_text_ends_in_an_ellipsis(text: str, most: int) -> None:
    assert cut(text, most) == (text if len(text) <= most else text[:most] + "…")


@pytest.mark.parametrize(
    ("value", "wait"),
    [("1e300", 1e9), ("1" + "0" * 400, 1e9), ("86400000000", 1e9), ("Fri, 31 Dec 9999 23:59:59 GMT", 1e9)]
    + [(value, None) for value in ("nan", "", "soon", "Mon, 99 Foo 2026")]
    + [("inf", 1e9), ("-inf", 0.0)],
)
def test_absurd_waits_are_bounded_and_meaningless_ones_ignored(value: str, wait: float | None) -> None:
    assert parse_retry_after({"retry-after": value}) == wait
