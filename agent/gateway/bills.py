"""What replies cost beside what was reserved for them, by model.

A provider may bill more than the worst case at which a call is reserved: it ignores `max_tokens`, or bills reasoning
that is not shown. No cap can hold what is in flight then; so a model begins with one call, and the number doubles as
its bills agree. All later calls are reserved at the higher cost.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from agent.types import Budget, Spend

MARGIN = 1.25  # on top of the largest excess: the next reply may be a little longer
STEADY = 8  # replies in a row within what is reserved, after which calls run side by side again


@dataclass(frozen=True, slots=True)
class Excess:
    """How many times its plain reservation a reply of a model cost, in tokens and in dollars; 1: no more."""

    tokens: float = 1.0
    usd: float = 1.0

    @property
    def most(self) -> float:
        """The larger of the two."""
        return max(self.tokens, self.usd)

    def reserved(self, worst: Spend) -> Spend:
        """The reservation of a call whose plain reservation is `worst`."""
        return Spend(worst.calls, math.ceil(worst.tokens * _more(self.tokens)), worst.usd * _more(self.usd))


class Bills:
    """The excess of each model of one run, in the units that the budget caps; `before` is a resumed run's."""

    def __init__(self, budget: Budget, before: Mapping[str, Excess] | None = None) -> None:
        self._budget = budget
        self._excess = dict(before or {})
        self._within: Counter[str] = Counter()  # replies in a row within what is reserved
        self.most = max((excess.most for excess in self._excess.values()), default=1.0)
        """How many times its plain reservation the dearest reply cost."""

    def reserved(self, model: str, worst: Spend) -> Spend:
        """The reservation of a call of `model` whose plain reservation is `worst`."""
        excess = self._excess.get(model)
        return excess.reserved(worst) if excess else worst

    def is_predictable(self, model: str) -> bool:
        """Whether its last replies cost no more than was reserved, so that several may be in flight at once."""
        return model not in self._excess or self._within[model] >= STEADY

    def read(self, model: str, worst: Spend, paid: Spend) -> Excess | None:
        """The new excess of the model where a reply cost more than is reserved for such a call; else None."""
        budget, old = self._budget, self._excess.get(model, Excess())
        tokens = paid.tokens / worst.tokens if budget.max_tokens is not None and worst.tokens else 1.0
        usd = paid.usd / worst.usd if budget.max_cost is not None and worst.usd else 1.0
        self.most = max(self.most, tokens, usd)
        if tokens <= _more(old.tokens) and usd <= _more(old.usd):
            self._within[model] += 1
            return None
        self._within[model] = 0
        self._excess[model] = Excess(max(old.tokens, tokens), max(old.usd, usd))
        return self._excess[model]


def _more(excess: float) -> float:
    return excess * MARGIN if excess > 1 else 1.0


def times(excess: float) -> str:
    """A factor in words.

    >>> times(1.62), times(32.4)
    ('1.6 times', '32 times')
    """
    return f"{excess:.1f} times" if excess < 9.95 else f"{excess:,.0f} times"
