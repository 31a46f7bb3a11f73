"""What shows a run while it goes on, whatever it is shown on. Knows no terminal."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from agent.observer import Observer

if TYPE_CHECKING:
    from agent.gateway.budget import Account
    from agent.search.plan import Plan


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where a search stands. `best` is the mean of the best trial with its 95 % interval, in [0, 1]; `width` how many
    calls of the target may fly at once."""

    stage: str
    plan: Plan
    account: Account
    trials: int
    pruned: int
    best: tuple[float, float, float] | None
    retries: int = 0
    width: int = 0


class Watcher(Observer):
    """Shows nothing; a subclass shows what happens in a run, and where it stands.

    `signals` are those that interrupt the run, where they can be caught: in the main thread.
    """

    signals: ClassVar[tuple[signal.Signals, ...]] = (signal.SIGINT,)

    def on_snapshot(self, snapshot: Snapshot) -> None:
        """Where a search stands; called often."""

    def on_job_progress(self, done: int, planned: int, account: Account) -> None:
        """How many of its planned calls a job has made; called often."""

    def warn(self, line: str) -> None:
        """A line that is to be seen, also where messages are not shown."""

    def download(self, done: int, total: int) -> None:
        """Bytes of weights that have come; `total` is 0 where it is not known."""

    def leave(self, line: str) -> None:
        """The user does not wait for what is in flight. If this returns, the run is cancelled."""
        self.warn(line)


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
