"""What replies cost beside what was reserved for them, by model. Knows no call and no ledger.

A provider may bill more than the worst case at which a call is reserved: it ignores `max_tokens`, or bills reasoning
that is not shown. What is in flight then, no cap can hold; all that comes after is reserved at what was learnt.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from agent.types import Budget, Spend

MARGIN = 1.25  # of the most that was learnt: the next reply may be a little longer
STEADY = 8  # replies in a row within what is reserved, after which calls fly side by side again


@dataclass(frozen=True, slots=True)
class Excess:
    """How many times its plain reservation a reply of a model cost, in tokens and in dollars (1: no more)."""

    tokens: float = 1.0
    usd: float = 1.0

    @property
    def most(self) -> float:
        return max(self.tokens, self.usd)

    def reserved(self, worst: Spend) -> Spend:
        """What to reserve for a call whose plain reservation is `worst`."""
        return Spend(worst.calls, math.ceil(worst.tokens * _more(self.tokens)), worst.usd * _more(self.usd))


class Bills:
    """What was learnt of the models of one run, in what is capped alone: without a cap there is nothing to hold.

    `known` is what a resumed run had learnt before.
    """

    def __init__(self, budget: Budget, known: Mapping[str, Excess] | None = None) -> None:
        self._budget = budget
        self._known = dict(known or {})
        self._within: Counter[str] = Counter()  # replies in a row within what is reserved
        self.most = max((excess.most for excess in self._known.values()), default=1.0)
        """How many times its plain reservation the dearest reply cost."""

    def reserved(self, model: str, worst: Spend) -> Spend:
        """What to reserve for a call of `model` whose plain reservation is `worst`."""
        known = self._known.get(model)
        return known.reserved(worst) if known else worst

    def is_predictable(self, model: str) -> bool:
        """Whether its last replies cost no more than what is reserved, so that several may fly at once."""
        return model not in self._known or self._within[model] >= STEADY

    def read(self, model: str, worst: Spend, paid: Spend) -> Excess | None:
        """Learns from a reply that cost `paid`. What is known of the model from now on, where it cost more than what is
        reserved for such a call; else None."""
        known, excess = self._known.get(model, Excess()), self._excess(worst, paid)
        self.most = max(self.most, excess.most)
        if excess.tokens <= _more(known.tokens) and excess.usd <= _more(known.usd):
            self._within[model] += 1
            return None
        self._within[model] = 0
        grown = Excess(max(known.tokens, excess.tokens), max(known.usd, excess.usd))
        self._known[model] = grown
        return grown

    def _excess(self, worst: Spend, paid: Spend) -> Excess:
        tokens = paid.tokens / worst.tokens if self._budget.max_tokens is not None and worst.tokens else 1.0
        usd = paid.usd / worst.usd if self._budget.max_cost is not None and worst.usd else 1.0
        return Excess(max(1.0, tokens), max(1.0, usd))


def _more(excess: float) -> float:
    return excess * MARGIN if excess > 1 else 1.0


def times(excess: float) -> str:
    """`excess` in words: `1.6 times`, `32 times`, `1,000,000 times`."""
    return f"{excess:.1f} times" if excess < 9.95 else f"{excess:,.0f} times"
