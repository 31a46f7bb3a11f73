"""The interface of trackers: MLflow, Weights & Biases, ClearML, and trackers of other packages.

A tracker only receives numbers, names and files; whether a file may hold row texts is decided where it is made
(`jobs/tracking.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent.registry import Registry

Cell = str | int | float | None


@dataclass(frozen=True, slots=True)
class TrackedStart:
    """The start of a tracked run.

    Args:
        project: the task's name, which groups its runs.
        tags: `promptassay.run_id`, and the user's.
        folder: local files of the tracker; the same for all runs of a ledger.
        environ: the user's environment variables, before third-party tracing was switched off.
    """

    run_id: str
    project: str
    params: Mapping[str, Cell]
    tags: Mapping[str, str]
    folder: Path
    environ: Mapping[str, str]


class Tracker(Protocol):
    """One run in a tracker; called from one thread. An exception ends the tracking, never the run."""

    def point(self, curve: str, value: float, axis: str, at: int) -> None:
        """Add a point to a curve. `axis`: what `at` (at least 0) counts, such as `calls`."""

    def summary(self, values: Mapping[str, float]) -> None:
        """Set figures of the whole run, by name."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """Add a table."""

    def file(self, path: Path) -> None:
        """Store a file as an artifact under its name."""

    def end(self, succeeded: bool) -> None:
        """Close the run."""


Begin = Callable[[TrackedStart], Tracker]


@dataclass(frozen=True, slots=True)
class TrackerKind:
    """A registered tracker: `about` in one line, `extra` of pyproject.toml that it needs ("": none)."""

    name: str
    about: str
    begin: Begin
    extra: str = ""


TRACKERS: Registry[TrackerKind] = Registry(
    "tracker", "promptassay.trackers", {name: f"agent.tracking.to_{name}" for name in ("mlflow", "wandb", "clearml")}
)


def tracker(name: str, *, about: str, extra: str = "") -> Callable[[Begin], Begin]:
    """Register the function or class below as tracker `name`. It is called with a `TrackedStart`."""

    def register(begin: Begin) -> Begin:
        TRACKERS.add(name, TrackerKind(name, about, begin, extra), begin.__module__)
        return begin

    return register
