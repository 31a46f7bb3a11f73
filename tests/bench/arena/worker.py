"""One system on one task with one seed, in its own process: searches, then has the prompt it found scored on test.

    python -m tests.bench.arena.worker JOB.json

Two lines of JSON go to the file named in the job as they come: {"found": ...} when the search is over, {"scored": ...}
at the end. Whatever the packages print goes to stderr. A failure of the search leaves with its traceback; it is the
parent that makes a result of it. Only 127.0.0.1 may be reached.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.types import Example, Task
from tests.bench.arena.data import load, right, scorer
from tests.bench.arena.systems import SYSTEMS
from tests.bench.arena.systems.base import Found, Prompt, Step

STEP_ROWS = 100
"""Test rows that an incumbent on the way is scored on."""
OFFLINE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_OFFLINE_MODE": "True", "HF_HUB_OFFLINE": "1"}


@dataclass(frozen=True, slots=True)
class Job:
    """`url` is the server's with the run's tag; `steps` incumbents at most are scored; `rows` cuts dev and test."""

    system: str
    task: str
    data: str
    url: str
    budget: int
    seed: int
    steps: int
    rows: int
    report: str


def cut(task: Task, rows: int) -> Task:
    """The task with at most `rows` rows of dev and test, for smoke runs; 0: all."""
    from dataclasses import replace

    return replace(task, dev=task.dev[:rows], test=task.test[:rows]) if rows else task


def work(job: Job) -> None:
    task = cut(load(job.task, Path(job.data)), job.rows)
    started = time.monotonic()
    found = SYSTEMS[job.system].load()(task, job.url, job.budget, job.seed)
    tell(job, {"found": {"seconds": round(time.monotonic() - started, 1), "sealed": found.sealed}})
    tell(job, {"scored": {"rows": on_test(task, job.url, found.prompt, task.test), **scored(job, task, found)}})


def on_test(task: Task, url: str, prompt: Prompt, rows: Sequence[Example]) -> str:
    return scorer(task).marks(prompt.replies(url, "score", rows), right(task, rows))


def scored(job: Job, task: Task, found: Found) -> dict[str, Any]:
    """What is known of the search besides its score."""
    rows, known, steps = task.test[:STEP_ROWS], {}, []
    for step in thinned(found.steps, job.steps):
        if step.prompt.key not in known:
            known[step.prompt.key] = on_test(task, f"{job.url}/step", step.prompt, rows)
        steps.append([step.calls, round(known[step.prompt.key].count("1") / len(rows), 4)])
    return {"steps": steps, "note": found.note, "facts": found.facts}


def thinned(steps: Sequence[Step], most: int) -> list[Step]:
    """At most `most` of the steps, the last one always and the others spread evenly."""
    if len(steps) <= most:
        return list(steps)
    if most < 2:
        return list(steps[-1:]) if most else []
    return [steps[round(number * (len(steps) - 1) / (most - 1))] for number in range(most)]


def tell(job: Job, what: dict[str, Any]) -> None:
    with Path(job.report).open("a", encoding="utf-8") as out:
        out.write(json.dumps(what) + "\n")


def stay_home() -> None:
    """Refuses every address but this machine's own."""

    def look(event: str, args: tuple[Any, ...]) -> None:
        host: Any = None
        if event == "socket.connect" and isinstance(args[1], tuple):
            host = args[1][0]
        elif event == "socket.getaddrinfo":
            host = args[0]
        if host not in (None, "127.0.0.1", b"127.0.0.1", "localhost", "::1"):
            raise OSError(f"{host}: the arena reaches nothing but 127.0.0.1")

    sys.addaudithook(look)


def main(path: str) -> None:
    os.environ.update(OFFLINE)
    stay_home()
    work(Job(**json.loads(Path(path).read_text("utf-8"))))


def write(job: Job, path: Path) -> None:
    path.write_text(json.dumps(asdict(job)), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
