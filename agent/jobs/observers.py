"""Observers of a run: the ledger's, and those that show it. Knows no terminal."""

from __future__ import annotations

import json
import logging
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from agent.errors import InputError
from agent.gateway.budget import Account
from agent.gateway.in_flight import InFlight
from agent.ledger.query import CALIBRATED_EVENT, RETRIEVAL_EVENTS, TEXT_EVENTS
from agent.ledger.store import Ledger, NewCandidate
from agent.observer import Observer, TrainingProgress
from agent.prompt.parts.tools import as_text
from agent.release.versions import noun_of
from agent.types import Outcome, Proposal, SplitName, Summary, Trial

if TYPE_CHECKING:
    from agent.options.jobs import LabelOptions
    from agent.report.blinded import RatingSession
    from agent.search.context import SearchContext
    from agent.search.plan import Plan
    from agent.search.program import Describes
    from agent.task.label_files import LabelledTask
    from agent.task.label_session import LabelQueue

LINE_SECONDS = 30.0
"""Seconds between two log lines of a training."""
LOSSES_A_LINE = 25
"""The last steps whose mean loss is logged."""
_log = logging.getLogger("promptassay")


class LedgerObserver(Observer):
    """Writes candidates, outcomes, trials and events of one run to the ledger; `programs` describe the candidates.

    Methods raise LedgerError when the disk refuses.
    """

    def __init__(self, ledger: Ledger, run_id: str, programs: Sequence[Describes] = ()) -> None:
        self._ledger, self._run_id = ledger, run_id
        self._programs = {program.kind: program for program in programs}

    def on_event(self, kind: str, body: Mapping[str, Any], texts: Mapping[str, str] | None = None) -> None:
        self._ledger.event(self._run_id, kind, body, texts)

    def on_outcome_recorded(self, split: SplitName, outcome: Outcome) -> None:
        self._ledger.put_outcome(self._run_id, split, outcome)

    def on_trial_updated(self, trial: Trial) -> None:
        self._ledger.put_trial(self._run_id, trial)

    def on_candidate_accepted(self, round_: int, proposal: Proposal) -> None:
        self._add(round_, proposal, "")

    def on_candidate_rejected(self, round_: int, proposal: Proposal, reason: str) -> None:
        self._add(round_, proposal, reason)

    def _add(self, round_: int, proposal: Proposal, rejected: str) -> None:
        program = self._programs[proposal.candidate.kind]
        laid_out = () if rejected else program.template(proposal.candidate)
        shown = program.shown(proposal.candidate)
        for name, settings in (("picks", shown.picks), ("passages", shown.passages)):
            if settings and not rejected:
                self._ledger.event(self._run_id, RETRIEVAL_EVENTS[name], {"candidate_id": shown.id, **settings})
        about = (proposal.operator, proposal.parent_id, proposal.reason, rejected)
        self._ledger.add_candidate(self._run_id, NewCandidate(round_, shown, laid_out, *about))
        if shown.calibration and not rejected:
            body = {key: value for key, value in shown.calibration.items() if key != "bias"}
            bias = json.dumps(shown.calibration["bias"], ensure_ascii=False)  # the labels are the user's words
            self._ledger.event(self._run_id, CALIBRATED_EVENT, {"candidate_id": shown.id, **body}, {"bias": bias})
        for name, kind in TEXT_EVENTS.items():
            if (texts := getattr(shown, name)) and not rejected:
                self._ledger.event(self._run_id, kind, {"candidate_id": shown.id}, {name: as_text(texts)})


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of a search.

    `best` is the mean of the best trial with its 95 % interval, in [0, 1], None before the baseline is scored; `leader`
    is its candidate. `width`: most calls of the target in flight; `noun`: what is searched. `account` keeps
    changing.
    """

    stage: str
    plan: Plan
    account: Account
    trials: int
    pruned: int
    best: tuple[float, float, float] | None
    retries: int = 0
    width: int = 0
    round: int = 0
    leader: Summary | None = None
    baseline_id: str = ""
    baseline: float | None = None
    noun: str = "prompt"
    is_migration: bool = False


def snapshots(context: SearchContext, is_migration: bool) -> Callable[[], Snapshot]:
    """Return a function that gives the present state of a search."""
    trials, gateway, program = context.trials, context.gateway, context.program
    shown = cache(lambda candidate_id: program.shown(trials.candidate(candidate_id)))

    def snapshot() -> Snapshot:
        top = trials.leader(context.plan.rungs[-2:][0])
        return Snapshot(
            context.stage_name,
            context.plan,
            context.account,
            len(trials.by_id),
            len(trials.in_state("pruned")),
            (top.mean, *top.ci95) if top and top.mean is not None and top.ci95 else None,
            gateway.retries.count,
            gateway.width(context.target),
            context.round,
            shown(top.candidate_id) if top else None,
            context.baseline.id,
            trials.mean(context.baseline.id),
            noun_of(program.file),
            is_migration,
        )

    return snapshot


@dataclass(frozen=True, slots=True)
class CellLine:
    """The state of a sweep's cell: `state` in words, scores in [0, 1], US dollars (None: unknown)."""

    name: str
    state: str
    calls: int | None = None
    planned: int | None = None
    best: float | None = None
    score: float | None = None
    usd: float | None = None


class Watcher(Observer):
    """Shows nothing; a subclass shows events and state of a run.

    `signals` interrupt the run; they are caught in the main thread.
    """

    signals: ClassVar[tuple[signal.Signals, ...]] = (signal.SIGINT,)

    def on_snapshot(self, snapshot: Snapshot) -> None:
        """Handle the state of a search; called often."""

    def on_job_progress(self, done: int, planned: int, account: Account, retries: int = 0) -> None:
        """Handle the planned calls that a job has made, and its retries; called often."""

    def on_cells(self, cells: Sequence[CellLine]) -> None:
        """Handle the states of a sweep's cells; called often."""

    def on_labelling(self, task: LabelledTask, options: LabelOptions, queue: LabelQueue, db: Path) -> None:
        """Handle rows that wait for labels of the user."""

    def on_rating(self, session: RatingSession) -> None:
        """Handle answers that wait for ratings. Raises InputError where nobody can be asked."""
        raise InputError("ratings are typed in a terminal: use `optimize judge rate`")

    def confirm(self, question: str) -> None:
        """Ask the user to agree; raise for a no. Raises InputError where nobody can be asked."""
        raise InputError(f"{question} Nobody can be asked here; say yes=True")

    def on_heartbeat(self, in_flight: InFlight) -> None:
        """Handle the calls that the run waits for; called about every half second."""

    def warn(self, line: str) -> None:
        """Handle a line that must be seen, even if messages are not shown."""

    def download(self, done: int, total: int) -> None:
        """Handle downloaded bytes of weights; `total` is 0 if unknown."""

    def leave(self, line: str) -> None:
        """Handle a user who does not wait for calls in flight. When it returns, the run is cancelled."""
        self.warn(line)


class LogWatcher(Watcher):
    """Writes lines to the log and passes snapshots to the user's function."""

    def __init__(self, progress: Callable[[Snapshot], None] | None) -> None:
        self._progress = progress
        self._logged = time.monotonic()

    def on_snapshot(self, snapshot: Snapshot) -> None:
        if self._progress is not None:
            self._progress(snapshot)

    def on_message(self, line: str) -> None:
        _log.info("%s", line)

    def on_training_progress(self, progress: TrainingProgress) -> None:
        if progress.losses and time.monotonic() - self._logged >= LINE_SECONDS:
            self._logged = time.monotonic()
            steps, loss = f"{progress.step} of {progress.steps}", recent_loss(progress.losses)
            _log.info("%s: step %s, loss %.3f, %.0f s", progress.name, steps, loss, progress.seconds)

    def warn(self, line: str) -> None:
        _log.warning("%s", line)


def recent_loss(losses: Sequence[float]) -> float:
    """Return the mean loss of the last steps, as one step alone is noisy."""
    last = losses[-LOSSES_A_LINE:]
    return sum(last) / len(last)


class Changes(Observer):
    """Calls `report` whenever a run progressed."""

    def __init__(self, report: Callable[[], None]) -> None:
        self._report = report

    def on_call_settled(self) -> None:
        self._report()

    def on_stage_started(self, name: str, round_: int) -> None:
        self._report()

    def on_evaluation_ended(self, candidates: Sequence[str]) -> None:
        self._report()
