"""What a comparison came to, typed: the arms, the advice and the label curve."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.stats.advice import Family, Verdict

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class ComparedArm:
    """An arm of a comparison, on the sealed rows.

    Args:
        name: as in the table.
        about: what it is.
        family: what answers.
        test: mean score in [0, 1]; None: no row has one.
        ci95: its 95 % interval.
        diff: its gain over your own prompt, paired by row, in [-1, 1]; None for your own prompt.
        diff_ci95: the 95 % interval of the gain.
        labels: rows with a right answer that it learnt from, shows or picks from.
        train_s: seconds of its training.
        tokens_per_call: prompt and reply, on average.
        usd_per_1000: dollars of 1,000 calls; None: the price is not known.
        latency_s: of one call, alone; None: not measured.
        break_even_calls: calls from which on its training is paid for; None: never, or not known.
        path: of its released prompt, for `load_prompt` and `promote`; None where none was written.
        seeds: the scores of its training with each seed, its own first; () where it was trained once.
    """

    name: str
    about: str
    family: Family
    test: float | None
    ci95: Interval | None
    diff: float | None
    diff_ci95: Interval | None
    labels: int
    train_s: float
    tokens_per_call: float
    usd_per_1000: float | None
    latency_s: float | None
    break_even_calls: int | None
    path: Path | None
    seeds: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True)
class CurveScore:
    """An arm that learnt from the first `labels` train rows: its score in [0, 1] and seconds of training."""

    arm: str
    labels: int
    test: float | None
    ci95: Interval | None
    train_s: float


@dataclass(frozen=True, slots=True)
class CustomizeResult:
    """What `customize` found. `verdict` is the case of the rule, `arm` the arm to use, `text` both in words;
    `curve_text` says where arms cross, "" without a curve. `to_json` has all of it."""

    run_id: str
    of_run: str
    verdict: Verdict
    arm: str
    text: str
    arms: tuple[ComparedArm, ...]
    curve: tuple[CurveScore, ...]
    curve_text: str
    _stored: Mapping[str, Any] = field(compare=False, repr=False)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> CustomizeResult:
        """From the object of `optimize customize --json`."""
        advice = found["advice"]
        return cls(
            found["run_id"],
            found["of_run"],
            advice["verdict"],
            advice["arm"],
            advice["text"],
            tuple(map(_arm, found["arms"])),
            tuple(
                CurveScore(each["arm"], each["labels"], each["test"], _pair(each["ci95"]), each["train_s"])
                for each in found["curve"]
            ),
            found["curve_text"],
            found,
        )

    def to_json(self) -> dict[str, Any]:
        """The object of `optimize customize --json`: JSON-ready, a copy."""
        return copy.deepcopy(dict(self._stored))


def _arm(line: Mapping[str, Any]) -> ComparedArm:
    return ComparedArm(
        line["arm"],
        line["about"],
        line["family"],
        line["test"],
        _pair(line["ci95"]),
        line["diff"],
        _pair(line["diff_ci95"]),
        line["labels"],
        line["train_s"],
        line["tokens_per_call"],
        line["usd_per_1000"],
        line["latency_s"],
        line["break_even_calls"],
        Path(line["path"]) if line["path"] else None,
        tuple(each["test"] for each in (line.get("seeds") or {}).get("each", ())),
    )


def _pair(interval: Any) -> Interval | None:
    return None if interval is None else (interval[0], interval[1])
