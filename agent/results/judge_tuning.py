"""The result of `judge tune`: today's judge and the tuned one on ratings that neither had seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from agent.results.base import CostedResult, Interval, Mean, Result
from agent.results.judge_calibration import JudgeAgreement


class JudgeFigures(JudgeAgreement):
    """One judge on the sealed items: agreement with people, and what fools it.

    `fooled` of `controls` are non-answers with a good rating. `shifts`: how far each change that makes no answer better
    moves the ratings, in shares of the scale; of pairs `position`, too: the share of verdicts that depend on the order.
    """

    controls: int
    fooled: int
    shifts: Mapping[str, Mean]


class Comparator(Result):
    """Agreement with people of what is no judge: other people, a ridge on the answers' words, one rating for all."""

    name: str
    kappa: float | None
    ci95: Interval | None
    spearman: float | None = None


class Disagreement(Result):
    """Answers that judge and people rate differently for one reason, with two of them."""

    name: str
    items: int
    examples: tuple[str, ...]


class JudgeTuningResult(CostedResult):
    """A judge before and after tuning, on ratings that were sealed.

    `of_run` is the search, `decision` its own. `gain` is that of kappa over today's judge, `held` the reasons against
    the tuned judge, as codes in `held_codes`. `people` is the kappa of a rater with the others. `to_rate` is a file of
    answers of the run `rated_run` whose ratings would help most. `judge` is the tuned judge's file.
    """

    kind: Literal["judge_tuning"] = "judge_tuning"
    run_id: str
    of_run: str
    task: str
    labels: str
    model: str
    mode: str
    decision: Literal["promote", "keep_baseline"]
    before: JudgeFigures
    after: JudgeFigures
    gain: float | None
    gain_ci95: Interval | None
    held: tuple[str, ...]
    held_codes: tuple[str, ...]
    people: Comparator
    yardsticks: tuple[Comparator, ...]
    disagreements: tuple[Disagreement, ...]
    to_rate: str
    rated_run: str
    rated_next: int
    judge: str
    status: Literal["complete", "budget"]
