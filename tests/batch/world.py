"""A gateway that sends batches, its server, and what the ledger says of them."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.gateway.batches import Batches, BatchSettings
from agent.gateway.budget import Account
from agent.gateway.gateway import Gateway
from agent.gateway.prices import fixed_price
from agent.ledger.store import Ledger
from agent.models.anthropic import AnthropicModel
from agent.models.hosted import HostedModel
from agent.models.openai import OpenAIModel
from agent.types import Budget, Completion
from tests.batch.provider import BatchProvider
from tests.gateway.doors import settings as call_settings
from tests.gateway.virtual import HurryClock
from tests.toys import ask, open_ledger
from tests.wire import Fault, WireServer

ROWS = 12
BOTH = pytest.mark.parametrize("kind", ["openai", "anthropic"])
PRICE = fixed_price(1.0, 2.0)


def echo(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
    return f"reply to {messages[-1]['content']}"


class World:
    """A server with batches, and a gateway of a run over a ledger. `lines` are those for the user."""

    def __init__(self, server: WireServer, provider: BatchProvider, kind: str, path: Path) -> None:
        self.server, self.provider, self.kind, self.path = server, provider, kind, path
        self.lines: list[str] = []

    def model(self) -> HostedModel:
        if self.kind == "openai":
            return OpenAIModel("openai-compatible/x@there", "x", base_url=self.server.url)
        return AnthropicModel("anthropic/x", "x", base_url=self.server.root, api_key="k")

    def gateway(self, ledger: Ledger, budget: Budget | None = None, **more: Any) -> Gateway:
        lm, how = self.model(), (more.pop("wait", None), more.pop("only", False), more.pop("max_wait", 5.0))
        past = ledger.resume_run("run-1", {}) if more.pop("resumed", False) else None
        clock = HurryClock()
        found = Account(budget or Budget(), past, clock=clock)
        batches = Batches(ledger, "run-1", BatchSettings(*how), _Lines(self.lines), clock)
        prices = {lm.name: PRICE}
        return Gateway(ledger, "run-1", found, prices, call_settings(more), batches=batches, **more)

    async def asked(self, gateway: Gateway, rows: int = ROWS, **more: Any) -> list[Completion | BaseException]:
        """Asks a set of calls, and closes all."""
        lm = self.model()
        try:
            with gateway.together():
                jobs = [gateway.complete("model", lm, ask(f"row {n}", **more), "c") for n in range(rows)]
                return await asyncio.wait_for(asyncio.gather(*jobs, return_exceptions=True), 30)
        finally:
            await gateway.close()
            await lm.close()

    def ask(self, rows: int = ROWS, request: dict[str, Any] | None = None, **more: Any) -> list[Any]:
        """Asks a set of calls of the run in a separate ledger; `path` has it then."""
        ledger = Ledger(self.path) if self.path.exists() else open_ledger(self.path)

        async def go() -> list[Completion | BaseException]:
            return await self.asked(self.gateway(ledger, **more), rows, **(request or {}))

        with contextlib.closing(ledger):
            return asyncio.run(go())

    def batches(self) -> list[dict[str, Any]]:
        """The batches as the ledger has them."""
        with contextlib.closing(Ledger(self.path)) as ledger:
            return ledger.batches()

    def calls(self) -> list[dict[str, Any]]:
        with contextlib.closing(sqlite3.connect(self.path)) as db:
            db.row_factory = sqlite3.Row
            return [dict(row) for row in db.execute("SELECT * FROM calls ORDER BY id")]


class _Lines:
    def __init__(self, lines: list[str]) -> None:
        self.on_message = lines.append


@contextlib.contextmanager
def world(path: Path, kind: str = "openai", **provider: Any) -> Iterator[World]:
    """A world whose provider is made so."""
    made = BatchProvider(echo, **provider)
    with WireServer(echo, other=made) as server:
        yield World(server, made, kind, path / "ledger.db")


def texts(replies: list[Any]) -> list[str]:
    for reply in replies:
        if isinstance(reply, BaseException):
            raise reply
    return [reply.text for reply in replies]


def expected(rows: int = ROWS) -> list[str]:
    return [f"reply to row {n}" for n in range(rows)]


def half_price(calls: list[dict[str, Any]]) -> bool:
    """Whether each settled call has half of its live price."""
    live = [(call["prompt_tokens"] * 1.0 + call["completion_tokens"] * 2.0) / 1e6 for call in calls]
    return all(abs(call["cost_usd"] - usd / 2) < 1e-12 for call, usd in zip(calls, live, strict=True))
