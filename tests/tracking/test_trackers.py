"""The same run in MLflow, Weights & Biases and ClearML, read back by their own packages; and that nothing is sent."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.tracking.tracker import TRACKERS, TrackedStart, tracker
from tests.child import ROOT
from tests.cli.world import compatible, files, good_json, learner, optimize, refused
from tests.tracking.readers import READERS, Written
from tests.wire import WireServer

SECRET = "correct-horse-4711-battery"
CALLS = ["--max-calls", "300", "--price", "1,2"]


class Proxy:
    """Counts who connects, and answers nothing."""

    def __init__(self) -> None:
        self.visits = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        while True:
            try:
                visitor, _ = self._socket.accept()
            except OSError:
                return
            self.visits += 1
            visitor.close()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    server = Proxy()
    yield server
    server.close()


def tracked(folder: Path, proxy: Proxy, *options: str) -> tuple[dict[str, Any], str]:
    """The result of a run in a process that may reach this machine alone, and what it said."""
    with WireServer(learner) as server:
        command = [*files(80), "-m", compatible(server), *CALLS, "--tag", f"note={SECRET}", *options, "--json"]
        own = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "CLEARML", "MLFLOW"))}
        ways = dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"), proxy.url)
        here = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost", "HOME": str(folder)}
        environ = {**own, **ways, **here, "DEMO_API_KEY": SECRET, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-m", "tests.tracking.sealed", "net.log", *command],
            env=environ,
            capture_output=True,
            text=True,
            timeout=500,
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.extra(name)) for name in sorted(READERS)])
def test_a_run_is_in_the_tracker_as_it_is_in_the_ledger(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: Proxy
) -> None:
    monkeypatch.chdir(tmp_path)
    result, said = tracked(tmp_path, proxy, "--track", name)
    assert "warning" not in said
    assert Path("net.log").read_text("utf-8") == ""
    assert proxy.visits == 0
    written = READERS[name](Path("runs/tracking"))
    assert written.succeeded
    assert written.name == result["run_id"]
    assert written.tags["promptassay.run_id"] == result["run_id"]
    assert written.tags["note"] == "[key]"
    assert written.params["models.model"].startswith("openai-compatible/x@")
    assert written.params["seed"] == "0"
    assert written.params["budget.max_calls"] == "300"
    check_curves(written, result)
    columns, rows = written.tables["trials"]
    assert columns[:6] == ["trial", "round", "candidate", "state", "rows", "dev"]
    assert len(rows) == sum(result["trials"].values())
    assert result["winner"]["candidate_id"] in [row[2] for row in rows]
    assert {"report.html", "instruction.txt"} <= set(written.files)
    assert written.files["instruction.txt"].startswith(b"Read the message.")
    check_private(Path("runs/tracking"), written)


def check_curves(written: Written, result: dict[str, Any]) -> None:
    best = [value for _, value in written.curves["best dev by calls"]]
    places = [place for place, _ in written.curves["best dev by calls"]]
    assert best == sorted(best)
    assert best[0] == pytest.approx(result["baseline"]["dev"])
    assert best[-1] >= result["winner"]["dev"] > best[0]
    assert places == sorted(places)
    assert places[-1] == sum(result["calls"].get(role, 0) for role in ("model", "proposer", "cached"))
    cost, _ = written.curves["best dev by cost"][-1]
    assert cost == round(result["cost_usd"] * 10_000)
    assert len(written.curves["dev by trial"]) > 3
    assert written.figures["winner.test"] == pytest.approx(result["winner"]["test"])


def check_private(folder: Path, written: Written) -> None:
    """No text of a row, and no secret, in any file of the tracker or in what it keeps."""
    with open("rows.csv", encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    kept = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for path in folder.rglob("*.zip"):
        with zipfile.ZipFile(path) as archive:
            kept |= {f"{path}/{name}": archive.read(name) for name in archive.namelist()}
    for name, data in {**kept, **written.files}.items():
        assert SECRET.encode() not in data, name
        assert not [text for text in texts if text.encode() in data], name


@pytest.mark.long
def test_texts_of_rows_are_tracked_on_request_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: Proxy
) -> None:
    monkeypatch.chdir(tmp_path)
    result, said = tracked(tmp_path, proxy, "--track", "mlflow", "--track-texts")
    assert "warning" not in said
    written = READERS["mlflow"](Path("runs/tracking"))
    assert written.files["prompt.md"] == Path(result["release"]).read_bytes()
    with open("rows.csv", encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    assert [text for text in texts if text.encode() in written.files["report.html"]]


class Broken:
    """Takes the parameters, and fails at the first point."""

    def __init__(self, start: TrackedStart) -> None:
        self.started = start

    def point(self, curve: str, value: float, axis: str, at: int) -> None:
        raise ConnectionError("the server is gone")

    def summary(self, *_: Any) -> None: ...

    table = file = end = summary


def test_a_tracker_that_fails_never_ends_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(TRACKERS, "_known", {})
    tracker("broken", about="fails")(Broken)

    @tracker("shut", about="does not open")
    def shut(start: TrackedStart) -> Broken:
        raise RuntimeError(f"no key {SECRET}")

    monkeypatch.setenv("DEMO_API_KEY", SECRET)
    with WireServer(learner) as server:
        command = [*files(80), "-m", compatible(server), *CALLS, "--track", "broken", "--track", "shut"]
        done = optimize(*command, "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["status"] == "complete"
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning")]
    assert sorted(warnings) == [
        "warning: broken no longer tracks this run (ConnectionError: the server is gone); the run continues",
        "warning: shut no longer tracks this run (RuntimeError: no key [key]); the run continues",
    ]


def test_a_missing_package_is_refused_before_anything_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("agent.extras.find_spec", lambda module: None)
    with WireServer(learner) as server:
        lines = refused(2, *files(80), "-m", compatible(server), *CALLS, "--track", "wandb")
        assert lines == ['error: --track wandb needs wandb, which is not installed; pip install "promptassay[wandb]"']
        lines = refused(2, *files(80), "-m", compatible(server), *CALLS, "--track-texts")
        assert "name the tracker with --track" in lines[0]
        assert server.requests == []
    assert not Path("runs").exists()


def test_a_check_is_tracked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with WireServer(learner) as server:
        made = good_json(*files(80), "-m", compatible(server), *CALLS)
        checked = good_json("check", made["release"], "--track", "mlflow")
    written = READERS["mlflow"](Path("runs/tracking"))
    assert written.name == checked["run_id"]
    assert written.params["command"] == "check"
    assert written.figures["score.now.mean"] == pytest.approx(checked["score"]["now"]["mean"])
