"""`kill -9` of every job that asks models, at its commits: the same command continues and buys nothing twice.

The jobs and their recorded world are those of tests/promises.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.chaos.harness import Campaign, Row
from tests.chaos.points import MARKS, NEVER, Point, mark_and_die, points, spread
from tests.cli.world import optimize
from tests.promises.asking import CASES, Asked, fresh, prepare, typed
from tests.promises.test_stopped import RESUMED

STEP = 40
"""One point in this many is a kill, at scale 1."""
ASKS_AGAIN = ("check", "bless", "label")
"""Jobs that ask afresh when they are typed again after their end."""
VOLATILE = (
    *("run_id", "of_run", "ledger_head", "release", "created_utc"),
    *("seconds", "latency_s", "calls", "tokens", "cost_usd", "lost_usd"),
)
"""Keys of results that a kill may change."""
REPLACED = {"bless": ("before",)}
"""Keys that a kill may change in the result of one job: it left a suite, which the next `bless` replaces."""
LEDGER = Path("runs/ledger.db")


def kills(c: Campaign) -> Row:
    """Kill each job at points spread over its commits."""
    broken, happened, killed = list[str](), list[str](), 0
    world = c.path / "world"
    prepare(world)
    for name in CASES:
        folder = c.path / f"whole-{name.replace(' ', '-')}"
        with fresh(world, folder) as asked:
            code = _forked(name)
            broken += [f"{name}: exit {code}"] if code else []
            most, expected, passed = asked.calls, _result(name), points(Path(MARKS))
        chosen = spread(passed, max(1, round(STEP / c.scale)))
        for at in chosen:
            killed += 1
            with fresh(world, c.path / f"killed-{killed}") as asked:
                code = _forked(name, at)
                wrong = [] if code == -signal.SIGKILL else [f"it was not killed: exit {code}"]
                wrong += _continued(name, asked, most, expected)
            broken += [f"{name}, {at}: {what}" for what in wrong]
        happened.append(f"{name} {len(chosen)}")
    promised = "the same command ends as undisturbed; at most the call in flight is bought again"
    return Row("kill -9 of every job", killed, promised, ", ".join(happened), tuple(broken))


def _continued(name: str, asked: Asked, most: int, expected: Any) -> list[str]:
    """Continue a killed job; returns what does not hold then."""
    wrong = []
    if name not in (*RESUMED, "resume") or _result(name) != expected:  # else it was killed after its end
        again = optimize("resume", "-q", "--max-concurrency", "1") if _is_open(name) else typed(name, in_turn=True)
        wrong += [f"exit {again.exit_code}: {again.output[-300:]}"] if again.exit_code else []
    calls = 2 * most if name in ASKS_AGAIN else most + 1
    wrong += [f"{asked.calls} calls, undisturbed {most}"] if asked.calls > calls else []
    wrong += ["another result than undisturbed"] if _result(name) != expected else []
    verified = optimize("audit", "verify")
    return wrong + ([f"audit verify: {verified.output[-300:]}"] if verified.exit_code else [])


def _is_open(name: str) -> bool:
    """Whether a search was recorded before the kill, so that it is resumed."""
    with closing(sqlite3.connect(LEDGER)) as db:
        (status,) = db.execute("SELECT status FROM runs ORDER BY rowid DESC LIMIT 1").fetchone()
    return name in RESUMED and bool(status == "running")


def _forked(name: str, at: Point = NEVER) -> int:
    """Run a job in a forked process that records its points; returns its exit code, negative for a signal."""
    if not (pid := os.fork()):
        mark_and_die(Path(MARKS).resolve(), at)
        os._exit(typed(name, in_turn=True).exit_code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _result(name: str) -> Any:
    """Return the last result in the ledger without what a kill may change, or None."""
    with closing(sqlite3.connect(LEDGER)) as db:
        (body,) = db.execute(
            "SELECT b.body FROM runs r LEFT JOIN blobs b ON b.hash = r.result_hash ORDER BY r.rowid DESC LIMIT 1"
        ).fetchone()
    found = json.loads(body) if body else None
    return found and _lasting({key: each for key, each in found.items() if key not in REPLACED.get(name, ())})


def _lasting(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _lasting(each) for key, each in value.items() if key not in VOLATILE}
    return [_lasting(each) for each in value] if isinstance(value, list) else value
