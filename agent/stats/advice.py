"""Instruct, customize, or no language model at all: one stated rule over scores on the same sealed rows. Pure.

1. A method without a language model is within noise of the best arm: no language model is needed.
2. Else the best prompt is: instruct.
3. Else a tuned arm is ahead of every prompt. With rows enough for a label, and more calls than it takes to pay for its
   training: customize. With too few rows: label more. With too few calls: instruct.

"Within noise" is a paired 95 % interval of the difference that holds 0. Dev rows have no say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.results.customize import AdviceVerdict, Family
from agent.stats.intervals import PairedResult, scored_difference

ROWS_A_LABEL = 8
"""Train rows for each label, on average, below which a tuned arm's lead is not built on."""
FEW_ROWS = 5
"""Train rows of one label below which it is named."""


@dataclass(frozen=True, slots=True)
class ArmScores:
    """An arm on the sealed rows.

    `scores`: one for each row in the order of all arms; None: no score. `break_even_calls`: the calls from which on its
    training is paid for, against the best prompt; None: not known, or never.
    """

    name: str
    family: Family
    scores: Sequence[float | None]
    break_even_calls: int | None = None

    @property
    def mean(self) -> float:
        """Of the rows that have a score; -inf without any."""
        known = [score for score in self.scores if score is not None]
        return math.fsum(known) / len(known) if known else -math.inf


@dataclass(frozen=True, slots=True)
class Advice:
    """What the rule says: the case, the arm to use, and the arm with the highest score.

    `behind`: how far `best` is ahead of `arm`, paired; None where they are one. `scarce`: the labels with fewer than
    FEW_ROWS train rows, and how many each has.
    """

    verdict: AdviceVerdict
    arm: str
    best: str
    behind: PairedResult | None
    scarce: Mapping[str, int]


def advise(
    arms: Sequence[ArmScores], rows: Mapping[str, int], expected_calls: int | None = None, seed: int = 0
) -> Advice:
    """Apply the rule above to arms on the same rows, at least one prompt.

    `rows`: train rows of each label, or of the whole under "" where the answer is no choice. `expected_calls`: calls in
    the life of the prompt; None: as many as it takes.
    """
    best = max(arms, key=lambda arm: arm.mean)  # of equals the first
    scarce = {label: count for label, count in rows.items() if label and count < FEW_ROWS}

    def advice(verdict: AdviceVerdict, arm: ArmScores) -> Advice:
        behind = None if arm is best else scored_difference(best.scores, arm.scores, seed)
        return Advice(verdict, arm.name, best.name, behind, scarce)

    def best_of(family: Family) -> ArmScores | None:
        return max((arm for arm in arms if arm.family == family), key=lambda arm: arm.mean, default=None)

    def is_level(arm: ArmScores | None) -> bool:
        if arm is None or arm is best:
            return arm is best
        ahead = scored_difference(best.scores, arm.scores, seed)
        return ahead is not None and ahead.ci95[0] <= 0

    prompt = best_of("prompt")
    assert prompt is not None
    simplest = best_of("no model")
    if simplest is not None and is_level(simplest):
        return advice("no model", simplest)
    if is_level(prompt):
        return advice("instruct", prompt)
    if sum(rows.values()) < ROWS_A_LABEL * len(rows):
        return advice("label more", prompt)
    pays_from = best.break_even_calls
    if expected_calls is not None and (pays_from is None or expected_calls < pays_from):
        return advice("instruct", prompt)
    return advice("customize", best)
