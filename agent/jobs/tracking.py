"""Show a run in trackers such as MLflow, and as OpenTelemetry spans; texts of rows only with `texts`.

A tracker's failure never ends a run: it is reported once.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from operator import methodcaller
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agent.errors import InputError, message_of
from agent.extras import require
from agent.gateway.budget import Account
from agent.jobs.locations import open_history
from agent.ledger.provenance import tool_version
from agent.ledger.query import run_folder
from agent.observer import Observer
from agent.options.shared import TrackOptions
from agent.redact import ALLOW_TRACING, redact, secrets_in
from agent.release.prompt_file import holds_prompt
from agent.release.result import search_result
from agent.report.html import report_html
from agent.report.view import RunView, RunWithoutRows, holds_rows
from agent.results.base import Result
from agent.results.customize import CustomizeResult
from agent.safe_file import new_file
from agent.tracking.spans import ENDPOINT, RunSpans, provider_for, traces_url
from agent.tracking.tracker import TRACKERS, Cell, TrackedStart, Tracker, TrackerKind
from agent.types import Budget, Task, Trial

if TYPE_CHECKING:
    from agent.jobs.session import Session
LAST_SECONDS = 60.0
"""How long a run waits at its end for a slow tracker."""
COLUMNS = ("trial", "round", "candidate", "state", "rows", "dev", "ci_low", "ci_high", "reason")
RUN_ID = "promptassay.run_id"
FOLDER = "tracking"
"""Files of trackers on this machine, next to the ledger."""
FILES = "tracked"
"""The files for trackers, in the folder of a run."""
ARM_COLUMNS = ("arm", "family", "test", "diff", "labels", "train_s", "tokens_per_call", "usd_per_1000", "latency_s")
Table = tuple[str, Sequence[str], Sequence[Sequence[Any]]]


@dataclass(frozen=True, slots=True)
class Tracking:
    """Where a run is shown in addition to its ledger; made before tracing of third parties is switched off.

    `texts`: whether texts of rows are tracked, too. `spans_url`: where OpenTelemetry spans are sent; "": nowhere.
    """

    kinds: tuple[TrackerKind, ...] = ()
    texts: bool = False
    spans_url: str = ""
    environ: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)

    @classmethod
    def of(cls, options: TrackOptions) -> Tracking:
        """Read the options (`trace` env: OTEL_EXPORTER_OTLP_ENDPOINT).

        Raises InputError for an unknown tracker, an invalid address, or a missing package.
        """
        texts, trace = options.track_texts, options.trace
        kinds = tuple(TRACKERS.get(name) for name in dict.fromkeys(options.track))
        for kind in kinds:
            if kind.extra:
                require(kind.extra, f"--track {kind.name}")
        if texts and not kinds:
            raise InputError("--track-texts: says what a tracker gets; name the tracker with --track")
        if url := _spans_url(trace or ""):
            require("otel", f"--trace {trace}" if trace else f"{ALLOW_TRACING}=1 with {ENDPOINT}")
        return cls(kinds, texts, url, MappingProxyType(dict(os.environ)))


NO_TRACKING = Tracking()


def _spans_url(trace: str) -> str:
    configured = traces_url(os.environ)
    if not trace:
        return configured if os.environ.get(ALLOW_TRACING) == "1" else ""
    if trace == "env":
        if not configured:
            raise InputError(f"--trace env: {ENDPOINT} is not set; set it, or give the address of your receiver")
        return configured
    try:
        parts = urlsplit(trace)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise InputError(f"--trace {trace}: write `env`, or the address of a receiver, such as http://localhost:4318")
    return trace if parts.path.strip("/") else f"{trace.rstrip('/')}/v1/traces"


class _Line:
    """One tracker of one run, in its own thread: a server that is slow or gone does not hold up the run."""

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
    """Forwards the events of one run to its trackers."""

    def __init__(self, tracking: Tracking, db: Path, warn: Callable[[str], None]) -> None:
        self._tracking, self._db, self._warn = tracking, db, warn
        self._secrets = secrets_in(tracking.environ)
        self._lines: list[_Line] = []
        self._told: set[str] = set()
        self._account: Account | None = None
        self._trials: dict[int, Trial] = {}
        self._run_id, self._best, self._succeeded = "", float("-inf"), False
        self._spans: RunSpans | None = None
        self._provider: Any = None

    def begin(self, run: Session[Any], params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Open the run in each tracker and follow it. `tags` are the user's."""
        if self._tracking.spans_url:
            environ = self._tracking.environ
            self._provider = provider_for(self._tracking.spans_url, environ, on_exit=False)
            self._spans = run.tracer = RunSpans(self._provider, environ, run.task.name, run.id)
            run.observer.add(self._spans)
        if not self._tracking.kinds:
            return
        self._run_id, self._account = run.id, run.account
        given = {name: self._cell(value) for name, value in flat(params).items() if value is not None}
        labels = {RUN_ID: run.id, **{name: self._clean(value) for name, value in tags.items()}}
        folder, environ = self._db.parent / FOLDER, self._tracking.environ
        start = TrackedStart(run.id, run.task.name, given, labels, folder, environ)
        self._lines = [_Line(kind, start) for kind in self._tracking.kinds]
        run.observer.add(self)

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

    def finish(self, result: Result) -> None:
        """Track the result of the run: numbers, tables, report and prompt."""
        self._succeeded = True
        if not self._lines:
            return
        self._mark_best()
        figures = {name: float(value) for name, value in flat(result.to_json()).items() if type(value) in (int, float)}
        self._all(lambda tracker: tracker.summary(figures))
        if self._trials:
            rows = []
            for _, each in sorted(self._trials.items()):
                low, high = each.ci95 or (None, None)
                about = (each.number, each.round, each.candidate_id, each.state, each.n, each.mean)
                rows.append((*about, low, high, each.reason))
            self._table("trials", COLUMNS, rows)
        try:
            tables, files = _tracked_files(self._run_id, result, self._db, self._tracking.texts)
        except InputError:  # a kind of run without a report
            return
        except Exception as error:
            self._warn(f"warning: report and prompt of this run are not tracked ({message_of(error)})")
            return
        for table in tables:
            self._table(*table)
        for path in files:
            self._all(methodcaller("file", path))

    def close(self, error: BaseException | None = None) -> None:
        """Wait a limited time until the trackers received everything. `error` is what ended the run early."""
        self._all(lambda tracker: tracker.end(self._succeeded))
        for line in self._lines:
            line.close()
        self._tell()
        if self._spans is not None:
            self._spans.end(error)
            self._provider.shutdown()
            if lost := self._provider.lost:
                self._warn(f"warning: {self._tracking.spans_url} did not take {lost} spans of this run")

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
        for line in self._lines:
            if line.fault and line.name not in self._told:
                self._told.add(line.name)
                self._warn(f"warning: {line.name} no longer tracks this run ({line.fault}); the run continues")

    def _table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        cleaned = [[self._cell(cell) for cell in row] for row in rows]
        self._all(lambda tracker: tracker.table(name, columns, cleaned))

    def _cell(self, value: Any) -> Cell:
        return value if value is None or isinstance(value, int | float) else self._clean(str(value))

    def _clean(self, text: str) -> str:
        return redact(text, self._secrets)


@contextmanager
def tracked(tracking: Tracking, db: Path, warn: Callable[[str], None]) -> Iterator[TrackedRun]:
    """Track a run until the end of the block, however it ends."""
    run = TrackedRun(tracking, db, warn)
    try:
        yield run
    except BaseException as error:
        run.close(error)
        raise
    run.close()


def run_params(task: Task, models: Any, budget: Budget, **others: Any) -> dict[str, Any]:
    """Return the parameters of a run for trackers; `others` are specific to its kind."""
    return {
        **others,
        "task": task.name,
        "models": models,
        "budget": asdict(budget),
        "rows": {"train": len(task.train), "dev": len(task.dev), "test": len(task.test)},
        "hashes": dict(task.hashes),
        "promptassay": tool_version(),
    }


def flat(found: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    """Flatten nested mappings and join lists.

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


def _tracked_files(run_id: str, result: Result, db: Path, texts: bool) -> tuple[list[Table], list[Path]]:
    tables: list[Table] = []
    if isinstance(result, CustomizeResult):
        arms = [[getattr(arm, name) for name in ARM_COLUMNS] for arm in result.arms]
        tables.append(("arms", ARM_COLUMNS, arms))
    folder, files = run_folder(db.parent, run_id) / FILES, []
    with closing(open_history(db)) as history:
        view = RunView(history, run_id)
        found = search_result(view.run["result"], db)
        if found is not None:
            if not texts and not holds_prompt(found.release.path):
                return tables, []  # what a program of the user's own shows of rows is not known
            prompt = view.winner if found.decision == "promote" else view.baseline
            if prompt is not None and (texts or not holds_rows(prompt)):
                files.append(found.release.path)
            elif prompt is not None:
                files.append(_written(folder / "instruction.txt", prompt["instruction"]))
            view = view if texts else RunWithoutRows(history, view.id)
        files.append(_written(folder / "report.html", report_html(view)))
    return tables, [path for path in files if path.is_file()]


def _written(path: Path, text: str) -> Path:
    with new_file(path, private=True) as file:
        file.write(text.encode("utf-8"))
    return path
