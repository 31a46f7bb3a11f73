"""Somebody takes the ledger from under a run: removes it, moves or copies an older copy over it, deletes its lock. The
run stops at the first commit that can see it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from agent.ledger.files import seal_path
from tests.chaos.command import Ended
from tests.chaos.harness import QUICK, WIDTH, Campaign, Folder, Row
from tests.chaos.process import under_way

TIMES = 20
LATENCY = 0.1  # seconds a call
MOMENT = (1, 200)  # requests that the provider saw before


def remove(folder: Folder) -> None:
    folder.ledger.unlink()


def move_over(folder: Folder) -> None:
    moved = folder.ledger.with_name("moved.db")
    shutil.copyfile(_older(folder), moved)
    moved.rename(folder.ledger)


def copy_over(folder: Folder) -> None:
    shutil.copyfile(_older(folder), folder.ledger)


def unlock(folder: Folder) -> None:
    folder.ledger.with_name(f"{folder.db}.lock").unlink()


WAYS: tuple[Callable[[Folder], None], ...] = (remove, move_over, copy_over, unlock)


def swaps(c: Campaign) -> Row:
    """One way after the other, at random moments of a run on a ledger that holds an earlier one."""
    rng, broken, most, times = c.rng("swaps"), [], 0, c.times(TIMES, len(WAYS))
    with c.provider(latency=LATENCY) as server:
        folder = c.folder("swaps")
        folder.run(server.url, "--max-calls", "100", "-n", "1").wait()
        shutil.copyfile(folder.ledger, _older(folder))
        for number in range(times):
            way = WAYS[number % len(WAYS)]
            folder.fresh()
            shutil.copyfile(_older(folder), folder.ledger)
            server.reset()
            command = folder.run(server.url, *QUICK, "--seed", str(number + 1), "--no-cache")
            under_way(server, command, rng.randint(*MOMENT))
            time.sleep(rng.uniform(0, LATENCY))
            sealed, before = _seal(folder), server.bill()["requests"]
            way(folder)
            ended = command.wait()
            after = server.bill()["requests"] - before
            most = max(most, after)
            broken += [f"{way.__name__}: {what}" for what in _wrong(ended, after)]
            broken += [f"{way.__name__}: {what}" for what in _touched(folder, way, sealed)]
    happened = f"{times} runs stopped, at most {most} requests came after it"
    promised = f"exit 1, one line, <= {WIDTH} requests after it, nothing foreign written to or sealed"
    return Row("ledger, older copy, lock swapped", times, promised, happened, tuple(broken))


def _wrong(ended: Ended, after: int) -> Iterator[str]:
    if ended.code != 1 or len(ended.errors) != 1 or "while the ledger was in use" not in ended.err:
        yield f"exit {ended.code}: {ended.err[-300:]!r}"
    if after > WIDTH:
        yield f"{after} requests came after it"


def _touched(folder: Folder, way: Callable[[Folder], None], sealed: bytes) -> Iterator[str]:
    if way is remove:
        if folder.ledger.exists():
            yield "the ledger was made again"
        return
    if way is not unlock and folder.ledger.read_bytes() != _older(folder).read_bytes():
        yield "what lies there now was written to"
    if way is not unlock and _seal(folder) != sealed:
        yield "what lies there now was sealed"
    yield from folder.books().damage  # with its log, which nobody has taken away


def _older(folder: Folder) -> Path:
    return folder.path / "older.db"


def _seal(folder: Folder) -> bytes:
    path = seal_path(folder.ledger)
    return path.read_bytes() if path.exists() else b""
