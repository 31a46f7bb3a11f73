"""The local server itself, with nothing but the standard library on the other side."""

from __future__ import annotations

import http.client
import json
import time
from contextlib import closing
from typing import Any

import pytest

from tests.wire import ANTHROPIC_PATH, OPENAI_PATH, Fault, WireServer

BODY = {"model": "m", "messages": [{"role": "user", "content": "one two three"}]}


def connect(server: WireServer) -> closing[http.client.HTTPConnection]:
    return closing(http.client.HTTPConnection(server.root.removeprefix("http://"), timeout=10))


def post(server: WireServer, path: str, body: Any) -> tuple[int, Any]:
    with connect(server) as connection:
        return send(connection, path, body)


def send(connection: http.client.HTTPConnection, path: str, body: Any) -> tuple[int, Any]:
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json", "X-Own": "1"})
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def test_one_connection_serves_many_requests_and_all_are_kept() -> None:
    with WireServer(lambda messages, body: messages[0]["content"]) as server, connect(server) as connection:
        for _ in range(3):
            status, reply = send(connection, OPENAI_PATH, BODY)
            assert status == 200
            assert reply["choices"][0]["message"]["content"] == "one two three"
            assert reply["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
        assert connection.sock is not None
    assert [(seen.method, seen.path, seen.headers["x-own"], seen.body) for seen in server.requests] == [
        ("POST", OPENAI_PATH, "1", BODY)
    ] * 3


@pytest.mark.parametrize("system", ["be brief", [{"type": "text", "text": "be "}, {"type": "text", "text": "brief"}]])
def test_both_shapes_of_system_and_content_reach_the_reply_as_text(system: Any) -> None:
    blocks = [{"type": "text", "text": "hello"}]
    body = {"model": "m", "system": system, "messages": [{"role": "user", "content": blocks}]}
    heard: list[Any] = []

    def reply(messages: list[dict[str, Any]], sent: dict[str, Any]) -> str:
        heard.extend(messages)
        return "ok"

    with WireServer(reply) as server:
        status, answer = post(server, ANTHROPIC_PATH, body)
    assert (status, answer["content"][0]["text"], answer["usage"]["input_tokens"]) == (200, "ok", 3)
    assert heard == [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]


def test_a_reply_that_raises_is_a_500_and_fails_the_block() -> None:
    def reply(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
        raise LookupError("nobody expected this")

    with pytest.raises(LookupError, match="nobody"), WireServer(reply) as server:
        assert post(server, OPENAI_PATH, BODY)[0] == 500


def test_a_delay_passes_before_an_ordinary_reply() -> None:
    with WireServer(lambda messages, body: Fault(delay=0.2, text="late")) as server:
        started = time.monotonic()
        assert post(server, OPENAI_PATH, BODY)[1]["choices"][0]["message"]["content"] == "late"
    assert time.monotonic() - started >= 0.2


def test_raw_bytes_end_the_connection() -> None:
    with (
        WireServer(lambda messages, body: Fault(raw=b"")) as server,
        pytest.raises(http.client.RemoteDisconnected),
    ):
        post(server, OPENAI_PATH, BODY)


def test_another_address_is_a_404() -> None:
    with WireServer(lambda messages, body: "ok") as server:
        assert post(server, "/v2/other", BODY)[0] == 404
