"""One cell of a sweep from where its ledger stands to its end: here, in a child process, or on a Ray node.

What a process is asked and answers is one line of JSON each. While it runs it writes how far it is into a small file
next to the ledger, which is replaced as a whole: the ledger of a run that continues elsewhere is never opened.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, ClassVar

from agent.errors import AgentError, Interrupted, LedgerBusy, message_of
from agent.ledger.files import sibling
from agent.options.jobs import ResumeOptions
from agent.run.arguments import OptimizeArguments, launch_of
from agent.run.interrupts import Stop
from agent.run.observers import LogWatcher, Snapshot
from agent.run.resume import prepare_resume
from agent.run.session import start
from agent.run.sweep.cells import Cell, progress_of

BUSY_SECONDS = 60.0
"""How long a cell that is taken over waits for the process that had its ledger before."""
WRITE_SECONDS = 0.5
"""Between two writings of the progress file."""


def order_of(cell: Cell) -> str:
    """What a process is asked."""
    return json.dumps({"task": cell.point.task, "options": cell.arguments, "db": str(cell.db), "folder": os.getcwd()})


def progress_file(db: Path) -> Path:
    """Where a cell that runs says how far it is."""
    return sibling(db, ".progress.json")


def read_progress(db: Path) -> dict[str, Any]:
    """What stands there: calls, planned, best (0 to 1), usd (None: unknown), seconds; {} where nothing does."""
    try:
        found = json.loads(progress_file(db).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


class CellWatcher(LogWatcher):
    """Writes how far the run is, at most twice a second; nothing that it cannot write ends the run."""

    signals: ClassVar[tuple[signal.Signals, ...]] = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, db: Path) -> None:
        super().__init__(None)
        self._path, self._written = progress_file(db), 0.0

    def on_snapshot(self, snapshot: Snapshot) -> None:
        if time.monotonic() - self._written < WRITE_SECONDS:
            return
        self._written = time.monotonic()
        account = snapshot.account
        said = {
            "calls": account.total_used.calls,
            "planned": snapshot.plan.calls,
            "best": snapshot.best[0] if snapshot.best else None,
            "usd": None if account.unpriced else account.total_paid.usd,
            "seconds": account.seconds,
        }
        new = self._path.with_suffix(f".{os.getpid()}")
        try:
            new.write_text(json.dumps(said), "utf-8")
            os.replace(new, self._path)
        except OSError:
            new.unlink(missing_ok=True)


def run_cell(task: str, options: Mapping[str, Any], db: Path, stop: Stop | None = None) -> None:
    """Runs a cell to its end, or continues it; a finished one is left alone.

    Raises:
        AgentError: whatever ends it early.
    """
    watcher = CellWatcher(db)
    try:
        before = progress_of(db)
        if before.state == "finished":
            return
        if before.run_id:
            prepared = prepare_resume(before.run_id, ResumeOptions(), db, watcher)
            start(prepared.launch, db, watcher, prepared.resumed, stop)
        else:
            start(launch_of(task, OptimizeArguments.given(options), db, watcher), db, watcher, stop=stop)
    finally:
        progress_file(db).unlink(missing_ok=True)


def answer(order: str, stop: Stop | None = None) -> str:
    """Runs the cell of an order; how it ended as JSON: `error`, "" for a result, and whether it was `interrupted`."""
    asked = json.loads(order)
    os.chdir(asked["folder"])
    end = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            run_cell(asked["task"], asked["options"], Path(asked["db"]), stop)
        except LedgerBusy as error:
            if time.monotonic() < end:
                time.sleep(WRITE_SECONDS)
                continue
            return json.dumps({"error": str(error), "interrupted": False})
        except (AgentError, KeyboardInterrupt, OSError) as error:
            was_stopped = isinstance(error, Interrupted | KeyboardInterrupt)
            return json.dumps({"error": message_of(error), "interrupted": was_stopped})
        return json.dumps({"error": "", "interrupted": False})


def main() -> None:
    """A child process: an order on stdin, an answer on stdout. When stdin is closed, as by the end of the process that
    asked, the calls in flight land and the run can be resumed."""
    stop, out = Stop(), os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a metric or a program of the user's prints is no answer
    order = sys.stdin.readline()
    threading.Thread(target=_land_at_end, args=(sys.stdin, stop), daemon=True).start()
    out.write(answer(order, stop) + "\n")
    out.flush()
    os._exit(0)  # the thread waits for a pipe


def _land_at_end(pipe: IO[str], stop: Stop) -> None:
    while pipe.readline():
        pass
    stop.land()
