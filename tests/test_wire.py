"""The local server itself, with nothing but the standard library on the other side."""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from typing import Any

import pytest

from tests.wire import ANTHROPIC_PATH, OPENAI_PATH, WireServer

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
