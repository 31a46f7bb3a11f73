"""One contract for all trackers: a run is in it as in the ledger, without texts of rows; a fault never ends a run."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
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


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEMO_API_KEY", SECRET)


class Kept:
    """A tracker that keeps what it gets in `runs`, the newest last."""

    runs: list[Written] = []  # noqa: RUF012

    def __init__(self, start: TrackedStart) -> None:
        params = {name: str(value) for name, value in start.params.items()}
        self._run = Written(start.run_id, params, dict(start.tags))
        self.runs.append(self._run)

    def point(self, curve: str, value: float, axis: str, at: int) -> None:
        self._run.curves.setdefault(curve, []).append((at, value))

    def summary(self, figures: dict[str, float]) -> None:
        self._run.figures |= figures

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self._run.tables[name] = (list(columns), [list(row) for row in rows])

    def file(self, path: Path) -> None:
        self._run.files[path.name] = path.read_bytes()

    def end(self, succeeded: bool) -> None:
        self._run.succeeded = succeeded


@contextmanager
def registered(**kinds: Any) -> Iterator[None]:
    """Trackers of this test only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TRACKERS, "_known", dict(TRACKERS._known))
        for name, begin in kinds.items():
            tracker(name, about="of a test")(begin)
        yield


def row_texts() -> list[str]:
    with open("rows.csv", encoding="utf-8", newline="") as file:
        return [row["text"] for row in csv.DictReader(file)]


def check(written: Written, result: dict[str, Any]) -> None:
    """What each tracker has of a run."""
    assert (written.succeeded, written.name) == (True, result["run_id"])
    assert (written.tags["promptassay.run_id"], written.tags["note"]) == (result["run_id"], "[key]")
    assert written.params["models.model"].startswith("openai-compatible/x@")
    assert (written.params["seed"], written.params["budget.max_calls"]) == ("0", "300")
    best = [value for _, value in written.curves["best dev by calls"]]
    places = [place for place, _ in written.curves["best dev by calls"]]
    assert (best, places) == (sorted(best), sorted(places))
    assert best[0] == pytest.approx(result["baseline"]["dev"])
    assert best[-1] >= result["winner"]["dev"] > best[0]
    assert places[-1] == sum(result["calls"].get(role, 0) for role in ("model", "proposer", "cached"))
    assert written.curves["best dev by cost"][-1][0] == round(result["cost_usd"] * 10_000)
    assert len(written.curves["dev by trial"]) > 3
    assert written.figures["winner.test"] == pytest.approx(result["winner"]["test"])
    columns, rows = written.tables["trials"]
    assert columns[:6] == ["trial", "round", "candidate", "state", "rows", "dev"]
    assert len(rows) == sum(result["trials"].values())
    assert result["winner"]["candidate_id"] in [row[2] for row in rows]
    assert b"Read the message." in (written.files.get("instruction.txt") or written.files["prompt.md"])
    for name, data in written.files.items():
        assert SECRET.encode() not in data, name


@pytest.mark.parametrize("more", [(), ("--track-texts",)])
def test_a_run_and_a_check_are_tracked_and_texts_of_rows_on_request_alone(more: tuple[str, ...]) -> None:
    with registered(memory=Kept), WireServer(learner) as server:
        command = [*files(80), "-m", compatible(server), *CALLS, "--tag", f"note={SECRET}", "--track", "memory", *more]
        result = good_json(*command)
        check(Kept.runs[-1], result)
        found = [text for text in row_texts() if text.encode() in Kept.runs[-1].files["report.html"]]
        assert bool(found) == ("prompt.md" in Kept.runs[-1].files) == bool(more)
        checked = good_json("check", result["release"], "--track", "memory")
    assert (Kept.runs[-1].name, Kept.runs[-1].params["command"]) == (checked["run_id"], "check")
    assert Kept.runs[-1].figures["score.now.mean"] == pytest.approx(checked["score"]["now"]["mean"])


@pytest.mark.parametrize(
    "name", ["mlflow", *(pytest.param(name, marks=pytest.mark.extra(name)) for name in ("clearml", "wandb"))]
)
def test_a_tracker_writes_on_this_machine_alone(name: str, tmp_path: Path) -> None:
    """In a process that may reach nothing else: its own connections are refused, those of helpers go to a proxy."""
    assert {*READERS} == {*TRACKERS.names()}, "every tracker is held to it"
    with closing(socket.create_server(("127.0.0.1", 0))) as proxy, WireServer(learner) as server:
        proxy.settimeout(0.1)
        command = [*files(80), "-m", compatible(server), *CALLS, "--tag", f"note={SECRET}", "--track", name, "--json"]
        own = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB", "CLEARML", "MLFLOW"))}
        url, here = f"http://127.0.0.1:{proxy.getsockname()[1]}", "127.0.0.1,localhost"
        ways = dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"), url)
        environ = {**own, **ways, "NO_PROXY": here, "no_proxy": here, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
        argv = [sys.executable, "-m", "tests.tracking.sealed", "net.log", *command]
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=500)
        with pytest.raises(TimeoutError):
            proxy.accept()
    assert done.returncode == 0, done.stderr
    assert ("warning" in done.stderr, Path("net.log").read_text("utf-8")) == (False, "")
    folder = Path("runs/tracking")
    check(READERS[name](folder), json.loads(done.stdout))
    kept = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for path in folder.rglob("*.zip"):
        with zipfile.ZipFile(path) as archive:
            kept |= {f"{path}/{each}": archive.read(each) for each in archive.namelist()}
    for file, data in kept.items():
        assert SECRET.encode() not in data, file
        assert not [text for text in row_texts() if text.encode() in data], file


class Broken(Kept):
    """Opens, and fails at the first point."""

    def point(self, *_: Any) -> None:
        raise ConnectionError("the server is gone")


def test_a_tracker_that_fails_never_ends_a_run() -> None:
    def shut(start: TrackedStart) -> Kept:
        raise RuntimeError(f"no key {SECRET}")

    with registered(broken=Broken, shut=shut), WireServer(learner) as server:
        command = [*files(80), "-m", compatible(server), *CALLS, "--track", "broken", "--track", "shut"]
        done = optimize(*command, "--json")
    assert (done.exit_code, json.loads(done.stdout)["status"]) == (0, "complete")
    warnings = sorted(line for line in done.stderr.splitlines() if line.startswith("warning"))
    assert len(warnings) == 2
    assert "broken no longer tracks this run (ConnectionError: the server is gone)" in warnings[0]
    assert "shut no longer tracks this run (RuntimeError: no key [key])" in warnings[1]


def test_what_cannot_be_tracked_is_refused_before_anything_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.extras.find_spec", lambda module: None)
    with WireServer(learner) as server:
        command = [*files(80), "-m", compatible(server), *CALLS]
        assert 'pip install "promptassay[wandb]"' in refused(2, *command, "--track", "wandb")[0]
        assert "name the tracker with --track" in refused(2, *command, "--track-texts")[0]
        assert server.requests == []
    assert not Path("runs").exists()
