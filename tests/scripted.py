"""Models of this process with scripted replies, for whole commands: what a `WireServer` says, without socket and SDK.

def test_a_run(toys: Toys) -> None:
    good("run", "task", "-m", toys(learner).name)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from agent.models.model_registry import MODELS, model
from agent.models.tool_calling import openai_messages, openai_tools
from agent.types import LM, Request
from tests.toys import FakeModel
from tests.wire import Reply


class Toy(FakeModel):
    """Answers with `reply`, which may be changed; `bodies` are the requests in order, in OpenAI's form."""

    def __init__(self, reply: Reply, name: str) -> None:
        super().__init__(self._said, name)
        self.reply = reply
        self.bodies: list[dict[str, Any]] = []

    def _said(self, request: Request) -> str:
        messages = openai_messages(request)
        body = {"model": self.name, "messages": messages, "max_tokens": request.max_tokens, "seed": request.seed}
        if request.tools:
            body["tools"] = openai_tools(request.tools)
        self.bodies.append(body)
        said = self.reply([{**message, "content": str(message["content"])} for message in messages], body)
        assert isinstance(said, str)
        return said


def _gone(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
    raise AssertionError(f"nobody answers for {body['model']}")


class Toys:
    """Makes models `toy/NAME`. One that a ledger names and nobody made has no answer."""

    def __init__(self) -> None:
        self.known: dict[str, Toy] = {}

    def __call__(self, reply: Reply, name: str = "x") -> Toy:
        self.known[name] = Toy(reply, f"toy/{name}")
        return self.known[name]

    def named(self, name: str) -> Toy:
        return self.known.get(name) or self(_gone, name)


@contextmanager
def toy_kind(make: Callable[[str, str], LM]) -> Iterator[None]:
    """Registers `toy/NAME` as models, for this process and this while."""
    model("toy", form="toy/NAME", about="scripted replies", leads_elsewhere=False)(make)
    try:
        yield
    finally:
        MODELS._known.pop("toy")


@contextmanager
def toy_makers() -> Iterator[Toys]:
    """Toys that commands of this process can name."""
    toys = Toys()
    with toy_kind(lambda name, rest: toys.named(rest)):
        yield toys
