"""The outcomes of an A/B test: read, paired, and told with a test that may be looked at any time.

    outcomes.jsonl: {"unit": "user-17", "arm": "A", "outcome": 1}        in the order in which they came

A unit (a user, a session) is bucketed once and counts once: two outcomes of it are not independent of each other. A
second one is refused, or left out by `first`; averaging would change what was counted before, and with it every look
back. A unit in two arms is always refused: its bucket did not hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import InputError, ProblemsError
from agent.stats.anytime import compared, paired
from agent.task.input_files import read_rows
from agent.task.words import listed, near, problem, quoted, shown

KEYS = ("unit", "arm", "outcome", "time")
MOST_PROBLEMS = 20
LEFT_ALONE = 0.001
"""A split of units as uneven as this is rarer than that where both arms get half: worth a look at the bucketing."""


@dataclass(frozen=True, slots=True)
class Trial:
    """`arms`: the control first. `outcomes`: (arm 0 or 1, outcome) in their order; `again`: later outcomes left out."""

    arms: tuple[str, str]
    outcomes: tuple[tuple[int, float], ...]
    again: int = 0


def read_outcomes(path: Path, control: str | None, *, first: bool = False) -> Trial:
    """Raises ProblemsError with each problem at its `file:line`, InputError when there are not two arms."""
    rows, problems = read_rows(path)
    where = shown(path)
    kept: list[tuple[str, float]] = []
    bucket: dict[str, tuple[str, int]] = {}
    again = 0
    for line, row in rows:
        try:
            unit, arm, outcome = _row(row)
            known = bucket.setdefault(unit, (arm, line))
            if known[0] != arm:
                raise ValueError(
                    f"the unit {quoted(unit)} is in arm {quoted(arm)}, on line {known[1]} in {quoted(known[0])}"
                )
            if known[1] != line and not first:
                what = (
                    "a unit counts once; take these rows out, or count each unit's first outcome with --several first"
                )
                raise ValueError(f"the unit {quoted(unit)} has an outcome on line {known[1]}; {what}")
        except ValueError as error:
            problems.append(problem(where, line, str(error)))
            continue
        if known[1] == line:
            kept.append((arm, outcome))
        else:
            again += 1
    if problems:
        more = len(problems) - MOST_PROBLEMS
        if more > 0:
            problems = [*problems[:MOST_PROBLEMS], problem(where, 1, f"and {more} problems more")]
        raise ProblemsError(tuple(problems))
    arms = sorted({arm for arm, _ in kept})
    if len(arms) != 2:
        raise InputError(f"{where}:1: {len(arms)} arms ({listed(arms) or 'none'}); an A/B test compares two")
    if control is not None and control not in arms:
        raise InputError(f"--control {control}: the arms are {', '.join(arms)}")
    if control == arms[1]:
        arms.reverse()
    return Trial((arms[0], arms[1]), tuple((arms.index(arm), outcome) for arm, outcome in kept), again)


def _row(row: Mapping[str, Any]) -> tuple[str, str, float]:
    if unknown := next((key for key in row if key not in KEYS), None):
        raise ValueError(f"unknown key {quoted(unknown)}{near(unknown, KEYS)}")
    names = []
    for key in ("unit", "arm"):
        value = row.get(key)
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise ValueError(f"{key}: {quoted(value)} is no name; write a text")
        names.append(str(value))
    value = row.get("outcome")
    try:
        outcome = float(value) if isinstance(value, int | float | str) else math.nan
    except ValueError:
        outcome = math.nan
    if not 0 <= outcome <= 1:
        raise ValueError(f"outcome: {quoted(value)} is not a number from 0 to 1")
    return names[0], names[1], outcome


def report_of(trial: Trial, alpha: float = 0.05, smallest: float = 0.0) -> dict[str, Any]:
    """What can be said now, JSON-ready. `smallest`: a difference below it does not matter, in either direction."""
    sides = [[outcome for arm, outcome in trial.outcomes if arm == side] for side in (0, 1)]
    found = compared(paired(trial.outcomes), alpha)
    low, high = found.ci
    decided = low > 0 or high < 0
    alike = not decided and smallest > 0 and -smallest < low and high < smallest
    verdict = f"{trial.arms[1]} is {'better' if low > 0 else 'worse'}" if decided else "undecided"
    if alike:
        verdict = "no difference that matters"
    return {
        "control": trial.arms[0],
        "treatment": trial.arms[1],
        "units": [len(side) for side in sides],
        "means": [sum(side) / len(side) for side in sides],
        "left_out": trial.again,
        "pairs": found.pairs,
        "diff": found.diff,
        "ci": [low, high],
        "confidence": 1 - alpha,
        "e_value": found.e_value,
        "p_value": found.p_value,
        "smallest": smallest,
        "verdict": verdict,
        "may_stop": decided or alike,
        "uneven": _uneven(len(sides[0]), len(sides[1])),
    }


def _uneven(one: int, two: int) -> float | None:
    """p of so uneven a split of units where both arms get half of them; None where it is nothing to look at."""
    from scipy import stats

    p_value = float(stats.binomtest(one, one + two, 0.5).pvalue)
    return p_value if p_value < LEFT_ALONE else None
