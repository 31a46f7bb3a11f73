"""A run in trackers such as MLflow, and as spans of OpenTelemetry, while it goes on. What a tracker cannot take never
ends a run: it is said once, and the run goes on.

Only numbers, names and prompts are tracked. Texts of rows (demos and replies among them) are, with `texts` alone.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from agent.errors import AgentError, InputError, message_of
from agent.extras import require
from agent.observer import Observer
from agent.redact import redact, secrets_in
from agent.run.tracked_files import tracked_files
from agent.tracking.tracker import TRACKERS, Cell, TrackedStart, Tracker, TrackerKind

if TYPE_CHECKING:
    from agent.gateway.budget import Account
    from agent.run.job import Job, LedgerRun
    from agent.run.launch import Launch
    from agent.types import Task, Trial

LAST_SECONDS = 60.0
"""How long a run waits at its end for a tracker that has not taken everything."""
COLUMNS = ("trial", "round", "candidate", "state", "rows", "dev", "ci_low", "ci_high", "reason")
RUN_ID = "promptassay.run_id"
FOLDER = "tracking"
"""Beside the ledger, what trackers keep on this machine."""


@dataclass(frozen=True, slots=True)
class Tracking:
    """Where a run is shown beside its ledger, as the user chose. Made before tracing of third parties is switched off.

    Args:
        kinds: the trackers.
        texts: whether texts of rows are tracked, too.
        environ: the user's environment variables.
    """

    kinds: tuple[TrackerKind, ...] = ()
    texts: bool = False
    environ: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)

    @classmethod
    def of(cls, names: str | Sequence[str], texts: bool = False) -> Tracking:
        """From names of trackers. Raises InputError for one that there is none of, or whose package is missing."""
        each = dict.fromkeys([names] if isinstance(names, str) else names)
        kinds = tuple(TRACKERS.get(name) for name in each)
        for kind in kinds:
            if kind.extra:
                require(kind.extra, f"--track {kind.name}")
        if texts and not kinds:
            raise InputError("--track-texts: names what a tracker gets; name the tracker with --track")
        return cls(kinds, texts, MappingProxyType(dict(os.environ)))


NO_TRACKING = Tracking()


class _Line:
    """One tracker of one run, in a thread of its own: a server that is slow or gone does not hold up the run."""

    def __init__(self, kind: TrackerKind, start: TrackedStart) -> None:
        self.name, self.fault = kind.name, ""
        self._tasks: queue.SimpleQueue[Callable[[Tracker], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, args=(kind, start), name=f"track {kind.name}", daemon=True)
        self._thread.start()

    def put(self, task: Callable[[Tracker], None]) -> None:
        self._tasks.put(task)

    def close(self) -> None:
        self._tasks.put(None)
        self._thread.join(LAST_SECONDS)
        if self._thread.is_alive():
            self.fault = self.fault or f"did not end within {LAST_SECONDS:.0f} s"

    def _work(self, kind: TrackerKind, start: TrackedStart) -> None:
        try:
            tracker = kind.begin(start)
            while (task := self._tasks.get()) is not None:
                task(tracker)
        except (Exception, SystemExit) as error:
            why = " ".join(redact(message_of(error), secrets_in(start.environ)).split())[:300]
            self.fault = why or type(error).__name__


class TrackedRun(Observer):
    """Passes what happens in one run on to its trackers."""

    def __init__(self, tracking: Tracking, db: Path, warn: Callable[[str], None]) -> None:
        self._tracking, self._db, self._warn = tracking, db, warn
        self._secrets = secrets_in(tracking.environ)
        self._lines: list[_Line] = []
        self._told: set[str] = set()
        self._account: Account | None = None
        self._trials: dict[int, Trial] = {}
        self._run_id, self._best, self._succeeded = "", float("-inf"), False

    def begin(self, run: LedgerRun[Any], params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Opens the run in each tracker, and follows it from now on.

        Args:
            run: before its start.
            params: what it was begun with, JSON-ready.
            tags: the user's labels of it.
        """
        if not self._tracking.kinds:
            return
        self._run_id, self._account = run.id, run.account
        given = {name: self._cell(value) for name, value in flat(params).items() if value is not None}
        labels = {RUN_ID: run.id, **{name: self._clean(value) for name, value in tags.items()}}
        folder, environ = self._db.parent / FOLDER, self._tracking.environ
        start = TrackedStart(run.id, run.task.name, given, labels, folder, environ)
        self._lines = [_Line(kind, start) for kind in self._tracking.kinds]
        run.observe(self)

    def on_trial_updated(self, trial: Trial) -> None:
        before = self._trials.get(trial.number)
        self._trials[trial.number] = trial
        settled = trial.state != "incomplete" and (before is None or before.state != trial.state)
        if settled and trial.mean is not None:
            self._point("dev by trial", trial.mean, "trial", trial.number)
            if trial.state == "complete" and trial.mean > self._best:
                self._best = trial.mean
                self._mark_best()

    def on_stage_started(self, name: str, round_: int) -> None:
        self._mark_best()

    def finish(self, result: Mapping[str, Any]) -> None:
        """What came of the run: figures, tables, report and prompt. `result` is the object of the command's --json."""
        if not self._lines:
            return
        self._succeeded = True
        self._mark_best()
        figures = {name: float(value) for name, value in flat(result).items() if _is_number(value)}
        self._all(lambda tracker: tracker.summary(figures))
        if self._trials:
            rows = [self._row(trial) for _, trial in sorted(self._trials.items())]
            self._all(lambda tracker: tracker.table("trials", COLUMNS, rows))
        with suppress(AgentError):  # a kind of run without a report
            tables, files = tracked_files(self._run_id, result, self._db, self._tracking.texts)
            for name, columns, cells in tables:
                clean = [[self._cell(cell) for cell in row] for row in cells]
                self._all(lambda tracker, name=name, columns=columns, clean=clean: tracker.table(name, columns, clean))  # type: ignore[misc]
            for path in files:
                self._all(lambda tracker, path=path: tracker.file(path))  # type: ignore[misc]

    def close(self) -> None:
        """Waits until the trackers have taken everything, but not for ever."""
        self._all(lambda tracker: tracker.end(self._succeeded))
        for line in self._lines:
            line.close()
        self._tell()

    def _mark_best(self) -> None:
        if self._account is None or self._best == float("-inf"):
            return
        spent = self._account.total_paid
        self._point("best dev by calls", self._best, "calls", self._account.total_used.calls)
        self._point("best dev by cost", self._best, "hundredths of a cent", round(spent.usd * 10_000))

    def _point(self, curve: str, value: float, axis: str, at: int) -> None:
        self._all(lambda tracker: tracker.point(curve, value, axis, at))

    def _all(self, task: Callable[[Tracker], None]) -> None:
        self._tell()
        for line in self._lines:
            if not line.fault:
                line.put(task)

    def _tell(self) -> None:
        """Says of each tracker that failed, once, why."""
        for line in self._lines:
            if line.fault and line.name not in self._told:
                self._told.add(line.name)
                self._warn(f"warning: {line.name} does not track this run any more ({line.fault}); the run goes on")

    def _row(self, trial: Trial) -> list[Cell]:
        low, high = trial.ci95 or (None, None)
        reason = self._clean(trial.reason)
        found = (trial.number, trial.round, trial.candidate_id, trial.state, trial.n, trial.mean, low, high, reason)
        return list(found)

    def _cell(self, value: Any) -> Cell:
        return value if value is None or isinstance(value, int | float) else self._clean(str(value))

    def _clean(self, text: str) -> str:
        return redact(text, self._secrets)


@contextmanager
def tracked(tracking: Tracking, db: Path, warn: Callable[[str], None]) -> Iterator[TrackedRun]:
    """A run that is tracked until the end of the block, however it ends."""
    run = TrackedRun(tracking, db, warn)
    try:
        yield run
    finally:
        run.close()


def search_params(launch: Launch) -> dict[str, Any]:
    """What a search was begun with, as trackers show it."""
    from agent.ledger.provenance import tool_version

    settings = launch.settings
    return {
        "task": launch.task.name,
        "models": {role: list(names) for role, names in launch.models_by_role().items()},
        "budget": asdict(settings.budget),
        "seed": settings.seed,
        "strategy": settings.strategy,
        "effort": settings.effort,
        "prefer": settings.prefer,
        "trials": settings.trials,
        "rows": _rows(launch.task),
        "hashes": dict(launch.task.hashes),
        "promptassay": tool_version(),
    }


def job_params(job: Job, models: Sequence[str]) -> dict[str, Any]:
    """What a run that is no search was begun with, as trackers show it."""
    from agent.ledger.provenance import tool_version

    return {
        "command": job.command,
        "task": job.task.name,
        "models": list(models),
        "budget": asdict(job.account.budget),
        "rows": _rows(job.task),
        "hashes": dict(job.task.hashes),
        "promptassay": tool_version(),
    }


def _rows(task: Task) -> dict[str, int]:
    return {"train": len(task.train), "dev": len(task.dev), "test": len(task.test)}


def flat(found: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    """Nested mappings as one, lists joined.

    >>> flat({"a": {"b": 1}, "c": [2, 3]})
    {'a.b': 1, 'c': '2, 3'}
    """
    flattened: dict[str, Any] = {}
    for name, value in found.items():
        if isinstance(value, Mapping):
            flattened |= flat(value, f"{start}{name}.")
        else:
            flattened[f"{start}{name}"] = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
    return flattened


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
