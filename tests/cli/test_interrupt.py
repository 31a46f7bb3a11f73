"""An interrupted run: exit code 130, nothing lost, and the same command goes on without buying a call twice."""

import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.world import compatible, files, good_json, learner
from tests.wire import Fault, WireServer

ROOT = Path(__file__).resolve().parents[2]
START = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from agent.cli import main; main()"


def slow(messages: list[dict[str, Any]], body: dict[str, Any]) -> Fault:
    return Fault(text=learner(messages, body), delay=0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_with_130_and_goes_on_from_there(number: signal.Signals) -> None:
    command = files(120)
    with WireServer(slow) as server:
        command += ["-m", compatible(server), "--max-calls", "200", "--proposer", "none"]
        process = subprocess.Popen(
            [sys.executable, "-c", START, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 60
        while len(server.requests) < 60 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        before = len(server.requests)
        assert process.returncode == 130, err
        assert out == ""
        assert "Traceback" not in err
        assert "same command" in err.splitlines()[-1]
        with sqlite3.connect("runs/ledger.db") as db:
            assert db.execute("SELECT status FROM runs").fetchall() == [("interrupted",)]
            (settled,) = db.execute("SELECT COUNT(*) FROM calls WHERE state = 'ok'").fetchone()
        result = good_json(*command)
        assert len(server.requests) - before == result["calls"]["target"]
    assert before - 8 <= settled <= before
    assert result["calls"]["cached"] >= settled
    assert result["status"] == "complete"
    assert [run["status"] for run in good_json("runs")["runs"]] == ["complete", "interrupted"]
