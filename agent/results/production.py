"""The results of `monitor` and `ab report`: logs of production against a reference, and the two arms of a test."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import AliasChoices, Field

from agent.results.base import Interval, Result, WasNow

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
