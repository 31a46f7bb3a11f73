"""Which operator makes the next candidate: the ones whose children did well get more of the budget. Pure.

Thompson sampling (Thompson 1933; Chapelle & Li 2011): each operator has a Beta belief about how often its candidates
climb past their first rung; the largest draw goes next. With nothing known all are alike, and one that never yields
anything, such as a weak proposer, soon costs nearly nothing.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

PRIOR_WINS = 1.0
PRIOR_LOSSES = 2.0


@dataclass(slots=True)
class Bandit:
    """Wins and losses by operator."""

    wins: dict[str, float] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)

    def tell(self, operator: str, won: bool) -> None:
        book = self.wins if won else self.losses
        book[operator] = book.get(operator, 0.0) + 1.0

    def draw(self, operators: Sequence[str], rng: random.Random) -> str:
        """The operator to use next, out of those that can be used now."""
        return max(operators, key=lambda name: self._sample(name, rng))

    def _sample(self, name: str, rng: random.Random) -> float:
        return rng.betavariate(self.wins.get(name, 0.0) + PRIOR_WINS, self.losses.get(name, 0.0) + PRIOR_LOSSES)
