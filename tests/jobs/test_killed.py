"""Each job that asks models, killed in the middle and typed again: no settled call is bought twice."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from agent.jobs import JOBS
from agent.jobs.registry import Work
from tests.cli.judges import PlantedJudge, write_labels
from tests.cli.world import compatible, files, good, good_json, learner, optimize
from tests.warm import start
from tests.wire import Fault, WireServer

SLOW = 0.02
SEARCH = ["--proposer", "none", "--max-calls", "120", "--seed", "1"]
SWEEP = """\
tasks = ["rows.csv"]
models = ["{model}"]
seeds = [0]

[options]
target = "label"
prompt = "p.txt"
max_calls = 90
trials = 2
max_concurrency = 1
"""


JUDGE = PlantedJudge()


def _answer(messages: list[dict[str, Any]], body: dict[str, Any]) -> Fault:
    answer = JUDGE if "strict and fair judge" in messages[0]["content"] else learner
    said = answer(messages, body)
    return Fault(text=said if isinstance(said, str) else said.text, delay=SLOW)


def _search(model: str) -> str:
    """A finished search in the ledger; its id."""
    run: str = good_json(*files(120), "-m", model, *SEARCH, "-q")["run_id"]
    return run


def _run(model: str) -> list[str]:
    return [*files(120), "-m", model, *SEARCH]


def _migrate(model: str) -> list[str]:
    return ["migrate", _search(model), "-m", model.replace("/x@", "/y@"), "--max-calls", "120", "--margin", "10"]


def _transfer(model: str) -> list[str]:
    return ["transfer", _search(model), "--models", model.replace("/x@", "/y@"), "--top", "2"]


def _apply(model: str) -> list[str]:
    run = _search(model)
    Path("mail.csv").write_text("text\n" + "".join(f"invoice number {n}\n" for n in range(40)), "utf-8")
    return ["apply", run, "mail.csv", "-o", "answers.csv"]


def _calibrate(model: str) -> list[str]:
    write_labels(Path("ratings.jsonl"), 36)
    words = ["judge", "calibrate", "--labels", "ratings.jsonl", "--input", "question", "--output", "answer"]
    return [*words, "--judge", model, "--repeats", "2"]


def _customize(model: str) -> list[str]:
    run = _search(model)
    words = [*files(120)[1:], "-m", model, "--seed", "1", "--run", run, "--arms", "best,retrieved,no-model"]
    return ["customize", *words]


def _sweep(model: str) -> list[str]:
    files(120)
    Path("small.toml").write_text(SWEEP.format(model=model), "utf-8")
    return ["sweep", "small.toml", "--jobs", "1"]


def _check(model: str) -> list[str]:
    return ["check", _search(model), "--repeats", "2"]


def _bless(model: str) -> list[str]:
    return ["bless", _search(model), "--reason", "first release", "--repeats", "2"]


CASES: dict[str, Callable[[str], list[str]]] = {
    "run": _run,
    "migrate": _migrate,
    "transfer": _transfer,
    "apply": _apply,
    "judge calibrate": _calibrate,
    "customize": _customize,
    "sweep": _sweep,
    "check": _check,
    "bless": _bless,
}
OF_OTHERS = {"resume", "demo", "init", "label"}
"""`resume` is what a killed run is typed again with, `demo` is a run, and drafts and labels have tests of their own."""


def _asks(name: str) -> bool:
    """Whether a job returns work for models."""
    kinds = [get_type_hints(JOBS.get(name).function).get("return")]
    for kind in kinds:
        kinds += get_args(kind)
    return any(kind is Work or getattr(kind, "__origin__", None) is Work for kind in kinds) or bool(JOBS.get(name).asks)


def test_every_job_that_asks_models_is_here() -> None:
    assert {name for name in JOBS.names() if _asks(name)} <= {*CASES, *OF_OTHERS}


@pytest.mark.parametrize(("name", "share"), [*((name, 0.5) for name in CASES), ("run", 0.2), ("run", 0.9)])
def test_a_killed_job_buys_no_settled_call_again(name: str, share: float) -> None:
    one_at_a_time = [] if name == "sweep" else ["--max-concurrency", "1"]
    with WireServer(_answer) as server:
        words = [
            *CASES[name](compatible(server)),
            "-q",
            *([] if name == "sweep" else ["--price", "1,2"]),
            *one_at_a_time,
        ]
        before = Path("before")
        if Path("runs").exists():
            shutil.copytree("runs", before)
        at = len(server.requests)
        good(*words)
        whole = len(server.requests) - at
        shutil.rmtree("runs")
        if before.exists():
            shutil.copytree(before, "runs")
        at = len(server.requests)
        process = start(*words)
        _wait(server, at + int(whole * share))
        process.kill()
        process.wait(60)
        asked = len(server.requests) - at
        assert 0 < asked < whole
        _again(["resume", "-q"] if name in ("run", "migrate") else words)
        assert whole <= len(server.requests) - at <= whole + 1, "only the call in flight at the kill may be asked again"


@pytest.mark.parametrize("make", [_check, _bless])
def test_what_finished_is_asked_afresh(make: Callable[[str], list[str]]) -> None:
    """Also the replies that a killed command left count once: for the one that continues it."""
    with WireServer(_answer) as server:
        words = [*make(compatible(server)), "-q", "--price", "1,2", "--max-concurrency", "1"]
        process = start(*words)
        before = len(server.requests)
        _wait(server, before + 10)
        process.kill()
        process.wait(60)
        good(*words)
        at = len(server.requests)
        calls = good_json(*words)["calls"]
        assert calls == {"model": len(server.requests) - at, "cached": 0}


def _again(words: list[str]) -> None:
    """Type the command again; the cell of a killed sweep runs to its own end first."""
    deadline = time.monotonic() + 60
    while (done := optimize(*words)).exit_code and "another process runs this cell" in done.output:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert done.exit_code == 0, done.output


def _wait(server: WireServer, requests: int) -> None:
    deadline = time.monotonic() + 60
    while len(server.requests) < requests and time.monotonic() < deadline:
        time.sleep(0.002)


def test_what_a_kill_leaves_is_said() -> None:
    """A killed search is listed as such."""
    with WireServer(_answer) as server:
        process = start(*_run(compatible(server)), "-q", "--price", "1,2", "--max-concurrency", "1")
        _wait(server, 30)
        process.kill()
        process.wait(60)
    assert "\tkilled\t" in optimize("runs").output
