"""How much of a reply is taken: of its body, its text, and of the strings beside it that go into the ledger."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import BadResponse
from agent.models.hosted import SPARE_BYTES, SPARE_CHARS, cut, most_bytes, most_chars
from agent.models.transport import MAX_RESPONSE_BYTES
from agent.types import Request
from tests.models.test_hosted import (
    KEY,
    REQUEST,
    Make,
    every_bounded_model,
    every_model,
    failure,
    openai,
    reply_body,
    serving,
)
from tests.wire import Fault


@pytest.fixture(autouse=True)
def the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


LARGE = replace(REQUEST, max_tokens=100_000)


def body_of(make: Make, text: str, **more: Any) -> dict[str, Any]:
    return reply_body(make, text, "end_turn" if "anthropic" in make.__name__ else "stop") | more


@given(st.integers(1, 1_000_000), st.integers(0, 20))
def test_more_tokens_may_be_more_bytes_up_to_a_limit(max_tokens: int, logprobs: int) -> None:
    request = replace(REQUEST, max_tokens=max_tokens, logprobs=logprobs)
    assert SPARE_BYTES < most_bytes(request) <= most_bytes(replace(request, max_tokens=max_tokens + 1))
    assert most_bytes(request) <= MAX_RESPONSE_BYTES
    assert most_chars(request) > SPARE_CHARS


@given(st.text(), st.integers(0, 10))
def test_what_is_cut_says_so(text: str, most: int) -> None:
    assert (cut(text, most) == text) == (len(text) <= most)
    assert len(text) <= most or cut(text, most) == text[:most] + "…"


@every_model
@pytest.mark.parametrize("field", ["model", "id", "finish"])
async def test_long_strings_beside_the_text_do_not_come_along(make: Make, field: str) -> None:
    long = "m" * 400_000
    body = body_of(make, "billing", **({field: long} if field != "finish" else {}))
    if field == "finish":
        body |= {"stop_reason": long} if "anthropic" in make.__name__ else {}
        for choice in body.get("choices", []):
            choice["finish_reason"] = long
    async with serving(make, lambda messages, sent: Fault(body=body)) as (model, _):
        completion = await model.complete(REQUEST)
    assert completion.text == "billing"
    assert len(repr(completion)) < 1000
    assert field != "model" or completion.model == "m" * 200 + "…"


@every_model
async def test_a_key_is_taken_out_of_a_name_before_the_name_is_cut(make: Make) -> None:
    body = body_of(make, "billing", model="m" * 190 + KEY + "m" * 1000)
    async with serving(make, lambda messages, sent: Fault(body=body)) as (model, _):
        assert (await model.complete(REQUEST)).model == ("m" * 190 + "[key]" + "m" * 1000)[:200] + "…"


@every_model
@pytest.mark.parametrize("status", [200, 400, 500])
async def test_the_words_of_an_error_are_a_short_line(make: Make, status: int) -> None:
    words = "é\n" * 20_000
    kind = "type" if "anthropic" in make.__name__ else "code"
    error, _ = await failure(make, Fault(status=status, body={"error": {"message": words, kind: words}}))
    assert len(str(error)) < 1000
    assert str(error).isprintable()


@pytest.mark.parametrize("asked", [0, 2])
async def test_no_more_log_probabilities_are_kept_than_were_asked_for(asked: int) -> None:
    top = [{"token": "y" * 5000, "logprob": -0.1}, {"token": "n", "logprob": -2.5}, {"token": "o", "logprob": -3}]
    body = body_of(openai, "yes")
    body["choices"][0]["logprobs"] = {"content": [{"top_logprobs": top}] * 30}
    async with serving(openai, lambda messages, sent: Fault(body=body)) as (model, _):
        found = (await model.complete(replace(REQUEST, logprobs=asked))).logprobs
    assert found == ((("y" * 200 + "…", -0.1), ("n", -2.5)),) * (REQUEST.max_tokens if asked else 0)


@every_model
async def test_a_text_longer_than_its_tokens_can_be_is_no_reply(make: Make) -> None:
    for size in (most_chars(REQUEST), most_chars(REQUEST) + 1):
        body = body_of(make, "x" * size)
        if size == most_chars(REQUEST):
            async with serving(make, lambda messages, sent, body=body: Fault(body=body)) as (model, _):
                assert len((await model.complete(REQUEST)).text) == size
            continue
        error, _ = await failure(make, Fault(body=body))
        assert isinstance(error, BadResponse)
        assert "which 16 tokens cannot have" in str(error)
        assert len(str(error)) < 1000


@every_bounded_model
async def test_the_bytes_of_a_body_are_bounded_by_the_tokens_that_were_asked_for(make: Make) -> None:
    body = body_of(make, "billing", padding="x" * most_bytes(REQUEST))
    error, _ = await failure(make, Fault(body=body))
    assert isinstance(error, BadResponse)
    assert f"larger than {most_bytes(REQUEST):,} bytes" in str(error)
    async with serving(make, lambda messages, sent: Fault(body=body)) as (model, _):
        assert (await model.complete(replace(REQUEST, max_tokens=2000))).text == "billing"


# -- the loop ----------------------------------------------------------------------------------------------------------


async def longest_pause(work: Callable[[], Any]) -> float:
    """Seconds for which a task beside `work` did not get its turn."""
    longest, last, over = 0.0, time.perf_counter(), False

    async def beat() -> None:
        nonlocal longest, last
        while not over:
            await asyncio.sleep(0.002)
            longest, last = max(longest, time.perf_counter() - last), time.perf_counter()

    beating = asyncio.create_task(beat())
    try:
        await work()
    finally:
        over = True
        await beating
    return longest


def hostile(make: Make, request: Request) -> list[bytes]:
    """The largest bodies that are read, each hard on another part of the reading."""
    room = most_bytes(request) - 2000
    plain = json.dumps(body_of(make, "billing")).encode()[:-1]
    return [
        json.dumps(body_of(make, "a" * min(room, most_chars(request)))).encode(),
        json.dumps(body_of(make, "a " * (min(room, most_chars(request)) // 2))).encode(),
        json.dumps(body_of(make, "\u00e9" * (room // 6))).encode(),
        plain + b', "x": [' + b"{}," * (room // 3) + b"0]}",
        plain + b', "x": [' + b"[]," * (room // 3) + b"0]}",
        plain + b', "x": {' + b"".join(b'"%07x":0,' % at for at in range(room // 12)) + b'"":0}}',
        b"[" * room,
    ]


@every_bounded_model
async def test_the_largest_reply_leaves_the_loop_to_others(make: Make) -> None:
    async with serving(make, lambda messages, sent: "ok") as (model, server):
        await model.complete(LARGE)  # the SDK is imported with the first call
        for number, raw in enumerate(hostile(make, LARGE)):
            server._reply = lambda messages, sent, raw=raw: Fault(
                body=raw, headers={"content-type": "application/json"}
            )

            async def ask() -> None:
                with suppress(BadResponse):  # which the last of them is
                    await model.complete(LARGE)

            pause = await longest_pause(ask)
            print(make.__name__, number, round(pause, 3))
            assert pause < 5, (number, pause)  # half a second where the machine does nothing else
