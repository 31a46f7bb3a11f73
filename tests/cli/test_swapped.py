"""Somebody takes the ledger away from a run: it stops before it buys more, says so, and ends with 1."""

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_interrupt import wait_for
from tests.cli.world import compatible, files, good, good_json, learner
from tests.warm import start
from tests.wire import Fault, WireServer

DB = Path("runs/ledger.db")
FLYING = 4


def slow(messages: list[dict[str, Any]], body: dict[str, Any]) -> Fault:
    return Fault(text=learner(messages, body), delay=0.1)


def move_an_older_copy_over_it() -> None:
    DB.with_name("older.db").rename(DB)


def delete_the_lock() -> None:
    DB.with_name("ledger.db.lock").unlink()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (move_an_older_copy_over_it, "ledger.db: was replaced by another file while"),
        (delete_the_lock, "ledger.db.lock: was removed while"),
    ],
)
def test_a_run_whose_ledger_is_taken_away_stops_and_says_so(change: Callable[[], None], what: str) -> None:
    command = files(120)
    with WireServer(slow) as server:
        command += ["-m", compatible(server), "--max-calls", "100"]
        good(*command, "-n", "1", "-q")
        shutil.copyfile(DB, DB.with_name("older.db"))
        older, before = DB.read_bytes(), len(server.requests)
        run = start(*command, "--seed", "1", "--no-cache", "-j", str(FLYING), "-q")
        try:
            wait_for(server, before + 20)
            change()
            time.sleep(0.05)  # one that passed its last look may be on its way
            sent = len(server.requests)
            out, err = run.communicate(timeout=60)
        finally:
            run.send_signal(signal.SIGKILL)
        assert run.returncode == 1, err
        assert out == ""
        assert len(server.requests) <= sent + FLYING
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert what in line
    assert "calls in flight have unknown outcomes and may have been paid for" in line
    if change is move_an_older_copy_over_it:
        assert DB.read_bytes() == older, "nobody wrote to it"
        assert len(good_json("runs")["runs"]) == 2, "the log still has what was recorded"
