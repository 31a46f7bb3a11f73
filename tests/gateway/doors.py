"""Gateways, models and looks into the ledger that the tests of the gateway share."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from agent.gateway.budget import Account
from agent.gateway.gateway import CallSettings, Gateway
from agent.ledger.store import Ledger
from agent.models.openai import OpenAIModel
from agent.observer import Observer
from agent.options.shared import AskingOptions
from agent.types import Budget, Request
from tests.gateway.virtual import LoopClock
from tests.ledger.ledgers import read
from tests.toys import FakeModel, ask
from tests.wire import WireServer


class Messages(Observer):
    """The lines for the user."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def on_message(self, line: str) -> None:
        self.lines.append(line)


class Calm(random.Random):
    """A jitter that never waits."""

    def uniform(self, a: float, b: float) -> float:
        return 0.0


def settings(more: dict[str, Any]) -> CallSettings:
    """How calls are made, out of these words; the others are left in `more`."""
    asking = AskingOptions(**{name: more.pop(name) for name in list(more) if name in AskingOptions.model_fields})
    return CallSettings(asking, asking.thinking or 0, more.pop("use_cache", True), more.pop("jitter", Calm()))


def gateway(ledger: Ledger, budget: Budget | None = None, run_id: str = "run-1", **more: Any) -> Gateway:
    account = more.pop("account", None) or Account(budget or Budget(), more.pop("past", None), clock=LoopClock())
    return Gateway(ledger, run_id, account, more.pop("prices", {}), settings(more), **more)


def model(server: WireServer) -> OpenAIModel:
    return OpenAIModel(f"openai-compatible/x@{server.url}", "x", base_url=server.url)


def states(ledger: Ledger) -> Counter[str]:
    """Attempts by state, as another process sees them."""
    return Counter(state for (state,) in read(ledger.path, "SELECT state FROM calls"))


def classes(ledger: Ledger) -> list[str]:
    """What became of each attempt, in their order: the class of its error, or its state."""
    return [name for (name,) in read(ledger.path, "SELECT COALESCE(error_class, state) FROM calls ORDER BY id")]


async def burst(door: Gateway, lm: Any, calls: int) -> list[Any]:
    """Different calls at the same time; what they return or raise."""
    jobs = (door.complete("model", lm, ask(f"number {n}")) for n in range(calls))
    return await asyncio.gather(*jobs, return_exceptions=True)


def script(*answers: str | Exception) -> Callable[[Request], str]:
    """An answer for a `FakeModel`: one after the other, the last one for ever."""
    left = list(answers)

    def answer(request: Request) -> str:
        said = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(said, Exception):
            raise said
        return said

    return answer


def scripted(*answers: str | Exception, name: str = "fake/m") -> FakeModel:
    return FakeModel(script(*answers), name)
