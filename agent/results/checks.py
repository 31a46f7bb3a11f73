"""The results of `check`, `bless`, `monitor` and `ab report`: a released prompt against what was recorded of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import AliasChoices, Field

from agent.results.base import CostedResult, Interval, Mean, Result, WasNow
from agent.results.breakdown import Steadiness


class SuiteReference(Result):
    """The recorded answers: the id of the suite, what was asked, who recorded them when and why."""

    suite: str
    model: str
    version: str
    reason: str = ""
    actor: str = ""
    created_utc: str = ""
    tool: str = ""
    run_id: str = ""


class Difference(Result):
    """Now minus then, paired over the `n` rows that both have a score for."""

    diff: float
    ci95: Interval
    p_value: float
    wins: int
    losses: int
    ties: int
    n: int


class Flip(Result):
    """A row whose usual answer changed; where answers are texts, whose score moved. In JSON `now` is `is`."""

    row: str
    was: str
    now: str = Field(validation_alias=AliasChoices("is", "now"), serialization_alias="is")
    was_score: float | None
    is_score: float | None
    expected: Mapping[str, Any]


class FlipTest(Result):
    """`p_value` of that many flips by repeat noise; the gate fails at `at_most`."""

    flipped: int
    p_value: float
    at_most: float

    @property
    def too_many(self) -> bool:
        """Whether repeat noise does not explain the flips."""
        return self.p_value <= self.at_most


class SuiteComparison(Result):
    """What changed between recorded answers and those of now, and whether the gate lets it pass.

    Args:
        why: what is against it.
        compared: rows with an answer on both sides.
        unanswered: rows without an answer.
        repeats: answers a row.
        difference: None where no row has both scores.
        readable: the share of replies that parse and keep their limits.
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
        """Whether the gate lets it pass."""
        return self.gate == "passed"


class CheckResult(SuiteComparison, CostedResult):
    """A check of a released prompt. `passed` is what the gate says, `why` what is against it."""

    kind: Literal["check"] = "check"
    run_id: str
    name: str
    version: str
    model: str
    reference: SuiteReference

    @property
    def was(self) -> float | None:
        """The recorded mean score in [0, 1], over the rows that both have one for."""
        return self.score.was.mean

    @property
    def now(self) -> float | None:
        """The mean score of now, over the same rows."""
        return self.score.now.mean


class BlessResult(CostedResult):
    """A recording of answers as the reference of later checks; `before`: the id of the suite that it replaces."""

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
"""A rate, a median or a mean; of labels the shares by label."""


class DriftLine(Result):
    """One test for drift: the figure of the reference and of the log, and the size of the change.

    Args:
        limit: the smallest change that alarms.
        p_value: None where nothing can be tested, for the reason `why`.
        test: the statistical test.
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
    """A log of production against the reference of a released prompt. In JSON `start` and `end` are `from` and `to`.

    Args:
        alarms: the names of the tests that alarm.
        alpha: false alarms of one look.
        rows: answers of the reference and of the log.
        start, end: times of the first and the last answer; None where the log has none.
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
    """An A/B test that may be looked at any time.

    Args:
        units, means: of control and treatment.
        left_out: later outcomes of a unit, which do not count.
        diff: treatment minus control over `pairs`.
        ci: the confidence sequence at `confidence`.
        smallest: a difference below it does not matter.
        uneven: p of so uneven a split where halves are meant; None from 0.001 on.
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
