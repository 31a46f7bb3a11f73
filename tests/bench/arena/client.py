"""Starts the counting server, reads its counts, and asks it: the wire of the arena. Knows no system and no data."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from agent.errors import BadResponse, ModelError, RowRefused
from agent.types import Completion, Request
from tests.bench.arena.replies import completion
from tests.child import ChildServer

AT_ONCE = 16


class ModelServer(ChildServer):
    """The server over one GGUF file while the `with` block lasts; `proposer` answers the calls of that role, where it
    is another model. Replies are kept in the file `replies`, if one is named."""

    def __init__(self, path: Path, proposer: Path | None = None, replies: Path | None = None) -> None:
        kept = ["--replies", str(replies.absolute())] if replies else []
        super().__init__("tests.bench.arena.server", *map(str, [path, proposer] if proposer else [path]), *kept)

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


def post(url: str, body: bytes, timeout: float = 60.0) -> dict[str, Any]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, body), timeout=timeout) as response:
        found: dict[str, Any] = json.load(response)
    return found


class OwnModel:
    """The server's model with all that it can here: exact scores of labels, and its tokenizer.

    Args:
        url: the server's address with the run's tag.
        role: of the calls.
        name: what the ledger calls it.
    """

    concurrency = AT_ONCE

    def __init__(self, url: str, role: str, name: str = "arena") -> None:
        import httpx

        self.name, self._url = name, f"{url}/{role}/own"
        self._client = httpx.AsyncClient(timeout=None, trust_env=False)
        self._facts = lru_cache(maxsize=4096)(lambda text: post(f"{self._url}/tokens", text.encode()))

    @property
    def scores_labels(self) -> bool:
        return bool(self._facts("")["scores_labels"])

    def count_tokens(self, text: str) -> int:
        return int(self._facts(text)["tokens"])

    async def complete(self, request: Request) -> Completion:
        reply = await self._client.post(self._url, json=asdict(request))
        body = reply.json()
        if reply.status_code != 200:
            raise (RowRefused if reply.status_code == 400 else BadResponse)(body["error"])
        return completion(body)

    async def close(self) -> None:
        await self._client.aclose()


def ask(url: str, role: str, requests: Sequence[Request]) -> list[str]:
    """The reply to each request, in order; "" where the server refused it."""
    return ["" if reply is None else reply.text for reply in completions(url, role, requests)]


def completions(url: str, role: str, requests: Sequence[Request]) -> list[Completion | None]:
    """The whole reply to each request, in order; None where the server refused it."""
    return asyncio.run(_completions(url, role, requests)) if requests else []


async def _completions(url: str, role: str, requests: Sequence[Request]) -> list[Completion | None]:
    model, slots = OwnModel(url, role), asyncio.Semaphore(AT_ONCE)

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
