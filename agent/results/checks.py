"""The results of `check`, `bless`, `monitor` and `ab report`: a released prompt against recorded answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from agent.results.base import CostedResult, Interval, Mean, Result, WasNow, called
from agent.results.breakdown import Steadiness
from agent.results.run_parts import PairedResult


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


class Flip(Result):
    """A row whose majority answer changed, or for texts whose score changed. `now` is `is` in JSON."""

    row: str
    was: str
    now: str = called("is")
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
    """Changes from the recorded answers to those of now, and the gate's decision with the reasons against passing
    (`why`).

    `compared`: rows answered on both sides; `unanswered`: rows without an answer; `repeats`: answers per row;
    `readable`: share of replies that parse and respect the limits of their fields.
    """

    gate: Literal["passed", "failed"]
    why: tuple[str, ...]
    notes: tuple[str, ...]
    rows: int
    compared: int
    unanswered: WasNow[int]
    repeats: WasNow[int]
    score: WasNow[Mean]
    difference: PairedResult | None
    flips: tuple[Flip, ...]
    flip_test: FlipTest
    readable: WasNow[Mean]
    steadiness: WasNow[Steadiness | None]

    @property
    def passed(self) -> bool:
        return self.gate == "passed"


class CheckResult(SuiteComparison, CostedResult):
    """A check of a released prompt."""

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


class BlessResult(SuiteReference, CostedResult):
    """Answers recorded as the reference of later checks; `before`: the id of the replaced suite."""

    kind: Literal["bless"] = "bless"
    name: str
    path: str
    before: str
    rows: int
    repeats: int
    unanswered: int
    score: Mean


# -- logs of production ------------------------------------------------------------------------------------------------

Figure = float | Mapping[str, float] | None
"""A rate, median or mean; for labels their shares."""


class DriftLine(Result):
    """One drift test: the figures of reference and log, the effect size, and the smallest change that raises an alarm
    (`limit`).

    `p_value`: None if not testable, for the reason `why`. `test`: name of the statistical test.
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
    """A production log against the reference of a released prompt; `start` and `end` are `from` and `to` in JSON.

    `alarms`: names of the tests that raise an alarm; `alpha`: false alarm rate per look; `rows`: answers.
    """

    name: str
    version: str
    log: str
    drift: bool
    alarms: tuple[str, ...]
    alpha: float
    rows: WasNow[int]
    start: str | None = called("from")
    end: str | None = called("to")
    tests: tuple[DriftLine, ...]
    notes: tuple[str, ...]


class AbResult(Result):
    """An A/B test with anytime-valid inference: treatment minus control over `pairs`, with a confidence sequence
    (`ci`).

    `left_out`: later outcomes of a unit, which are ignored. `smallest`: smallest difference that matters. `uneven`:
    p-value of the split against halves; None from 0.001 on.
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
