"""The records of a search as a study: places in its space, scores, and one trial for each candidate.

The operator of a candidate and its settings (OPERATOR.SETTING) are conditional parameters: a new design has the
coordinates of its place, a change the rank of its parent (0: the best). `samplers` builds Optuna's studies of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from agent.types import TrialState

PRIOR_ROWS = 8.0

Feature = tuple[str, str]  # a part and its choice: ("format", "inline")
Place = Mapping[str, str]  # a choice for each coordinate of the space; demo sets of the same kind share one


@dataclass(frozen=True, slots=True)
class MeanScore:
    mean: float
    n: int


def shrunk(score: MeanScore, prior: float) -> float:
    """Shrink a mean towards `prior`, which counts for `PRIOR_ROWS` rows.

    >>> shrunk(MeanScore(1.0, 8), 0.5)
    0.75
    """
    return (score.mean * score.n + prior * PRIOR_ROWS) / (score.n + PRIOR_ROWS)


OPERATOR, PARENT = "operator", "parent"
TOLD = "study_told"  # the ledger event with the trials that are new or changed
Params = Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class StudyTrial:
    """One candidate as a trial. `params`: the rank of the parent, else names; `steps`: mean evidence by rows."""

    candidate_id: str
    params: Params
    state: TrialState
    steps: Mapping[int, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"steps": {str(rows): mean for rows, mean in self.steps.items()}}

    @staticmethod
    def from_dict(row: Mapping[str, Any]) -> StudyTrial:
        steps = {int(rows): float(mean) for rows, mean in row["steps"].items()}
        return StudyTrial(str(row["candidate_id"]), dict(row["params"]), row["state"], steps)

    @property
    def last(self) -> MeanScore:
        rows = max(self.steps, default=0)
        return MeanScore(self.steps[rows], rows) if rows else MeanScore(0.0, 0)


def folded(told: Sequence[Sequence[StudyTrial]]) -> list[StudyTrial]:
    """Return the latest state of each trial, in order of first appearance."""
    trials: dict[str, StudyTrial] = {}
    for batch in told:
        trials |= {trial.candidate_id: trial for trial in batch}
    return list(trials.values())


def prior_of(trials: Sequence[StudyTrial]) -> float:
    means = [trial.last.mean for trial in trials if trial.steps]
    return sum(means) / len(means) if means else 0.0
