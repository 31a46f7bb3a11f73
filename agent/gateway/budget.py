"""The hard caps, over all roles together. A call is reserved at its worst case before it is sent.

Two accounts are kept. `paid` is what was sent in this run, retries included: no cap is ever passed. `used` counts every
call that the run made use of, cached ones as if they had been paid: the search ends by this account, so a run that
finds its calls in the cache makes the same trials as the one that paid for them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from agent.errors import BudgetExhausted
from agent.types import Budget, CallRole, Usage


@dataclass(frozen=True, slots=True)
class Spend:
    """Calls, tokens (in + out) and dollars."""

    calls: int = 0
    tokens: int = 0
    usd: float = 0.0

    def __add__(self, other: Spend) -> Spend:
        return Spend(self.calls + other.calls, self.tokens + other.tokens, self.usd + other.usd)

    def fits(self, budget: Budget) -> bool:
        return (
            (budget.max_calls is None or self.calls <= budget.max_calls)
            and (budget.max_tokens is None or self.tokens <= budget.max_tokens)
            and (budget.max_cost is None or self.usd <= budget.max_cost + 1e-12)
        )


class Account:
    """Spending of one run against its budget. Not thread-safe: one event loop."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.started = time.monotonic()
        self.paid: dict[CallRole, Spend] = {}
        self.used: dict[CallRole, Spend] = {}
        self.usage = Usage()
        self.cached = 0
        self.retries = 0
        self._reserved = Spend()

    @property
    def total_paid(self) -> Spend:
        return sum(self.paid.values(), Spend())

    @property
    def total_used(self) -> Spend:
        return sum(self.used.values(), Spend())

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def out_of_time(self) -> bool:
        limit = self.budget.time_limit
        return limit is not None and self.seconds >= limit

    def reserve(self, worst: Spend) -> None:
        """Sets `worst` aside. Raises BudgetExhausted, naming the cap, when it does not fit any more."""
        after = self.total_paid + self._reserved + worst
        if not after.fits(self.budget):
            raise BudgetExhausted(f"the next call would pass the cap ({self._caps()}); raise it to go on")
        self._reserved += worst

    def release(self, worst: Spend) -> None:
        held = self._reserved
        self._reserved = Spend(held.calls - worst.calls, held.tokens - worst.tokens, held.usd - worst.usd)

    def charge(self, role: CallRole, spend: Spend) -> None:
        self.paid[role] = self.paid.get(role, Spend()) + spend

    def use(self, role: CallRole, usage: Usage, usd: float, cached: bool) -> None:
        """Counts one settled call that the run makes use of."""
        spend = Spend(1, usage.prompt_tokens + usage.completion_tokens, usd)
        self.used[role] = self.used.get(role, Spend()) + spend
        self.cached += cached
        self.usage = replace(
            self.usage,
            prompt_tokens=self.usage.prompt_tokens + usage.prompt_tokens,
            completion_tokens=self.usage.completion_tokens + usage.completion_tokens,
            cached_prompt_tokens=self.usage.cached_prompt_tokens + usage.cached_prompt_tokens,
        )

    def _caps(self) -> str:
        names = ("max_calls", "max_tokens", "max_cost")
        return ", ".join(f"{name} = {value}" for name in names if (value := getattr(self.budget, name)) is not None)
