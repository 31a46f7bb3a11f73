"""Starts the counting server, reads its counts, and asks it: the wire of the arena. Knows no system and no data."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.types import Completion, Request
from tests.child import ChildServer

AT_ONCE = 16


class ModelServer(ChildServer):
    """The server over one GGUF file while the `with` block lasts; `proposer` answers the calls of that role, where it
    is another model."""

    def __init__(self, path: Path, proposer: Path | None = None) -> None:
        super().__init__("tests.bench.arena.server", *map(str, [path, proposer] if proposer else [path]))

    @property
    def url(self) -> str:
        return self.root

    def counts(self, run: str) -> dict[str, dict[str, int]]:
        """Calls and tokens of the run by role; its tags are `run/role`."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{self.url}/counts", timeout=60) as response:
            found: dict[str, Any] = json.load(response)
        return {tag.removeprefix(f"{run}/"): count for tag, count in found.items() if tag.rpartition("/")[0] == run}


def base_url(url: str, role: str) -> str:
    """What an OpenAI client is given as its base address; `url` is the server's, with the run's tag."""
    return f"{url}/{role}/v1"


def ask(url: str, role: str, requests: Sequence[Request]) -> list[str]:
    """The reply to each request, in order; "" where the server refused it."""
    return ["" if reply is None else reply.text for reply in completions(url, role, requests)]


def completions(url: str, role: str, requests: Sequence[Request]) -> list[Completion | None]:
    """The whole reply to each request, in order, with its log-probabilities where they were asked for; None where the
    server refused it."""
    return asyncio.run(_completions(url, role, requests)) if requests else []


async def _completions(url: str, role: str, requests: Sequence[Request]) -> list[Completion | None]:
    from agent.errors import ModelError
    from agent.models.openai import OpenAIModel

    model = OpenAIModel("arena", "arena", base_url=base_url(url, role))
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(request: Request) -> Completion | None:
        async with slots:
            try:
                return await model.complete(request)
            except ModelError:
                return None

    try:
        return list(await asyncio.gather(*map(one, requests)))
    finally:
        await model.close()
