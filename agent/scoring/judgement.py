"""What judges said, read from their replies: a value in [0, 1] with its reason, or why there is none. Pure.

Several models are a panel: the median counts, of at least half of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from agent.scoring.judge_prompt import CORRECT, PAIR
from agent.scoring.verdict import Tokens, read_choice, read_claims, read_ratings, rubric_value
from agent.types import Rubric


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on one answer.

    Args:
        value: In [0, 1]; None where there is no verdict, for the reason `reason`.
        ratings: By criterion, on the rubric's scale, of the panel's median member; empty in the other modes.
    """

    value: float | None
    reason: str
    ratings: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The verdicts on the first answer against the second: 1 better, 0 worse, 0.5 neither, None unreadable.

    Args:
        orders: With the first answer shown first, and shown second.
    """

    orders: tuple[float | None, float | None]
    reason: str

    @property
    def value(self) -> float | None:
        """One of the verdicts where they agree; one that changes with the order is a tie."""
        one, two = self.orders
        if one is None or two is None:
            return None
        return one if one == two else 0.5


def panel_median(judgements: Sequence[Judgement]) -> Judgement:
    """The panel's median, with the reason of the member nearest to it."""
    known = [each for each in judgements if each.value is not None]
    if not known or 2 * len(known) < len(judgements):
        return Judgement(None, next(each.reason for each in judgements if each.value is None))
    middle = median(each.value for each in known if each.value is not None)
    nearest = min(known, key=lambda each: abs((each.value or 0.0) - middle))
    return Judgement(middle, nearest.reason, nearest.ratings)


def by_rubric(text: str, tokens: Tokens, rubric: Rubric) -> Judgement:
    """A reply that rates by each criterion of a rubric."""
    verdict = read_ratings(text, rubric, tokens)
    if verdict is None:
        return _unreadable(text)
    marks = ", ".join(f"{name} {rating:.3g}/{rubric.high}" for name, rating in verdict.ratings.items())
    return Judgement(rubric_value(verdict.ratings, rubric), f"{marks}: {verdict.reason}", verdict.ratings)


def by_reference(text: str, tokens: Tokens) -> Judgement:
    """A reply that compares with a reference."""
    return _read_choice(text, CORRECT, {"wrong": 0.0, "partly": 0.5, "correct": 1.0})


def by_passages(text: str, tokens: Tokens) -> Judgement:
    """A reply that says which claims the passages support: the part of them."""
    verdict = read_claims(text)
    if verdict is None:
        return _unreadable(text)
    whole = len(verdict.supported) + len(verdict.unsupported)
    lacking = f"; not supported: {'; '.join(verdict.unsupported)}" if verdict.unsupported else ""
    counted = f"{len(verdict.supported)} of {whole} claims are supported{lacking}" if whole else "it claims nothing"
    return Judgement(verdict.value, counted)


def _unreadable(text: str) -> Judgement:
    return Judgement(None, f"the judge's answer has no readable verdict: {' '.join(text[-120:].split())}")


def by_pair(text: str, tokens: Tokens) -> Judgement:
    """A reply that says which of two answers is better: 1 where it is the first."""
    return _read_choice(text, PAIR, {"A": 1.0, "B": 0.0, "tie": 0.5})


def _read_choice(text: str, choices: Sequence[str], values: Mapping[str, float]) -> Judgement:
    verdict = read_choice(text, choices)
    if verdict is None:
        return _unreadable(text)
    return Judgement(values[verdict.choice], f"{verdict.choice}: {verdict.reason}")
