"""What a kind is given to write a release, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from agent.release.result import RunResult
from agent.scoring.evaluate import Evaluator
from agent.search.program import Program
from agent.types import Candidate, Example


@dataclass(frozen=True, slots=True)
class Making:
    """A release to be made: the run's `result`, the candidate's `trial`, the `parameters` that it was scored with and
    the `origin` (tool, created_utc). It goes into `folder`. `evaluator` and sealed `rows` are there to prove that what
    was written does the same."""

    result: RunResult
    trial: int
    parameters: Mapping[str, Any]
    origin: Mapping[str, str]
    folder: Path
    evaluator: Evaluator
    rows: Sequence[Example]


@dataclass(frozen=True, slots=True)
class Written:
    """A release on the disk: its main file, and the hash of what is in it."""

    path: Path
    version: str


class Kind(Program, Protocol):
    """A kind of candidate, whole: run, searched and released."""

    async def write(self, candidate: Candidate, making: Making) -> Written:
        """Writes the release and proves it. Raises ReleaseError when what was written is not what was scored."""
        ...
