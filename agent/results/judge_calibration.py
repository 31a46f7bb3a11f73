"""The result of `judge calibrate`: a judge compared with ratings of people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from agent.results.base import CostedResult, Interval, Result


class Raters(Result):
    """Agreement between people: Krippendorff's alpha."""

    raters: int
    alpha: float | None
    alpha_ci95: Interval | None


class Control(Result):
    """Non-answers shown to the judge, and how many it rated good."""

    n: int
    fooled: int
    unscored: int


class JudgeAgreement(Result):
    """Agreement of a judge with people: `kappa` with its interval `ci95`, and `why` the judge is not trusted."""

    judge_id: str
    items: int
    unscored: int
    kappa: float | None
    ci95: Interval | None
    spearman: float | None
    spearman_ci95: Interval | None
    trusted: bool = False
    why: tuple[str, ...] = ()


class CalibrationResult(JudgeAgreement, CostedResult):
    """Agreement of a judge with people, and its biases. `..._ci95` is the 95 % interval of a figure.

    `models`: the judge, or a panel. `unscored`: items without a readable verdict. `kappa` is Cohen's with the interval
    `ci95`. `scale`: names of the levels, in the order of `confusion`: people's ratings down, the judge's across.
    `length_judge` and `length_people`: rank correlation of ratings with the number of words; `length_bias`: points for
    length beyond those that people give. `order_consistency`: share of pairs with the same verdict in reversed order;
    `first_wins`: 0.5 is fair. `reasons`: of unreadable verdicts; `why`: against trusting the judge.
    """

    kind: Literal["judge_calibration"] = "judge_calibration"
    run_id: str
    task: str
    models: tuple[str, ...]
    mode: str
    labels: str
    alpha: float | None
    alpha_ci95: Interval | None
    agreement: float | None
    agreement_ci95: Interval | None
    people: Raters
    scale: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    length_judge: float | None
    length_judge_ci95: Interval | None
    length_people: float | None
    length_people_ci95: Interval | None
    length_bias: float | None
    length_bias_ci95: Interval | None
    order_consistency: float | None
    order_consistency_ci95: Interval | None
    asked_in_both_orders: int
    first_wins: float | None
    self_consistency: float | None
    self_consistency_ci95: Interval | None
    asked_again: int
    negative_controls: Mapping[str, Control]
    reasons: tuple[str, ...]
    status: Literal["complete", "budget"]
