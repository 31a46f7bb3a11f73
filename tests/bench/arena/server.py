"""The task model of the arena behind an OpenAI-compatible address, in its own process; counts calls by tag.

    python -m tests.bench.arena.server MODEL.gguf|toy [PROPOSER.gguf|toy] [--replies FILE]

It listens on 127.0.0.1 only, prints {"url": ...} when it is ready and ends when its stdin, a pipe, closes. The base
address for a client is `URL/TAG/v1`, where TAG may hold slashes (system/set/seed/role). GET /counts gives, by tag,
calls and tokens. A second model answers the tags that end with `/proposer`. Temperature, seed, stop, logprobs,
max_tokens and response_format are passed on. Nothing is refused for having cost too much: whoever started a system
watches it.

Two habits that a client should know: a reply has at most MOST_TOKENS tokens, and samples with a temperature but without
a seed get seeds 0, 1, 2 ... by tag, so that equal prompts get different samples and a whole run is repeatable.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.errors import ModelError, RowRefused
from agent.models.local import LocalModel
from agent.types import LM, Completion, Message, Request, scores_labels
from tests.bench.arena.replies import KeptReplies
from tests.bench.arena.toy import TOY, ToyModel

MOST_TOKENS = 1024
CALL = "/v1/chat/completions"
OWN = "/own"
"""The same for clients that speak of requests as this project does: with all that the model can, and its tokenizer."""
JSON = dict[str, Any]


@dataclass(slots=True)
class Count:
    """What came under one tag. `refused` (too long for the model, or malformed) are counted in `calls` as well."""

    calls: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    refused: int = 0

    def add(self, reply: Completion) -> None:
        self.prompt_tokens += reply.usage.prompt_tokens
        self.cached_tokens += reply.usage.cached_prompt_tokens
        self.completion_tokens += reply.usage.completion_tokens


def read_request(body: JSON, sample: int) -> Request:
    """An OpenAI request as ours. Raises ValueError, KeyError or TypeError for a malformed one."""
    temperature = body.get("temperature")
    temperature = 1.0 if temperature is None else float(temperature)  # as OpenAI has it
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or MOST_TOKENS
    stop = body.get("stop") or ()
    seed = body.get("seed")
    return Request(
        messages=tuple(Message(message["role"], _text(message["content"])) for message in body["messages"]),
        max_tokens=min(int(limit), MOST_TOKENS),
        temperature=temperature,
        seed=sample if seed is None and temperature else seed,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        json_schema=_schema(body.get("response_format")),
        logprobs=int(body.get("top_logprobs") or 1) if body.get("logprobs") else 0,
    )


def _text(content: Any) -> str:
    """A message's content: a text, or OpenAI's list of text parts."""
    return content if isinstance(content, str) else "".join(part["text"] for part in content or ())


def _schema(wanted: JSON | None) -> str | None:
    kind = (wanted or {}).get("type")
    if kind == "json_schema":
        return json.dumps(wanted["json_schema"].get("schema", {"type": "object"}))  # unsorted: the fields have an order
    return '{"type": "object"}' if kind == "json_object" else None


def write_reply(model: str, replies: list[Completion]) -> JSON:
    used = [reply.usage for reply in replies]
    prompt, done = used[0].prompt_tokens, sum(usage.completion_tokens for usage in used)
    return {
        "id": "arena",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [_choice(number, reply) for number, reply in enumerate(replies)],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": done,
            "total_tokens": prompt + done,
            "prompt_tokens_details": {"cached_tokens": used[0].cached_prompt_tokens},
        },
    }


def _choice(number: int, reply: Completion) -> JSON:
    choice: JSON = {
        "index": number,
        "message": {"role": "assistant", "content": reply.text},
        "finish_reason": "length" if reply.finish == "length" else "stop",
    }
    if reply.logprobs:
        tokens = [[{"token": token, "logprob": value} for token, value in tops] for tops in reply.logprobs]
        choice["logprobs"] = {"content": [{**(tops[0] if tops else {}), "top_logprobs": tops} for tops in tokens]}
    return choice


class Counter:
    """Answers requests from `model`, or those of the role proposer from `proposer`, and counts them."""

    def __init__(self, model: LM, proposer: LM | None = None) -> None:
        self._model, self._proposer = model, proposer or model
        self._counts: defaultdict[str, Count] = defaultdict(Count)
        self._samples: defaultdict[str, int] = defaultdict(int)

    def counts(self) -> dict[str, JSON]:
        return {tag: asdict(count) for tag, count in self._counts.items()}

    async def answer(self, tag: str, body: JSON) -> tuple[int, JSON]:
        """Status and body of the reply."""
        count = self._counts[tag]
        count.calls += 1
        try:
            wanted = max(1, int(body.get("n") or 1))
            first = self._samples[tag]
            requests = [read_request(body, first + number) for number in range(wanted)]
            self._samples[tag] = first + wanted
            replies = [await self.model(tag).complete(request) for request in requests]
        except (RowRefused, ValueError, KeyError, TypeError, AttributeError) as error:
            count.refused += 1
            return 400, {"error": {"message": str(error), "type": "invalid_request_error", "code": "bad_request"}}
        except ModelError as error:
            count.refused += 1
            return 500, {"error": {"message": str(error), "type": "server_error"}}
        count.calls += wanted - 1
        for reply in replies:
            count.add(reply)
        return 200, write_reply(str(body.get("model") or "arena"), list(replies))

    async def answer_own(self, tag: str, body: JSON) -> tuple[int, JSON]:
        """`answer` to a Request as JSON, with a Completion as JSON."""
        count = self._counts[tag]
        count.calls += 1
        lists = {name: tuple(body[name]) for name in ("stop", "choices", "labels")}
        messages = tuple(Message(message["role"], message["content"]) for message in body["messages"])
        try:
            reply = await self.model(tag).complete(Request(**{**body, **lists, "messages": messages}))
        except ModelError as error:
            count.refused += 1
            return 400 if isinstance(error, RowRefused) else 500, {"error": str(error)}
        count.add(reply)
        return 200, asdict(reply)

    def model(self, tag: str) -> LM:
        """Which model answers the calls of a tag."""
        return self._proposer if tag.endswith("/proposer") else self._model


async def serve(name: str, proposer: str = "", replies: Path | None = None) -> None:
    from aiohttp import web

    def loaded(file: str) -> LM:
        model: LM = ToyModel() if file == TOY else LocalModel("arena", Path(file))
        return KeptReplies(model, Path(file).name, replies) if replies else model

    model = loaded(name)
    counter = Counter(model, loaded(proposer) if proposer else model)

    async def complete(request: web.Request) -> web.Response:
        try:
            body = await request.json()
        except ValueError as error:
            return web.json_response({"error": {"message": f"no JSON: {error}"}}, status=400)
        status, reply = await counter.answer(request.match_info["tag"], body)
        return web.json_response(reply, status=status)

    async def own(request: web.Request) -> web.Response:
        status, reply = await counter.answer_own(request.match_info["tag"], await request.json())
        return web.json_response(reply, status=status)

    async def tokens(request: web.Request) -> web.Response:
        lm, text = counter.model(request.match_info["tag"]), await request.text()
        return web.json_response({"tokens": lm.count_tokens(text), "scores_labels": scores_labels(lm)})

    async def counts(_: web.Request) -> web.Response:
        return web.json_response(counter.counts())

    app = web.Application(client_max_size=1 << 26)
    app.add_routes([web.get("/counts", counts), web.post("/{tag:.+}" + CALL, complete)])
    app.add_routes([web.post("/{tag:.+}" + OWN, own), web.post("/{tag:.+}" + OWN + "/tokens", tokens)])
    runner = web.AppRunner(app, handler_cancellation=True)  # a call whose client is gone leaves the queue
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(json.dumps({"url": f"http://127.0.0.1:{runner.addresses[0][1]}"}), flush=True)
    await _stdin_closes()
    os._exit(0)  # there is nothing to save, and a long reply in the engine would hold a clean end up


async def _stdin_closes() -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(0, lambda: None if os.read(0, 1 << 16) else stop.set())
    await stop.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("proposer", nargs="?", default="")
    parser.add_argument("--replies", type=Path)
    given = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(given.model, given.proposer, given.replies))
