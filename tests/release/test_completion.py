"""`complete` and `acomplete`: the prompt as it was scored, through our models, in a loop and outside of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ReleaseError, RowRefused, Transient
from agent.release.completion import request_of
from agent.release.export import write_release
from agent.release.runtime import load_prompt
from agent.types import Completion, Field, Request, Usage
from tests.release.test_promotion import release
from tests.toys import turns_beside
from tests.wire import Fault, WireServer


class Recorder:
    """A model that answers the same and keeps what it was asked."""

    name = "x"
    concurrency = None

    def __init__(self, finish: str = "stop", text: str = "Billing.") -> None:
        self.finish, self.text, self.asked, self.closed = finish, text, list[Request](), False

    async def complete(self, request: Request) -> Completion:
        self.asked.append(request)
        return Completion(self.text, self.finish, Usage(), "x")  # type: ignore[arg-type]

    def count_tokens(self, text: str) -> int:
        return 1

    async def close(self) -> None:
        self.closed = True


def test_outside_a_loop_it_asks_once_with_the_released_parameters(tmp_path: Path) -> None:
    prompt = load_prompt(write_release(release(1, parameters={"max_tokens": 5, "stop": ["\n"]}), tmp_path))
    model = Recorder()
    answer = prompt.complete(model, message="refund")
    assert answer.fields == {"team": "billing"}
    (asked,) = model.asked
    assert [message.as_dict() for message in asked.messages] == prompt.render(message="refund")
    assert (asked.max_tokens, asked.temperature, asked.stop, asked.repeat) == (5, 0.0, ("\n",), 0)
    assert not model.closed


async def test_inside_a_loop_complete_says_what_to_write_and_acomplete_works(tmp_path: Path) -> None:
    prompt = load_prompt(write_release(release(1), tmp_path))
    with pytest.raises(ReleaseError, match=r"await prompt\.acomplete"):
        prompt.complete(Recorder(), message="x")
    assert (await prompt.acomplete(Recorder(), message="x")).fields == {"team": "billing"}


def test_a_refusal_is_an_error_and_a_wrong_field_is_told_before_any_call(tmp_path: Path) -> None:
    prompt = load_prompt(write_release(release(1), tmp_path))
    with pytest.raises(RowRefused):
        prompt.complete(Recorder("refusal"), message="x")
    model = Recorder()
    with pytest.raises(ReleaseError, match="message is missing"):
        prompt.complete(model)
    assert not model.asked


def test_a_parameter_that_cannot_be_sent_is_refused(tmp_path: Path) -> None:
    prompt = load_prompt(write_release(release(1, parameters={"max_tokens": 5, "top_k": 3}), tmp_path))
    with pytest.raises(ReleaseError, match="cannot send the parameter top_k"):
        prompt.complete(Recorder(), message="x")


@pytest.mark.parametrize(
    ("parameters", "sent"),
    [
        ({}, (1024, 0.0, None, ())),
        ({"max_tokens": 7, "stop": "END", "seed": 3}, (7, 0.0, 3, ("END",))),
        ({"temperature": 0.5, "stop": ["a", "b"]}, (1024, 0.5, None, ("a", "b"))),
    ],
)
def test_what_a_release_does_not_say_has_one_meaning(parameters: dict[str, Any], sent: tuple[Any, ...]) -> None:
    asked = request_of((one := release(1, parameters=parameters)), one.row({"message": "hi"}))
    assert (asked.max_tokens, asked.temperature, asked.seed, asked.stop) == sent


def test_the_released_model_is_made_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with WireServer(lambda messages, body: "billing") as server:
        told = release(1, model=f"openai-compatible/tiny@{server.url}")
        prompt = load_prompt(write_release(told, tmp_path))
        assert prompt.complete(message="refund").fields == {"team": "billing"}
        assert prompt.complete(message="refund").fields == {"team": "billing"}
        bodies = [json.dumps(seen.body["messages"]) for seen in server.requests]
    assert bodies == [json.dumps(prompt.render(message="refund"))] * 2


def picky(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
    """A server in front of a model that takes no temperature, and no limit by its old name."""
    for name, instead in (("temperature", ""), ("max_tokens", " Use 'max_completion_tokens' instead.")):
        if name in body:
            words = f"Unsupported parameter: '{name}' is not supported with this model.{instead}"
            return Fault(status=400, body={"error": {"message": words}})
    return "billing"


def test_a_model_that_refuses_parameters_answers_with_each_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with WireServer(picky) as server:
        told = release(1, model=f"openai-compatible/tiny@{server.url}")
        prompt = load_prompt(write_release(told, tmp_path))
        for _ in range(2):
            assert prompt.complete(message="refund").fields == {"team": "billing"}
    assert len(server.requests) == 6
    assert server.requests[2].body["max_completion_tokens"] == told.parameters["max_tokens"]


def test_a_provider_that_is_down_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with WireServer(lambda messages, body: Fault(status=500)) as server:
        told = release(1, model=f"openai-compatible/tiny@{server.url}")
        prompt = load_prompt(write_release(told, tmp_path))
        with pytest.raises(Transient):
            prompt.complete(message="refund")
    assert len(server.requests) == 1


async def test_a_long_reply_is_read_beside_the_loop(tmp_path: Path) -> None:
    outputs = (Field("team", "json"),)
    prompt = load_prompt(write_release(release(1, outputs=outputs, reasoning=True), tmp_path))
    assert await turns_beside(prompt.acomplete(Recorder(text="{}" * 100_000), message="x")) > 1
