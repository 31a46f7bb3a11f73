"""An interrupted, killed or refused run: nothing lost, and `optimize resume` ends as if nothing had happened."""

import json
import os
import re
import signal
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.jobs.interrupts import stopping
from agent.ledger.verify import verify
from tests.cli.world import compatible, files, good_json, learner, optimize, refused
from tests.toys import open_ledger
from tests.warm import start, start_on_terminal
from tests.wire import Fault, WireServer


def slow(messages: list[dict[str, Any]], body: dict[str, Any]) -> Fault:
    return Fault(text=learner(messages, body), delay=0.02)


def wait_for(server: WireServer, requests: int) -> None:
    deadline = time.monotonic() + 60
    while len(server.requests) < requests and time.monotonic() < deadline:
        time.sleep(0.005)


def told(result: dict[str, Any]) -> dict[str, Any]:
    """A result without what is different in every run."""
    front = [{key: value for key, value in row.items() if key != "latency_s"} for row in result.get("pareto") or []]
    left_out = ("run_id", "seconds", "release", "ledger_head", "pareto")
    return {key: value for key, value in result.items() if key not in left_out} | {"front": front}


def trials(db: str = "runs/ledger.db") -> list[tuple[Any, ...]]:
    found = good_json("history", "--db", db)["trials"]
    return [tuple(t[key] for key in ("number", "candidate_id", "state", "n", "mean", "calls", "cached")) for t in found]


def states() -> dict[str, int]:
    with sqlite3.connect("file:runs/ledger.db?mode=ro", uri=True) as db:
        return dict(db.execute("SELECT state, COUNT(*) FROM calls GROUP BY state").fetchall())


def test_a_ledger_behind_a_link_is_the_ledger() -> None:
    """SQLite's log, our lock and our seal are next to the file."""
    Path("real").mkdir()
    Path("link").mkdir()
    Path("link/ledger.db").symlink_to(Path("real/ledger.db").absolute())
    for number, db in enumerate(("link/ledger.db", "real/ledger.db")):
        open_ledger(Path(db), f"run-{number}").close()
    assert len(good_json("runs", "--db", "link/ledger.db")["runs"]) == 2
    assert [path.name for path in Path("link").glob("ledger.db*")] == ["ledger.db"]


def test_an_interrupt_says_what_it_waits_for() -> None:
    assert stopping(0) == "stopping; press Ctrl-C again to leave at once"
    assert stopping(1) == "stopping: 1 call in flight is being finished; press Ctrl-C again to leave at once"
    assert stopping(2).startswith("stopping: 2 calls in flight are being finished; ")


def test_an_interrupted_run_lands_what_flies_and_resumes_to_the_same_end() -> None:
    command = [*files(120), "--max-calls", "200"]
    with WireServer(slow) as server:
        command += ["-m", compatible(server)]
        whole = good_json(*command, "--db", "whole/ledger.db")
        at = len(server.requests)
        process = start(*command)
        wait_for(server, at + 60)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        before = len(server.requests) - at
        (run,) = good_json("runs")["runs"]
        assert process.returncode == 130, err
        assert out == ""
        assert "Traceback" not in err
        assert err.splitlines()[-1] == f"optimize resume {run['id']}"
        assert "calls in flight are being finished" in err
        assert err.splitlines()[-2] == "the run was interrupted; it can be resumed"
        assert run["status"] == "interrupted"
        assert states() == {"ok": before}
        result = good_json("resume")
        assert len(server.requests) - at == sum(states().values())
    assert told(result) == told(whole)
    assert trials() == trials("whole/ledger.db")
    assert [run["status"] for run in good_json("runs")["runs"]] == ["complete"]


def test_a_closed_terminal_lands_what_flies() -> None:
    """The kernel sends SIGHUP, and all later writes to the terminal fail."""
    with WireServer(lambda messages, body: Fault(text=learner(messages, body), delay=0.2)) as server:
        terminal, theirs = os.openpty()
        process = start_on_terminal([*files(120), "--max-calls", "200", "-m", compatible(server)], theirs, os.environ)
        os.close(theirs)
        wait_for(server, 60)
        os.close(terminal)
        assert process.wait(timeout=60) == 130
        assert good_json("runs")["runs"][0]["status"] == "interrupted"
        assert states() == {"ok": len(server.requests)}


def test_nobody_who_listens_is_no_reason_to_end() -> None:
    """Under nohup, with the reader of stderr gone (`2>&1 | tee log`, and the line dropped), the run continues."""
    command = [*files(120), "--max-calls", "100", "-n", "1"]
    with WireServer(slow) as server:
        ignored = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
        process = start(*command, "-m", compatible(server), "--json", before=ignored)
        wait_for(server, 5)
        assert process.stderr is not None
        process.stderr.close()
        process.stderr = None
        process.send_signal(signal.SIGHUP)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(out)["status"] == "complete"


def test_a_hang_up_is_told_more_than_once_and_lands_all_the_same() -> None:
    """The kernel and the shell both send SIGHUP; a machine that shuts down sends SIGTERM and SIGHUP."""
    command = [*files(120), "--max-calls", "200", "--quiet"]
    with WireServer(lambda messages, body: Fault(text=learner(messages, body), delay=0.6)) as server:
        process = start(*command, "-m", compatible(server))
        wait_for(server, 4)
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
            process.send_signal(number)
            time.sleep(0.1)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert "left at once" not in err
        assert states() == {"ok": len(server.requests)}


def test_a_second_press_leaves_at_once() -> None:
    command = [*files(120), "--max-calls", "200", "--quiet"]
    with WireServer(lambda messages, body: Fault(delay=20.0)) as server:
        process = start(*command, "-m", compatible(server))
        wait_for(server, 4)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert re.fullmatch(r"optimize resume \S+", err.splitlines()[-1])


def test_a_killed_run_charges_what_flew_and_resumes_to_the_same_end() -> None:
    command = [*files(120), "--effort", "quick", "--price", "1,2", "--limit", "60-30-30", "-j", "8"]
    with WireServer(slow) as server:
        command += ["-m", compatible(server)]
        whole = good_json(*command, "--db", "whole/ledger.db")
        for part in (40, 50):
            process = start(*(command if part == 40 else ["resume", "-q"]))
            wait_for(server, len(server.requests) + part)
            process.kill()
            process.communicate(timeout=60)
        below = "\n".join(refused(2, "resume", "--max-calls", "30", "--max-cost", "0", "-q"))
        assert re.search(r"--max-calls 30 is below what was paid, \d+; .*\n.*--max-cost 0 is below", below)
        paid = states()["ok"]
        done = optimize("resume", "--json")
        result = json.loads(done.stdout)
    assert f"with the replies of its {paid} calls" in done.stderr
    same = ("baseline", "winner", "lift", "decision", "trials", "status")
    assert {key: result[key] for key in same} == {key: whole[key] for key in same}
    assert [t[:5] for t in trials()] == [t[:5] for t in trials("whole/ledger.db")]
    assert 0 < states()["unknown"] <= 2 * 8
    assert states()["ok"] == whole["calls"]["model"] + whole["calls"]["proposer"]
    with sqlite3.connect("file:runs/ledger.db?mode=ro", uri=True) as db:
        assert verify(db) == []
        unknown = "SELECT COUNT(*) FROM calls WHERE state = 'unknown' AND cost_usd = reserved_usd AND cost_usd > 0"
        assert db.execute(unknown).fetchone() == (states()["unknown"],)


def test_a_run_that_is_resumed_with_a_lower_cap_says_so_and_is_not_called_searched(names: Mapping[str, str]) -> None:
    done = optimize("resume", names["interrupted"], "--max-calls", "120", "--json")
    assert "120 calls are fewer than the 200 that it was planned with" in done.stderr
    result = json.loads(done.stdout)
    assert "the cap is lower than the plan's" in result["search_ended"]
    assert result["calls"]["model"] <= 120


def test_a_refused_key_in_mid_run_is_resumed_with_a_better_one(monkeypatch: pytest.MonkeyPatch) -> None:
    command = [*files(120), "--max-calls", "240", "-q"]
    monkeypatch.setenv("OPENAI_COMPATIBLE_API_KEY", "sk-the-first-key")
    bad: list[str] = []

    def answer(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
        if len(server.requests) > 50 and bad:
            return Fault(401)
        return learner(messages, body)

    with WireServer(answer) as server:
        whole = good_json(*command, "-m", compatible(server), "--db", "whole/ledger.db")
        server.requests.clear()
        bad.append("sk-the-first-key")
        lines = refused(1, *command, "-m", compatible(server))
        assert len(server.requests) <= 50 + 32
        assert lines[-1].startswith("optimize resume ")
        assert "brought nothing" not in optimize("resume").stderr
        while states()["error"] <= 24:  # what the plan has to spare
            assert refused(1, "resume", "-q")[-1] == lines[-1]
        pattern = r"(\d+) of the \d+ calls so far brought nothing.* --max-calls (\d+)"
        said = re.search(pattern, optimize("resume").stderr)
        assert said
        bad.clear()
        again = optimize("resume", "--max-calls", said[2], "--json")  # the refused calls were sent, and count
        assert "brought nothing" not in again.stderr
        result = json.loads(again.stdout)
    assert {k: result[k] for k in ("winner", "lift")} == {k: whole[k] for k in ("winner", "lift")}


def test_resume_names_what_changed_and_forks_when_told_to(names: Mapping[str, str]) -> None:
    run, rows = names["interrupted"], Path("rows.csv").read_text("utf-8")
    Path("rows.csv").write_text(rows.replace("r0,", "r0x,"), "utf-8")
    lines = refused(2, "resume")
    assert [line.split(": ")[-1] for line in lines if line.startswith("error: ")][:-1] == ["rows.csv changed"]
    assert "--fork" in lines[-1]
    assert "--fork" in refused(2, "resume", "-m", "scripted/x")[0]
    own = refused(2, "resume", "-m", "toy/interrupted")  # as OPTIMIZE_MODEL says it
    assert any("changed" in line for line in own)
    assert good_json("resume", "--fork")["run_id"] != run
    assert good_json("runs")["runs"][0]["parent"] == run
    Path("rows.csv").write_text(rows, "utf-8")
    assert good_json("resume")["run_id"] == run
    assert "this run is complete" in refused(2, "resume", run)[0]
    assert "no run is unfinished" in refused(2, "resume")[0]


def test_a_second_writer_is_refused_with_the_owner_s_name() -> None:
    command = [*files(120), "--max-calls", "200", "-q"]
    with WireServer(slow) as server:
        process = start(*command, "-m", compatible(server))
        wait_for(server, 20)
        (line,) = refused(1, *command, "-m", compatible(server))
        assert f"process {process.pid} on {os.uname().nodename}" in line
        assert good_json("runs")["runs"][0]["status"] == "running"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
