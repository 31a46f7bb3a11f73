"""What benches of searches share: sealed scores of a run, comparisons in words, and a model that counts calls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from agent.jobs.locations import open_history
from agent.stats.figures import bracketed, paired_test, points
from agent.stats.intervals import mean_ci, paired_difference
from agent.types import LM, Completion, Request, call_key


def sealed(db: Path, run_id: str, candidate_id: str = "") -> dict[str, float | None]:
    """The scores of a candidate on the sealed rows of a run, by id; by default of the user's own."""
    with closing(open_history(db)) as history:
        side = candidate_id or history.trials(run_id)[0]["candidate_id"]
        return {each["example_id"]: each["value"] for each in history.outcomes(run_id, side, "test")}


def interval(values: Sequence[float]) -> str:
    mean, *ci95 = mean_ci(values)
    return points(mean) + bracketed(ci95)


def against(before: Sequence[float], after: Sequence[float], seed: int = 0) -> str:
    lift = paired_test(paired_difference(after, before, seed), f" on {len(before)} sealed rows")
    return f"{interval(before)} -> {interval(after)}, {lift}"


class OutOfCalls(Exception):
    """A counted model has used its calls."""


@dataclass(slots=True)
class Counted:
    """A model as the call of a row: counts different requests; those of `ledger` take no time.

    Raises OutOfCalls beyond the `most`.
    """

    lm: LM
    ledger: Mapping[str, Completion] = field(default_factory=dict)
    most: float = math.inf
    calls: int = 0
    logprobs: int = 0
    stopped: Exception | None = None
    _known: dict[str, Completion] = field(default_factory=dict)

    async def __call__(self, request: Request, lm: LM | None = None) -> Completion:
        key = call_key(self.lm, request)
        if key not in self._known:
            if self.calls >= self.most:
                raise OutOfCalls
            self.calls += 1
            self._known[key] = self.ledger.get(key) or await self.lm.complete(request)
        return self._known[key]

    async def aside(self, request: Request, lm: LM) -> Completion:
        raise NotImplementedError
