"""A job that is killed, or whose disk runs full, loses no settled call: typed again, it buys only what is missing.

The cells of a sweep are processes: tests/cli/test_sweep.py kills these.
"""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from agent.ledger.store import Ledger, NewRun
from tests.cli.world import good, optimize
from tests.ledger.ledgers import Disk
from tests.promises.asking import CASES, Asked, typed
from tests.promises.conftest import Fresh, Whole
from tests.toys import make_task

SHARES = (0.2, 0.5, 0.9)
RESUMED = ("run", "migrate", "text")
"""Their second half is typed as `optimize resume`; that of all others as the same command."""


def continued(name: str) -> None:
    """Type what continues a job; it ends well, and the ledger is whole."""
    done = optimize("resume", "-q", "--max-concurrency", "1") if name in RESUMED else typed(name, in_turn=True)
    assert done.exit_code == 0, done.output
    good("audit", "verify")


def killed_at(number: int, name: str, asked: Asked) -> None:
    """Run a job in a forked process that gets SIGKILL within its call of this number."""

    def kill(call: int) -> None:
        if call == number:
            os.kill(os.getpid(), signal.SIGKILL)

    asked.on_call = kill
    if not (pid := os.fork()):
        typed(name, in_turn=True)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), f"{name} ended before call {number}"
    asked.on_call = lambda call: None


@pytest.mark.parametrize("name", CASES)
def test_a_killed_job_buys_no_settled_call_again(name: str, again: Fresh, whole: Whole) -> None:
    most = whole(name)
    for share in SHARES if name == "run" else (0.5,):
        asked = again()
        killed_at(int(most * share), name, asked)
        assert name not in RESUMED or "\tkilled\t" in good("runs")
        continued(name)
        assert asked.calls == most + 1, "the call in flight at the kill, and no other, is asked again"


@pytest.mark.parametrize("name", CASES)
def test_a_full_disk_loses_nothing_settled(
    name: str, again: Fresh, whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Disk))
    monkeypatch.setattr(Disk, "full", False)
    most, asked = whole(name), again()

    def fill(call: int) -> None:
        Disk.full = call == most // 2 or Disk.full

    asked.on_call = fill
    done = typed(name, in_turn=True)
    assert done.exit_code == 1
    assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == 1
    assert "disk is full" in done.stderr
    asked.on_call = lambda call: None
    Disk.full = False
    continued(name)
    assert most <= asked.calls <= most + 1


@pytest.mark.parametrize("name", ["check", "bless"])
def test_what_finished_is_asked_afresh(name: str, again: Fresh, whole: Whole) -> None:
    """Also the replies that a killed command left count once: for the one that continues it."""
    most, asked = whole(name), again()
    killed_at(most // 2, name, asked)
    continued(name)
    assert typed(name).exit_code == 0
    assert asked.calls == 2 * most + 1


def test_a_cell_of_a_sweep_that_another_process_runs_is_waited_for(again: Fresh) -> None:
    again()
    db = min(Path("runs/sweep-small").glob("*.db"))
    for file in db.parent.glob(f"{db.name}*"):
        file.unlink()
    with closing(Ledger(db)) as ledger:
        ledger.begin_run(NewRun("held", make_task(), "m"))
        ledger.flush()
        done = optimize("sweep", "small.toml", "-q")
        assert (done.exit_code, done.stdout) == (2, "")
        assert f"{db}: another process is running this cell; wait for it" in done.stderr
    done = optimize("sweep", "small.toml", "-q")
    assert done.exit_code == 2, "its last run is of another task"
    assert "held: " in done.stderr
