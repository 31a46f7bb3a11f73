"""A kind of candidate, whole: what it must have, what most kinds answer, and what it needs to write a release."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from agent.gateway.gateway import Gateway
from agent.release.result import RunResult
from agent.scoring.evaluate import Door, Evaluator
from agent.search.analysis.effects import Feature
from agent.search.context import SearchContext
from agent.search.dspy.strategies import DspyForm
from agent.search.program import Ablation, Moves, Program
from agent.search.registered import DEFAULT
from agent.types import Candidate, Example, Outcome


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


class Defaults:
    """What most kinds answer to a search; a kind overrides what is otherwise with it (see `Program`)."""

    def broken(self, outcomes: Sequence[Outcome]) -> str:
        return ""

    def place(self, candidate: Candidate) -> dict[str, str]:
        return {}

    def ablations(self, winner: Candidate, baseline: Candidate) -> list[Ablation]:
        return []

    def features(self, candidate: Candidate) -> Mapping[Feature, float]:
        return {}

    def door(self, gateway: Gateway) -> Door:
        return gateway

    def strategy(self, name: str | None) -> str:
        return name or DEFAULT

    def moves(self, context: SearchContext) -> Moves:
        raise NotImplementedError(f"{type(self).__name__}: only DSPy's optimizers change it")

    def for_dspy(self, context: SearchContext) -> DspyForm:
        raise NotImplementedError(f"{type(self).__name__}: DSPy's optimizers do not know it")
