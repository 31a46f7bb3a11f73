"""`complete` and `acomplete`: the prompt as it was scored, through our models, in a loop and outside of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.errors import ReleaseError, RowRefused, Transient
from agent.prompt.bound import BoundPrompt
from agent.release.completion import request_of
from agent.release.export import write_release
from agent.release.runtime import Prompt, load_prompt
from agent.types import Completion, Field, Request, Usage
from tests.cases import each_case
from tests.release.test_promotion import release
from tests.toys import beside_the_loop
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


def loaded(folder: Path, **changes: Any) -> Prompt:
    return load_prompt(write_release(release(1, **changes), folder))


def test_outside_a_loop_it_asks_once_with_the_released_parameters(tmp_path: Path) -> None:
    prompt, model = loaded(tmp_path, parameters={"max_tokens": 5, "stop": ["\n"]}), Recorder()
    assert prompt.complete(model, message="refund").fields == {"team": "billing"}
    (asked,) = model.asked
    assert [message.as_dict() for message in asked.messages] == prompt.render(message="refund")
    assert (asked.max_tokens, asked.temperature, asked.stop, asked.repeat) == (5, 0.0, ("\n",), 0)
    assert not model.closed
    with pytest.raises(ReleaseError, match="message is missing"):
        prompt.complete(model)
    with pytest.raises(ReleaseError, match="cannot send the parameter top_k"):
        loaded(tmp_path, parameters={"top_k": 3}).complete(model, message="x")
    assert len(model.asked) == 1
    with pytest.raises(RowRefused):
        prompt.complete(Recorder("refusal"), message="x")


async def test_inside_a_loop_complete_says_what_to_write_and_a_long_reply_is_read_in_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = loaded(tmp_path, outputs=(Field("team", "json"),), reasoning=True)
    with pytest.raises(ReleaseError, match=r"await prompt\.acomplete"):
        prompt.complete(Recorder(), message="x")
    monkeypatch.setattr(BoundPrompt, "read", beside_the_loop(BoundPrompt.read))
    assert (await prompt.acomplete(Recorder(text="{}" * 100_000), message="x")).raw


@each_case(
    "parameters, sent",
    [
        ({}, (1024, 0.0, None, ())),
        ({"max_tokens": 7, "stop": "END", "seed": 3}, (7, 0.0, 3, ("END",))),
        ({"temperature": 0.5, "stop": ["a", "b"]}, (1024, 0.5, None, ("a", "b"))),
    ],
)
def test_what_a_release_does_not_say_has_one_meaning(parameters: dict[str, Any], sent: tuple[Any, ...]) -> None:
    asked = request_of((one := release(1, parameters=parameters)), one.row({"message": "hi"}))
    assert (asked.max_tokens, asked.temperature, asked.seed, asked.stop) == sent


def picky(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
    """A server of a model that takes no temperature, and no limit by its old name."""
    for name, instead in (("temperature", ""), ("max_tokens", " Use 'max_completion_tokens' instead.")):
        if name in body:
            words = f"Unsupported parameter: '{name}' is not supported with this model.{instead}"
            return Fault(status=400, body={"error": {"message": words}})
    return "billing"


def test_the_released_model_is_made_by_its_name_and_may_refuse_parameters_but_not_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with WireServer(picky) as server:
        prompt = loaded(tmp_path / "a", model=f"openai-compatible/tiny@{server.url}")
        for _ in range(2):
            assert prompt.complete(message="refund").fields == {"team": "billing"}
    assert len(server.requests) == 6
    assert server.requests[2].body["max_completion_tokens"] == prompt.parameters["max_tokens"]
    assert server.requests[2].body["messages"] == prompt.render(message="refund")
    with WireServer(lambda messages, body: Fault(status=500)) as server, pytest.raises(Transient):
        loaded(tmp_path / "b", model=f"openai-compatible/tiny@{server.url}").complete(message="refund")
    assert len(server.requests) == 1
