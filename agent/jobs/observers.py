"""What observes a run: its entries in the ledger, and what shows it while it runs. Knows no terminal."""

from __future__ import annotations

import json
import logging
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from agent.ledger.query import CALIBRATED_EVENT, RETRIEVAL_EVENTS, TOOL_TEXTS
from agent.ledger.store import NewCandidate
from agent.observer import Observer, TrainingProgress
from agent.prompt.parts.tools import as_text

if TYPE_CHECKING:
    from pathlib import Path

    from agent.gateway.budget import Account
    from agent.gateway.in_flight import InFlight
    from agent.ledger.store import Ledger
    from agent.options.jobs import LabelOptions
    from agent.search.plan import Plan
    from agent.search.program import Describes
    from agent.task.label_files import LabelledTask
    from agent.task.label_session import LabelQueue
    from agent.types import Outcome, Proposal, Shown, SplitName, Trial

LINE_SECONDS = 30.0
"""Of a training between two lines of the log about it."""
LOSSES_A_LINE = 25
"""The last steps, whose mean loss stands for where a training is."""
_log = logging.getLogger("promptassay")


class LedgerObserver(Observer):
    """Writes candidates, outcomes, trials and events of one run into the ledger; `programs` describe the candidates.

    A method raises LedgerError when the disk refuses.
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
        if shown.tool_texts and not rejected:
            texts = {"tool_texts": as_text(shown.tool_texts)}
            self._ledger.event(self._run_id, TOOL_TEXTS, {"candidate_id": shown.id}, texts)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where a search stands.

    Args:
        stage: its name.
        plan: the calls and rows that the budget pays.
        account: the spending so far; it keeps changing.
        trials, pruned: candidates that were tried, and those of them that were taken out.
        best: the mean of the best trial with its 95 % interval, in [0, 1]; None before the baseline was scored.
        retries: calls that were sent again.
        width: how many calls of the target may be in flight at once.
        round: of the search, at least 0.
        leader: the candidate of `best`.
        baseline_id: the candidate that holds the user's own prompt.
        baseline: its mean score on dev, in [0, 1].
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
    leader: Shown | None = None
    baseline_id: str = ""
    baseline: float | None = None


@dataclass(frozen=True, slots=True)
class CellLine:
    """How far a cell of a sweep is: `state` in words, scores in [0, 1], US dollars (None: unknown)."""

    name: str
    state: str
    calls: int | None = None
    planned: int | None = None
    best: float | None = None
    score: float | None = None
    usd: float | None = None


class Watcher(Observer):
    """Shows nothing; a subclass shows what happens in a run, and where it stands.

    `signals` are those that interrupt the run, where they can be caught: in the main thread.
    """

    signals: ClassVar[tuple[signal.Signals, ...]] = (signal.SIGINT,)

    def on_snapshot(self, snapshot: Snapshot) -> None:
        """Where a search stands; called often."""

    def on_job_progress(self, done: int, planned: int, account: Account, retries: int = 0) -> None:
        """How many of its planned calls a job has made, and how many were sent again; called often."""

    def on_cells(self, cells: Sequence[CellLine]) -> None:
        """How far the cells of a sweep are; called often."""

    def on_labelling(self, task: LabelledTask, options: LabelOptions, queue: LabelQueue, db: Path) -> None:
        """Rows wait for labels of the user."""

    def on_heartbeat(self, in_flight: InFlight) -> None:
        """The run is alive, and waits for these calls; called about every half second."""

    def warn(self, line: str) -> None:
        """A line that is to be seen, also where messages are not shown."""

    def download(self, done: int, total: int) -> None:
        """Bytes of weights that have come; `total` is 0 where it is not known."""

    def leave(self, line: str) -> None:
        """The user does not wait for what is in flight. If this returns, the run is cancelled."""
        self.warn(line)


class LogWatcher(Watcher):
    """Lines to the log, snapshots to the user's own function."""

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
    """The mean loss of the last steps; one step alone says little."""
    last = losses[-LOSSES_A_LINE:]
    return sum(last) / len(last)


class Changes(Observer):
    """Calls `report` whenever a run has come further."""

    def __init__(self, report: Callable[[], None]) -> None:
        self._report = report

    def on_call_settled(self) -> None:
        self._report()

    def on_stage_started(self, name: str, round_: int) -> None:
        self._report()

    def on_evaluation_ended(self, candidates: Sequence[str]) -> None:
        self._report()
