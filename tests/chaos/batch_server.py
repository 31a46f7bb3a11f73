"""A provider with OpenAI's batch API, in a process of its own, so that what forks beside it has no threads.

    python -m tests.chaos.batch_server [DAMAGE]

It prints {"url": ...} when it is ready and lives until its stdin closes. GET /bill tells what came. A batch needs a few
looks, and one row of seven is not asked, so that a kill finds all of it under way. With the name of a DAMAGE one line
of each file of results is unreadable.
"""

from __future__ import annotations

import json
import sys

from tests.batch.provider import DAMAGE, BatchProvider
from tests.cli.world import learner
from tests.wire import Fault, Seen, WireServer

LOOKS = ("validating", "in_progress", "in_progress", "completed")


def main() -> None:
    provider = BatchProvider(learner, LOOKS, row=lambda number: None if number % 7 == 6 else 200, partial=5)
    provider.damage = DAMAGE[sys.argv[1]] if sys.argv[1:] else provider.damage

    def other(seen: Seen) -> Fault | None:
        if seen.path == "/bill":
            twice = sum(count > 1 for count in provider.asked.values())
            bill = {"batches": len(provider.jobs), "rows": sum(provider.asked.values()), "twice": twice}
            return Fault(body={**bill, "requests": len(server.requests)})
        return provider(seen)

    server = WireServer(learner, other=other)
    with server:
        print(json.dumps({"url": server.root}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
