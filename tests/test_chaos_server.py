"""The failing provider itself, with nothing but the standard library on the other side."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.chaos.client import ChaosServer
from tests.chaos.faults import BROKEN, ENDLESS, KINDS, REFUSALS, Fault, Faults, spoil
from tests.chaos.server import Bill, body_key
from tests.cli.world import TOPICS
from tests.wire import ANTHROPIC_PATH, OPENAI_PATH

BODY = {"model": "m", "messages": [{"role": "user", "content": "one invoice please"}]}
BOTH = pytest.mark.parametrize("path", [OPENAI_PATH, ANTHROPIC_PATH])
KEY = "Bearer sk-planted-planted"


@pytest.fixture(scope="module")
def running() -> Iterator[ChaosServer]:
    with ChaosServer() as server:
        yield server


@pytest.fixture
def server(running: ChaosServer) -> Iterator[ChaosServer]:
    running.control(reset=True)
    yield running
    assert running.bill()["errors"] == []


def connect(server: ChaosServer, timeout: float = 5.0) -> closing[http.client.HTTPConnection]:
    return closing(http.client.HTTPConnection(server.root.removeprefix("http://"), timeout=timeout))


def plain(server: ChaosServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(server.root.rpartition(":")[2])), timeout=5)


def send(
    server: ChaosServer, path: str = OPENAI_PATH, body: Any = BODY, timeout: float = 5.0
) -> tuple[http.client.HTTPResponse, bytes]:
    with connect(server, timeout) as connection:
        connection.request("POST", path, json.dumps(body), {"Authorization": KEY})
        response = connection.getresponse()
        return response, response.read()


def text(data: bytes) -> Any:
    reply = json.loads(data)
    return reply["choices"][0]["message"]["content"] if "choices" in reply else reply["content"][0]["text"]


@BOTH
def test_an_answer_is_on_the_bill_under_the_key_of_its_body(server: ChaosServer, path: str) -> None:
    demo = [{"role": "user", "content": TOPICS["repair"]}, {"role": "assistant", "content": "repair"}]
    body = BODY | {"messages": [*demo, {"role": "user", "content": "the battery"}]}
    assert [text(send(server, path, body)[1]) for _ in range(2)] == ["repair", "repair"]
    bill = server.bill(arrivals=True)
    assert bill["requests"] == bill["answered"] == bill["billed_requests"] == len(bill["arrivals"]) == 2
    assert bill["opened"] == [1, 1]
    assert bill["by_key"] == bill["answered_by_key"] == {body_key(body): 2}
    assert (bill["billed_prompt_tokens"], bill["billed_completion_tokens"]) == (2 * 13, 2)
    assert (bill["by_status"], bill["open"]) == ({"200": 2}, 0)
    assert bill["hosts"] == [server.root.removeprefix("http://")]


@BOTH
@pytest.mark.parametrize("status", [400, 401, 402, 403, 429, 500, 503, 529])
def test_a_refusal_has_the_provider_s_shape_and_costs_nothing(server: ChaosServer, path: str, status: int) -> None:
    server.control({"kind": "status", "status": status, "times": 1})
    response, data = send(server, path)
    assert response.status == status
    assert json.loads(data)["error"]["message"]
    assert ("type" in json.loads(data)) == (path == ANTHROPIC_PATH)
    assert text(send(server, path)[1]) == "billing"
    bill = server.bill()
    assert (bill["requests"], bill["billed_requests"], bill["answered"]) == (2, 1, 1)


@pytest.mark.parametrize("form", ["seconds", "ms", "date"])
def test_what_arrives_inside_an_announced_wait_is_counted(server: ChaosServer, form: str) -> None:
    amount = 30_000 if form == "ms" else 30
    server.control({"kind": "status", "status": 429, "times": 1, "retry_after": {form: amount}})
    response, _ = send(server)
    assert response.headers["retry-after-ms" if form == "ms" else "retry-after"]
    time.sleep(0.06)
    send(server)
    (window,) = server.bill()["windows"]
    assert 30 <= window["end"] - window["start"] < 31.1
    assert (window["inside"], window["inside_after_50ms"], window["late"], window["status"]) == (1, 1, 0, 429)
    assert server.requests() == 2


def test_what_arrives_in_the_second_half_of_a_wait_is_late() -> None:
    bill = Bill(arrivals=[9.9, 10.01, 10.3, 10.6, 10.9, 11.2], windows=[(10.0, 11.0, 429)])
    (window,) = bill.as_dict(0, with_arrivals=False)["windows"]
    assert (window["inside"], window["inside_after_50ms"], window["late"]) == (4, 3, 2)


def fails(kind: str) -> type[Exception] | tuple[type[Exception], ...]:
    """What a client meets that wants the text of the reply."""
    if kind in ("slow_loris", "hang"):
        return TimeoutError
    if kind == "truncated":
        return http.client.IncompleteRead
    if kind == "reset":
        return ConnectionResetError
    return (ValueError, RecursionError, KeyError, TypeError)


@BOTH
@pytest.mark.parametrize("kind", [kind for kind in BROKEN if kind not in ("huge", "gzip_bomb")])
def test_a_broken_answer_is_billed_and_no_answer(server: ChaosServer, path: str, kind: str) -> None:
    server.control({"kind": kind})
    with pytest.raises(fails(kind)):
        text(send(server, path, timeout=0.1 if fails(kind) is TimeoutError else 10.0)[1])
    bill = server.bill()
    assert (bill["requests"], bill["billed_requests"], bill["answered"]) == (1, 1, 0)
    assert bill["billed_prompt_tokens"] == 3
    assert bill["by_fault"] == {kind: 1}


@pytest.mark.parametrize("kind", ENDLESS)
def test_an_answer_without_an_end_is_billed_and_no_answer(server: ChaosServer, kind: str) -> None:
    server.control({"kind": kind})
    with connect(server, 5.0) as connection:
        connection.request("POST", OPENAI_PATH, json.dumps(BODY), {"Authorization": KEY})
        assert all(connection.sock.recv(1000) for _ in range(20))
    bill = server.bill()
    assert (bill["requests"], bill["billed_requests"], bill["answered"]) == (1, 1, 0)


@BOTH
def test_a_reply_of_many_megabytes_is_valid_behind_its_blanks(server: ChaosServer, path: str) -> None:
    server.control({"kind": "huge", "megabytes": 3, "times": 1}, {"kind": "gzip_bomb", "megabytes": 3})
    _, data = send(server, path)
    response, packed = send(server, path)
    assert response.headers["content-encoding"] == "gzip"
    assert len(packed) < 10_000
    for whole in (data, gzip.decompress(packed)):
        assert len(whole) > 3 << 20
        assert text(whole) == "billing"


ODDITIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no_usage": lambda reply: "usage" not in reply,
    "model_change": lambda reply: reply["model"] == "another-model",
    "finish_length": lambda reply: {"length", "max_tokens"} & {_finish(reply)},
    "finish_content_filter": lambda reply: {"content_filter", "refusal"} & {_finish(reply)},
    "refusal": lambda reply: "I cannot help" in json.dumps(reply),
    "empty_content": lambda reply: not reply.get("content") and "billing" not in json.dumps(reply),
    "echo_key": lambda reply: KEY in json.dumps(reply),
}


def _finish(reply: dict[str, Any]) -> str:
    return str(reply["stop_reason"] if "stop_reason" in reply else reply["choices"][0]["finish_reason"])


@BOTH
@pytest.mark.parametrize("kind", ODDITIES)
def test_an_odd_answer_is_an_answer(server: ChaosServer, path: str, kind: str) -> None:
    server.control({"kind": kind, "status": 200})
    assert ODDITIES[kind](json.loads(send(server, path)[1]))
    bill = server.bill()
    assert (bill["answered"], bill["billed_requests"], bill["billed_prompt_tokens"]) == (1, 1, 3)


def test_every_kind_is_tested_here() -> None:
    assert set(KINDS) == {*REFUSALS, *BROKEN, *ODDITIES, *ENDLESS, "overbill"}


@BOTH
def test_tokens_that_nobody_sees_are_in_the_usage_and_on_the_bill(server: ChaosServer, path: str) -> None:
    server.control({"kind": "overbill", "tokens": 500})
    reply = json.loads(send(server, path)[1])
    usage = reply["usage"]
    assert usage.get("completion_tokens", usage.get("output_tokens")) == 501
    bill = server.bill()
    assert (bill["answered"], bill["billed_prompt_tokens"], bill["billed_completion_tokens"]) == (1, 3, 501)


@pytest.mark.parametrize("header", ["0", "-5", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_a_header_that_announces_no_wait_goes_out_as_it_is(server: ChaosServer, header: str) -> None:
    server.control({"kind": "status", "status": 429, "retry_after": {"text": header}})
    assert send(server)[0].headers["retry-after"] == header
    assert server.bill()["windows"] == []


def test_a_key_is_repeated_in_an_error(server: ChaosServer) -> None:
    server.control({"kind": "echo_key"})
    response, data = send(server)
    assert (response.status, KEY in data.decode()) == (500, True)


def strikes(faults: Faults, moments: list[float], opened: int = 1) -> list[bool]:
    return [faults.strike(now, opened) is not None for now in moments]


def test_the_same_seed_strikes_the_same_requests() -> None:
    flaky = [Fault("status", rate=0.1, status=500)]
    first, again, other = (strikes(Faults(flaky, seed), [0.0] * 2000) for seed in (1, 1, 2))
    assert first == again != other
    assert 150 < sum(first) < 250


def test_a_fault_waits_for_its_turn_and_ends_after_its_times() -> None:
    faults = Faults([Fault("hang", after=2, times=3)], 0)
    assert strikes(faults, [0.0] * 7) == [False, False, True, True, True, False, False]


def test_an_outage_takes_everything_for_its_seconds_and_is_over() -> None:
    faults = Faults([Fault("outage", after=1, seconds=5)], 0)
    assert strikes(faults, [10, 11, 12, 15.9, 16.1, 17]) == [False, True, True, True, False, False]


def test_capacity_lets_so_many_a_second_through_and_so_many_at_once() -> None:
    bucket = Faults([Fault("capacity", per_second=20)], 0)
    passed = strikes(bucket, [100 + number / 100 for number in range(1000)]).count(False)
    assert 195 <= passed <= 205
    narrow = [Fault("capacity", concurrent=8)]
    assert strikes(Faults(narrow, 0), [0.0] * 3, 8) == [False] * 3
    assert strikes(Faults(narrow, 0), [0.0] * 3, 9) == [True] * 3
    refused = spoil(narrow[0], True, {}, "")
    assert (refused.status, refused.wait, refused.headers["retry-after"]) == (429, 1.0, "1")


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "meteor"},
        {"kind": "hang", "speed": 1},
        {"kind": "hang", "rate": 1.5},
        {"kind": "hang", "after": "2"},
        {"kind": "status"},
        {"kind": "capacity"},
        {"kind": "status", "status": 429, "retry_after": {"minutes": 1}},
        {"kind": "status", "status": 429, "retry_after": {"text": 1}},
        {},
    ],
    ids=str,
)
def test_a_fault_that_makes_no_sense_is_refused_and_changes_nothing(server: ChaosServer, fault: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        server.control(fault)
    assert send(server)[0].status == 200


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        b"GET\r\n\r\n",
        b"A" * 70_000,
        b"POST /v1/messages HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\nContent-Length: 2\r\n\r\n[]",
        b"POST /v1/messages HTTP/1.1\r\nContent-Length: 4\r\n\r\n\xff\xfe\x00{",
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + b"[" * 100_000,
        b'POST /v1/messages HTTP/1.1\r\nContent-Length: 18\r\n\r\n{"messages": [[1]]',
        b'POST /v1/messages HTTP/1.1\r\nContent-Length: 19\r\n\r\n{"messages": [[1]]}',
        b'POST /v1/messages HTTP/1.1\r\nContent-Length: 16\r\n\r\n{"messages": []}',
        b"POST /control HTTP/1.1\r\nContent-Length: 4\r\n\r\nnull",
        b"CONNECT elsewhere.example:443 HTTP/1.1\r\nHost: elsewhere.example:443\r\n\r\n",
    ],
    ids=range(13),
)
def test_a_malformed_request_gets_an_error_and_the_next_one_its_answer(server: ChaosServer, raw: bytes) -> None:
    with plain(server) as wire:
        wire.sendall(raw)
        assert wire.recv(1 << 16).startswith((b"HTTP/1.1 400", b"HTTP/1.1 404"))
    assert text(send(server)[1]) == "billing"
    bill = server.bill()
    assert (bill["errors"], bill["open"], bill["billed_requests"]) == ([], 0, 1)


def test_a_stranger_s_host_is_on_the_bill(server: ChaosServer) -> None:
    with connect(server) as connection:
        connection.request("GET", "http://elsewhere.example/", headers={"Host": "elsewhere.example"})
        assert connection.getresponse().status == 404
    assert server.bill()["hosts"] == ["elsewhere.example"]


def test_requests_that_come_together_are_answered_in_order(server: ChaosServer) -> None:
    names = [str(number) for number in range(50)]
    bodies = [json.dumps(BODY | {"model": name}).encode() for name in names]
    head = b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n"
    found = []
    with plain(server) as wire, wire.makefile("rb") as replies:
        wire.sendall(b"".join(head % len(body) + body for body in bodies))
        for _ in names:
            assert replies.readline().startswith(b"HTTP/1.1 200")
            length = int(http.client.parse_headers(replies)["content-length"])
            found.append(json.loads(replies.read(length))["model"])
    assert found == names


def test_the_server_says_what_it_is_told_and_ends_with_its_owner() -> None:
    with ChaosServer(answer="--yes", latency=0.01, jitter=0.01) as own:
        assert text(send(own)[1]) == "--yes"
        assert own.process.stdin is not None
        own.process.stdin.close()
        assert own.process.wait(5) == 0
