"""Where runs are shown next to the ledger: MLflow, Weights & Biases, ClearML, and trackers of other packages.

A tracker only receives. It is given numbers, names and files; whether a file may hold texts of rows is decided where
the files are made (`run/tracking.py`).
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
    """What a tracker begins with.

    Args:
        run_id: of the ledger.
        project: the task's name; runs of a task stand together.
        params: what the run was begun with, by name.
        tags: `promptassay.run_id`, and those of the user.
        folder: for what the tracker keeps on this machine; the same for all runs of a ledger.
        environ: the user's environment variables, before tracing of third parties was switched off.
    """

    run_id: str
    project: str
    params: Mapping[str, Cell]
    tags: Mapping[str, str]
    folder: Path
    environ: Mapping[str, str]


class Tracker(Protocol):
    """One run in a tracker. Methods are called one at a time, in their own thread; what they raise ends the
    tracking, never the run."""

    def point(self, curve: str, value: float, axis: str, at: int) -> None:
        """Adds a point to a curve.

        Args:
            curve: its name.
            value: the point's height.
            axis: what `at` counts, such as `calls`.
            at: the point's place, at least 0.
        """

    def summary(self, values: Mapping[str, float]) -> None:
        """Figures of the whole run, by name."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """A table."""

    def file(self, path: Path) -> None:
        """Keeps a file as an artifact, under its own name."""

    def end(self, succeeded: bool) -> None:
        """Closes the run."""


Begin = Callable[[TrackedStart], Tracker]


@dataclass(frozen=True, slots=True)
class TrackerKind:
    """A tracker that can be named: `about` in a line, `extra` of pyproject.toml that it needs ("": none of ours)."""

    name: str
    about: str
    begin: Begin
    extra: str = ""


TRACKERS: Registry[TrackerKind] = Registry(
    "tracker",
    "promptassay.trackers",
    {name: f"agent.tracking.to_{name}" for name in ("mlflow", "wandb", "clearml")},
)


def tracker(name: str, *, about: str, extra: str = "") -> Callable[[Begin], Begin]:
    """Registers the function or class below as the tracker `name`; called with a `TrackedStart`, it opens a run."""

    def register(begin: Begin) -> Begin:
        TRACKERS.add(name, TrackerKind(name, about, begin, extra), begin.__module__)
        return begin

    return register
