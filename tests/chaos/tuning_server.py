"""A provider with a fine-tuning API, in a process of its own, so that what forks beside it has no threads.

    python -m tests.chaos.tuning_server

It prints {"url": ...} when it is ready and lives until its stdin closes. GET /bill tells what came. A job needs a few
looks, and a reply a moment, so that a kill finds both under way.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from tests.chaos.books import DOLLARS_IN, DOLLARS_OUT
from tests.cli.tuning_provider import Provider, answers
from tests.wire import Fault, Seen, WireServer

LOOKS = ("validating_files", "queued", "running", "running", "succeeded")
LATENCY = 0.05
TOKENS = 4321
"""That a job bills."""


def main() -> None:
    provider = Provider(LOOKS, tokens=TOKENS)
    dollars: list[float] = []

    def other(seen: Seen) -> Fault | None:
        if seen.path == "/bill":
            bill = {"jobs": len(provider.jobs), "starts": provider.started, "files": len(provider.files)}
            return Fault(body={**bill, "requests": len(server.requests), "dollars": sum(dollars)})
        return provider(seen)

    def reply(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
        said = answers(messages, body)
        assert isinstance(said, str)
        words = sum(len(message["content"].split()) for message in messages)
        dollars.append((words * DOLLARS_IN + len(said.split()) * DOLLARS_OUT) / 1e6)
        return Fault(text=said, delay=LATENCY)

    server = WireServer(reply, other=other)
    with server:
        print(json.dumps({"url": server.root}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
