"""Which candidate to ship when the score is not all: score, prompt tokens, dollars, latency. Pure choices over numbers.

Only candidates that saw the whole of dev take part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from statistics import stdev
from typing import Any, Literal

Prefer = Literal["best", "cheap", "short"]

MARGIN = 0.01


@dataclass(frozen=True, slots=True)
class Offer:
    """A candidate with what it scores and costs. `scores` by dev row in the common order, None where unscored; `usd`
    and `latency_s` (seconds; None: not known) are means per call.
    """

    candidate_id: str
    scores: Sequence[float | None]
    prompt_tokens: int
    usd: float | None
    latency_s: float | None = None

    @property
    def mean(self) -> float:
        known = [value for value in self.scores if value is not None]
        return sum(known) / len(known) if known else 0.0


def counted(offers: Sequence[Offer]) -> list[Offer]:
    """The same, to be compared: a row that only others got a score on counts as 0, as where a gain is tested
    (`release/gate.py`). Who loses its hard rows is not the better for it."""
    scored = [any(value is not None for value in row) for row in zip_longest(*(offer.scores for offer in offers))]
    return [
        replace(
            offer,
            scores=[
                0.0 if known and value is None else value for known, value in zip(scored, offer.scores, strict=False)
            ],
        )
        for offer in offers
    ]


def front(offers: Sequence[Offer]) -> list[Offer]:
    """Those that no other beats: none is as good in everything and better in something. The best score first.

    Latency counts only when all have one.
    """
    timed = all(offer.latency_s is not None for offer in offers)
    costs = {id(offer): _costs(offer, timed) for offer in offers}
    kept = [o for o in offers if not any(_beats(costs[id(other)], costs[id(o)]) for other in offers)]
    return sorted(kept, key=lambda offer: (-offer.mean, offer.prompt_tokens))


def _costs(offer: Offer, timed: bool) -> tuple[float, ...]:
    """Everything so that less is better."""
    return (-offer.mean, offer.prompt_tokens, offer.usd or 0.0, (offer.latency_s or 0.0) if timed else 0.0)


def _beats(one: tuple[float, ...], two: tuple[float, ...]) -> bool:
    return one != two and all(a <= b for a, b in zip(one, two, strict=True))


def prefer(offers: Sequence[Offer], how: Prefer = "best") -> Offer | None:
    """The one to ship; None of none. Of equals the first stays.

    `best`: the highest score, then the fewest tokens. `cheap` and `short` take the fewest dollars (then tokens), or the
    fewest tokens (then dollars), among those that are `within_noise` of the best.
    """
    if not offers:
        return None
    best = min(offers, key=lambda offer: (-offer.mean, offer.prompt_tokens))
    good = [offer for offer in offers if within_noise(offer, best)]
    if how == "cheap":
        return min(good, key=lambda offer: (offer.usd or 0.0, offer.prompt_tokens, -offer.mean))
    if how == "short":
        return min(good, key=lambda offer: (offer.prompt_tokens, offer.usd or 0.0, -offer.mean))
    return best


def within_noise(offer: Offer, best: Offer) -> bool:
    """Not worse than the best by more than max(MARGIN, one standard error of the paired mean difference).

    Over the dev rows that both have a score for. A loose rule by intent: with 10 of 100 rows differing, about 3 points.
    """
    if offer is best:
        return True
    pairs = zip(offer.scores, best.scores, strict=False)
    steps = [mine - theirs for mine, theirs in pairs if mine is not None and theirs is not None]
    if not steps:
        return False
    error = stdev(steps) / math.sqrt(len(steps)) if len(steps) > 1 else 0.0
    return sum(steps) / len(steps) >= -max(MARGIN, error) - 1e-12


def front_table(offers: Sequence[Offer], chosen: str) -> list[dict[str, Any]]:
    """The front as JSON-ready rows, the chosen one among them even where another equals or beats it."""
    kept = front(offers)
    shown = kept + [offer for offer in offers if offer.candidate_id == chosen and offer not in kept]
    return [
        {
            "candidate_id": offer.candidate_id,
            "dev": offer.mean,
            "prompt_tokens": offer.prompt_tokens,
            "usd_per_1000": None if offer.usd is None else 1000 * offer.usd,
            "latency_s": offer.latency_s,
            "chosen": offer.candidate_id == chosen,
        }
        for offer in shown
    ]
