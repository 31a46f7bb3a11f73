"""The smallest task, ledger and models that the tests of the upper layers share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from agent.evaluate.breakdown import BASELINE, WINNER
from agent.evaluate.score_table import ScoreTable
from agent.jobs.launch import Launch, resolved
from agent.jobs.optimize import RunState
from agent.ledger.store import Ledger, NewRun
from agent.options.run import RecordedOptions
from agent.programs.kinds import Kind, program_for
from agent.release.result import RunResult
from agent.types import (
    LM,
    Completion,
    Constraints,
    Example,
    Field,
    Message,
    MetricSpec,
    Outcome,
    Request,
    SearchSpace,
    Signature,
    Task,
    Usage,
)

T = TypeVar("T")
TEAMS = ("billing", "delivery", "refunds")
SIGNATURE = Signature((Field("message"),), (Field("team", "choice", choices=TEAMS),))


def launched(task: Task, target: LM, proposer: LM | None = None, **options: object) -> Launch:
    """A run of a task on a model that is ready to start; without `calibrate` its finalists get no calibration."""
    return launch_of(program_for(task, target), target, proposer, **options)


def launch_of(program: Kind, target: LM, proposer: LM | None = None, **options: object) -> Launch:
    """The same of a program that was made."""
    asked = RecordedOptions(**{"calibrate": False, **options})
    return Launch(program.task, target, proposer, (), asked, resolved(asked, program), program)


async def executed(launch: Launch, ledger: Ledger) -> tuple[RunState, RunResult]:
    """A run from its start to its end."""
    state = RunState.of(launch)
    return state, await state.open(ledger).execute()


def row(split: str, number: int) -> Example:
    """A row whose class is `number` modulo the classes."""
    team = TEAMS[number % len(TEAMS)]
    return Example(
        f"{split}-{number}", {"message": f"{split} note {number} on {team} {'again ' * (number % 4)}"}, {"team": team}
    )


def make_task(rows: int = 12, **changes: object) -> Task:
    """A choice task with `rows` rows a split; `changes` replace fields of it."""
    task = Task(
        name="toy",
        description="Route a message to a team.",
        signature=SIGNATURE,
        instruction="Answer with one team.",
        metrics=(MetricSpec("exact_match", "team"),),
        space=SearchSpace(("zero-shot", "few-shot"), ("turns", "inline"), (3, 6)),
        constraints=Constraints(),
        train=tuple(row("train", n) for n in range(rows)),
        dev=tuple(row("dev", n) for n in range(rows)),
        test=tuple(row("test", n) for n in range(rows)),
        folder="toy",
    )
    return replace(task, **changes)  # type: ignore[arg-type]


def open_ledger(path: Path, run_id: str = "run-1") -> Ledger:
    """A ledger with one open run."""
    ledger = Ledger(path)
    ledger.begin_run(NewRun(run_id, make_task(), "m"))
    return ledger


def ask(text: str, max_tokens: int = 8, **more: object) -> Request:
    return Request(messages=(Message("user", text),), max_tokens=max_tokens, **more)  # type: ignore[arg-type]


class FakeModel:
    """`answer(request)` gives the reply or raises. `seen` are the requests in order of arrival."""

    def __init__(self, answer: Callable[[Request], str], name: str = "fake/m", concurrency: int | None = None) -> None:
        self.name = name
        self.concurrency = concurrency
        self.seen: list[Request] = []
        self._answer = answer

    async def complete(self, request: Request) -> Completion:
        self.seen.append(request)
        text = self._answer(request)
        words = sum(self.count_tokens(message.content) for message in request.messages)
        return Completion(text, "stop", Usage(words, self.count_tokens(text)), self.name)

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    async def close(self) -> None:
        return None


class GatedModel(FakeModel):
    """A model that takes requests and answers none before `open` is set."""

    def __init__(self, answer: Callable[[Request], str], name: str = "fake/m", concurrency: int | None = None) -> None:
        super().__init__(answer, name, concurrency)
        self.open = asyncio.Event()
        self.arrived = 0

    async def complete(self, request: Request) -> Completion:
        self.arrived += 1
        await self.open.wait()
        return await super().complete(request)


async def until(holds: Callable[[], object]) -> None:
    """Lets others run until `holds()`; a test that waits for ever fails after ten seconds."""
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.001)


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def beside_the_loop(function: Callable[..., T]) -> Callable[..., T]:
    """`function`, which does its work once the event loop got a turn meanwhile; fails where it holds the loop."""
    loop = asyncio.get_running_loop()

    def called(*given: Any) -> T:
        turned = threading.Event()
        loop.call_soon_threadsafe(turned.set)
        assert turned.wait(10), "it holds the event loop"
        return function(*given)

    return called


def two_sides(rows: Sequence[Example], won: Sequence[Outcome], based: Sequence[Outcome]) -> ScoreTable:
    """The sealed rows, as the winner and the baseline answered them."""
    return ScoreTable.of({WINNER: [won], BASELINE: [based]}, rows)
