"""The order of work: which runs there are, each in a child process under a watch, each result written down at once.

Cheap systems come first over all tasks, then ours, then the slow peers, so that a bench that is killed has the most
telling rows. A run that crashes, takes longer than the time limit or makes more than 1.5 times its calls is a result
too: it scores as the prompt that the user came with, which is what such a user is left with.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tests.bench.arena import results
from tests.bench.arena.client import ModelServer
from tests.bench.arena.data import answers
from tests.bench.arena.systems import SYSTEMS, System
from tests.bench.arena.worker import Job, write
from tests.child import ROOT

RUNAWAY = 1.5
SCORING_S = 3600.0
"""Seconds for the scoring on test, which is not the system's time."""
SEARCHING = ("task", "proposer")
TOKENS = ("prompt_tokens", "cached_tokens", "completion_tokens")
PACKAGES = ("promptassay", "dspy", "gepa", "optuna", "litellm", "xllamacpp")


@dataclass(frozen=True, slots=True)
class Arena:
    """What all runs of a bench have in common. `rows` cuts dev and test for smoke runs; `most_s` is for one search;
    `replies` is a file of replies that the runs share."""

    model: str
    data: Path
    most_s: float
    steps: int = 4
    rows: int = 0
    path: Path = results.FILE
    replies: Path | None = None


def schedule(systems: Sequence[str], sets: Sequence[str], seeds: int, model: str, rows: int) -> list[results.Key]:
    """Every run in the order of work: the user's prompt on all tasks, then what is fast, then what is slow; in each,
    the first seed on all tasks before the second; none of a system on a set that it is not made for."""
    chosen = [SYSTEMS[name] for name in dict.fromkeys(("user", *systems))]

    def place(system: System) -> int:
        return 2 if system.slow else 1 if system.budget else 0

    found: list[results.Key] = []
    for rank in (0, 1, 2):
        group = [system for system in chosen if place(system) == rank]
        for seed in range(max((system.seeds or seeds for system in group), default=0)):
            for name in sets:
                found += [
                    (s.name, name, model, s.budget, seed, rows)
                    for s in group
                    if seed < min(s.seeds or seeds, seeds) and answers(name) in s.answers
                ]
    return found


def run_all(
    arena: Arena,
    wanted: Sequence[results.Key],
    weights: Path,
    tell: Callable[[str], None],
    proposer: Path | None = None,
) -> None:
    """Makes the runs that have no result yet."""
    todo = results.open_runs(wanted, results.read(arena.path))
    tell(f"arena: {len(wanted)} runs, {len(wanted) - len(todo)} done before, {len(todo)} to do")
    if not todo:
        return
    began = time.monotonic()
    for extra in dict.fromkeys(SYSTEMS[one[0]].extra for one in todo):
        if extra:
            try:
                import_module(f"tests.bench.arena.systems.{extra}_peers").install()
            except (OSError, subprocess.CalledProcessError) as error:
                tell(f"arena: {extra} cannot be installed ({error}); its systems will be reported as crashed")
    with ModelServer(weights, proposer, arena.replies) as server:
        for number, one in enumerate(todo, 1):
            line = run(arena, server, one)
            results.append(line, arena.path)
            spent = line["calls"].get("task", 0) + line["calls"].get("proposer", 0)
            tell(
                f"[{number}/{len(todo)} {(time.monotonic() - began) / 60:5.1f} min] {one[0]:<17} {one[1]:<14} "
                f"seed {one[4]}  test {100 * line['test']:5.1f}  {spent:>5} calls  {line['seconds']:>6.0f} s  "
                f"{line['happened']}"
            )


def run(arena: Arena, server: ModelServer, one: results.Key) -> results.Line:
    """One run and its result line."""
    system, name, _, budget, seed, rows = one
    tag = f"{system}/{name}/{seed}"
    steps = arena.steps if seed == 0 and SYSTEMS[system].budget else 0
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.jsonl"
        job = Job(system, name, str(arena.data), f"{server.url}/{tag}", budget, seed, steps, rows, str(report))
        happened, seconds = watched(arena, server, tag, job, Path(folder))
        told = heard(report)
    counts = server.counts(tag)
    found, scored = told.get("found", {}), told.get("scored")
    if scored is None:
        scored = {"rows": fallback(arena, one), "steps": [], "note": "", "facts": {}}
    counts = {**apart(counts, found.get("sealed") or {}), **{role: counts[role] for role in counts if role != "task"}}
    return {
        **dict(zip(("system", "set", "model", "budget", "seed", "rows"), one, strict=True)),
        "test": round(scored["rows"].count("1") / max(1, len(scored["rows"])), 4),
        "marks": scored["rows"],
        "calls": {role: count["calls"] for role, count in counts.items()},
        "tokens": {role: {kind: count[kind] for kind in TOKENS} for role, count in counts.items()},
        "prompt_tokens_per_call": scored["facts"].get("prompt_tokens") or per_call(counts.get("score", {})),
        "seconds": found.get("seconds", seconds),
        "cores": cores(),
        "steps": scored["steps"],
        "happened": happened,
        "note": scored["note"],
        "facts": scored["facts"],
        "versions": versions(),
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def heard(report: Path) -> dict[str, Any]:
    """What the child wrote; a line that its end cut off is no word."""
    told: dict[str, Any] = {}
    for text in report.read_text("utf-8").splitlines() if report.is_file() else ():
        with contextlib.suppress(ValueError):
            told |= json.loads(text)
    return told


def watched(arena: Arena, server: ModelServer, tag: str, job: Job, folder: Path) -> tuple[str, float]:
    """Runs the child. Returns what happened ("ok", "crash: ...", "stopped: ...") and the seconds it took."""
    path, errors = folder / "job.json", folder / "stderr"
    write(job, path)
    started = time.monotonic()
    with errors.open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.arena.worker", str(path)],
            cwd=ROOT,
            env=environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            why = watch(arena, server, tag, job, child, started)
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
    seconds = round(time.monotonic() - started, 1)
    if why:
        return f"stopped: {why}", seconds
    if child.returncode:
        return f"crash: {last_words(errors.read_text('utf-8', 'replace'))}", seconds
    return "ok", seconds


def watch(arena: Arena, server: ModelServer, tag: str, job: Job, child: subprocess.Popen[bytes], started: float) -> str:
    """Waits for the child's end; returns why it must be stopped, "" when it ended by itself."""
    report = Path(job.report)
    while True:
        try:
            child.wait(2.0)
            return ""
        except subprocess.TimeoutExpired:
            pass
        seconds = time.monotonic() - started
        if report.is_file():  # the search is over
            if seconds > arena.most_s + SCORING_S:
                return "the scoring did not end"
            continue
        if seconds > arena.most_s:
            return f"time limit of {arena.most_s / 60:.0f} minutes"
        counts = server.counts(tag)
        calls = sum(counts[role]["calls"] for role in SEARCHING if role in counts)
        most = RUNAWAY * job.budget + (2 * 200 if job.system.startswith("ours") else 0)  # its sealed test comes on top
        if calls > most:
            return f"{calls} calls of {job.budget}"


def fallback(arena: Arena, one: results.Key) -> str:
    """The user's prompt on the same test rows: what is left when a search gives nothing."""
    for line in results.read(arena.path):
        if (line["system"], line["set"], line["model"], line.get("rows", 0)) == ("user", one[1], one[2], one[5]):
            return str(line["marks"])
    return ""


def environment(folder: Path) -> dict[str, str]:
    """Ours without proxies, keys and caches of others."""
    foreign = ("OPENAI_", "ANTHROPIC_", "LANGSMITH_", "LANGCHAIN_", "DSPY_", "LITELLM_")
    kept = {n: v for n, v in os.environ.items() if not n.lower().endswith("_proxy") and not n.startswith(foreign)}
    return {**kept, "DSPY_CACHEDIR": str(folder / "dspy"), "PYTHONUNBUFFERED": "1"}


def last_words(text: str) -> str:
    """The last line that names an exception, shortened."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [
        line for line in lines if ("Error" in line or "Exception" in line) and not line.startswith(("File ", "raise "))
    ]
    return (named or lines or ["no word"])[-1][:200]


def apart(counts: dict[str, dict[str, int]], sealed: dict[str, int]) -> dict[str, dict[str, int]]:
    """The counts of role `task`, and what of them went into a sealed test as role `sealed`."""
    task = counts.get("task", {})
    kinds = ("calls", *TOKENS)
    search = {kind: task.get(kind, 0) - sealed.get(kind, 0) for kind in kinds}
    return {"task": search, **({"sealed": {kind: sealed[kind] for kind in kinds}} if sealed else {})}


def per_call(count: dict[str, int]) -> float:
    return round(count["prompt_tokens"] / count["calls"], 1) if count.get("calls") else 0.0


def cores() -> int:
    """That this process and its children may use (`taskset` takes some away)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions() -> dict[str, str]:
    return dict(_versions())


def _versions() -> Iterator[tuple[str, str]]:
    yield "python", ".".join(map(str, sys.version_info[:3]))
    described = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    yield "commit", described.stdout.strip() or "unknown"
    for name in PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue
