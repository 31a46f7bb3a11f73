"""A process that buys calls until it is killed, and says what is safe: `python -m tests.ledger.victim LEDGER`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from agent.ledger import writer
from agent.ledger.store import Ledger, Reservation
from agent.types import Completion, Usage
from tests.toys import ask, open_ledger

writer.LOG_BYTES = 60_000  # so that the log is copied often


async def main(path: Path) -> None:
    ledger = open_ledger(path)
    await asyncio.gather(*(buy(ledger, worker) for worker in range(4)))


async def buy(ledger: Ledger, worker: int) -> None:
    for number in range(100_000):
        key = f"k{worker}-{number}"
        call = await ledger.reserve(Reservation("run-1", "model", "m", key, "c", 1, ask(key * 50), 0.5, 40))
        print(f"reserved {key}", flush=True)
        ledger.sent(call)
        await asyncio.sleep(0)
        await ledger.settle("run-1", call, Completion(key, "stop", Usage(1, 1), "m"), 0.25, 0.1)
        print(f"settled {key}", flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
