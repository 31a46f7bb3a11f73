"""The results of `check`, `bless`, `monitor` and `ab report`: a released prompt against recorded answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import AliasChoices, Field

from agent.results.base import CostedResult, Interval, Mean, Result, WasNow
from agent.results.breakdown import Steadiness


class SuiteReference(Result):
    """The recorded answers: suite, model, author, time and reason."""

    suite: str
    model: str
    version: str
    reason: str = ""
    actor: str = ""
    created_utc: str = ""
    tool: str = ""
    run_id: str = ""


class Difference(Result):
    """Now minus recorded, paired over `n` rows with both scores."""

    diff: float
    ci95: Interval
    p_value: float
    wins: int
    losses: int
    ties: int
    n: int


class Flip(Result):
    """A row whose majority answer changed, or for texts whose score changed. `now` is `is` in JSON."""

    row: str
    was: str
    now: str = Field(validation_alias=AliasChoices("is", "now"), serialization_alias="is")
    was_score: float | None
    is_score: float | None
    expected: Mapping[str, Any]


class FlipTest(Result):
    """`p_value`: probability of this many flips by repeat noise; the gate fails at `at_most` or below."""

    flipped: int
    p_value: float
    at_most: float

    @property
    def too_many(self) -> bool:
        """Whether repeat noise does not explain the flips."""
        return self.p_value <= self.at_most


class SuiteComparison(Result):
    """Changes from the recorded answers to those of now, and the gate's decision.

    Args:
        why: reasons against passing.
        compared: rows answered on both sides.
        unanswered: rows without an answer.
        repeats: answers per row.
        difference: None if no row has both scores.
        readable: share of replies that parse and respect the limits of their fields.
    """

    gate: Literal["passed", "failed"]
    why: tuple[str, ...]
    notes: tuple[str, ...]
    rows: int
    compared: int
    unanswered: WasNow[int]
    repeats: WasNow[int]
    score: WasNow[Mean]
    difference: Difference | None
    flips: tuple[Flip, ...]
    flip_test: FlipTest
    readable: WasNow[Mean]
    steadiness: WasNow[Steadiness | None]

    @property
    def passed(self) -> bool:
        return self.gate == "passed"


class CheckResult(SuiteComparison, CostedResult):
    """A check of a released prompt: the gate's decision and the reasons against passing (`why`)."""

    kind: Literal["check"] = "check"
    run_id: str
    name: str
    version: str
    model: str
    reference: SuiteReference

    @property
    def was(self) -> float | None:
        """The recorded mean score in [0, 1] over rows with both scores."""
        return self.score.was.mean

    @property
    def now(self) -> float | None:
        """The mean score of now, over the same rows."""
        return self.score.now.mean


class BlessResult(CostedResult):
    """Answers recorded as the reference of later checks; `before`: the id of the replaced suite."""

    kind: Literal["bless"] = "bless"
    run_id: str
    name: str
    version: str
    model: str
    path: str
    suite: str
    before: str
    rows: int
    repeats: int
    unanswered: int
    score: Mean
    reason: str
    actor: str
    created_utc: str
    tool: str


# -- logs of production ------------------------------------------------------------------------------------------------

Figure = float | Mapping[str, float] | None
"""A rate, median or mean; for labels their shares."""


class DriftLine(Result):
    """One drift test: the figure of reference and log, and the effect size.

    Args:
        limit: smallest change that raises an alarm.
        p_value: None if not testable, for the reason `why`.
        test: name of the statistical test.
    """

    name: str
    was: Figure
    now: Figure
    effect: float | None
    limit: float
    p_value: float | None
    test: str = ""
    why: str = ""
    alarm: bool


class MonitorResult(Result):
    """A production log against the reference of a released prompt. `start` and `end` are `from` and `to` in JSON.

    Args:
        alarms: names of the tests that raise an alarm.
        alpha: false alarm rate per look.
        rows: answers in reference and log.
        start, end: times of the first and last answer; None if unknown.
    """

    name: str
    version: str
    log: str
    drift: bool
    alarms: tuple[str, ...]
    alpha: float
    rows: WasNow[int]
    start: str | None = Field(validation_alias=AliasChoices("from", "start"), serialization_alias="from")
    end: str | None = Field(validation_alias=AliasChoices("to", "end"), serialization_alias="to")
    tests: tuple[DriftLine, ...]
    notes: tuple[str, ...]


class AbResult(Result):
    """An A/B test with anytime-valid inference.

    Args:
        units, means: of control and treatment.
        left_out: later outcomes of a unit, which are ignored.
        diff: treatment minus control over `pairs`.
        ci: confidence sequence at `confidence`.
        smallest: smallest difference that matters.
        uneven: p-value of the split against halves; None from 0.001 on.
    """

    control: str
    treatment: str
    units: tuple[int, int]
    means: tuple[float, float]
    left_out: int
    pairs: int
    diff: float | None
    ci: Interval
    confidence: float
    e_value: float
    p_value: float
    smallest: float
    verdict: str
    may_stop: bool
    uneven: float | None
    notes: tuple[str, ...]
