"""The results of `check` and `bless`: a released prompt against its recorded answers, and the recording of them."""

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
    """`p_value` of so many flips by repeat noise; the gate fails at `at_most`."""

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
