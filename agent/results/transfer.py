"""The result of `transfer`: the prompts of a run on other models."""

from __future__ import annotations

from typing import Literal

from agent.results.base import CostedResult, Interval, Result
from agent.results.breakdown import Side


class TransferCandidate(Result):
    """A prompt of the run."""

    candidate_id: str
    trial: int
    technique: str
    format: str
    n_examples: int
    instruction: str


class TransferLift(Result):
    """Gain of a prompt over yours on one model; `p_holm`: corrected over all cells, None on the run's own model."""

    diff: float
    ci95: Interval
    p_value: float | None
    p_holm: float | None
    n: int


class TransferScore(Side):
    """A prompt on one model; `lift` is None for your prompt."""

    lift: TransferLift | None
    rank: int | None


class TransferModel(Result):
    """One model with a score for each candidate, in their order; `own`: the model of the run."""

    own: bool
    model: str
    scores: tuple[TransferScore, ...]


class TransferResult(CostedResult):
    """The best prompts of a run, yours first, on `rows` dev rows with each model."""

    kind: Literal["transfer"] = "transfer"
    run_id: str
    of_run: str
    task: str
    rows: int
    candidates: tuple[TransferCandidate, ...]
    models: tuple[TransferModel, ...]
    status: Literal["complete", "budget"]
