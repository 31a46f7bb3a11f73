"""Hard budget caps over all roles. A call is reserved at its worst case before it is sent.

There are two accounts. `paid` is everything sent in this run, including retries and unknown outcomes: a cap is passed
only by what a provider bills above the reservations of the calls in flight (`Bills`). `used` counts every call whose
reply the run used, cached ones as if paid: the search ends by it, so that a run answered by the cache makes the same
trials as the run that paid.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from agent.errors import BudgetExhausted, ModelError, RateLimited
from agent.gateway.retries import CLOCK, Clock, maybe_paid
from agent.ledger.resume_state import ResumeState
from agent.types import Budget, CallRole, Spend, Usage

LANDING_SECONDS = 10.0  # seconds that calls in flight have to finish after the time limit
MOST_LOST = 0.25  # of the calls that came back; a provider that loses more is stopped by other means


@dataclass(frozen=True, slots=True)
class HeldBack:
    """The part of the caps reserved for the end of the run: calls, and a share in [0, 1] of tokens, dollars, time."""

    calls: int = 0
    share: float = 0.0


class Account:
    """Spending of one run against its budget, in one event loop; `past` is a resumed run's.

    `failed` counts failed attempts of calls that a resumed run reaches again, `limited` requests refused with 429,
    which cost nothing. Models without a price (`no_price`) count as $0.
    """

    def __init__(
        self, budget: Budget, past: ResumeState | None = None, no_price: Sequence[str] = (), clock: Clock = CLOCK
    ) -> None:
        self.past = past = past or ResumeState()
        self.clock = clock
        self.budget, self.no_price = budget, tuple(no_price)
        self.paid: dict[CallRole, Spend] = dict(past.paid)
        self.used: dict[CallRole, Spend] = {}
        self.used_for: dict[str, Spend] = {}  # by candidate
        self.usage = Usage()
        self.cached = 0
        self.lost, self.failed = max(0, past.lost), 0
        self.lost_usd, self.limited = past.lost_usd, past.limited
        self.bills = Bills(budget, {model: Excess(**times) for model, times in past.excess.items()})
        self.held_back = HeldBack()
        self.total_paid = sum(self.paid.values(), Spend())
        self._reserved = Spend()
        self._waiting: list[asyncio.Future[None]] = []  # calls that wait for room
        self._started = self.clock.now() - past.seconds

    @property
    def unpriced(self) -> tuple[str, ...]:
        """Models that make the dollars paid unknown; empty until something was paid."""
        return self.no_price if self.total_paid.calls else ()

    @property
    def total_used(self) -> Spend:
        return sum(self.used.values(), Spend())

    @property
    def seconds(self) -> float:
        return self.clock.now() - self._started

    def hold_back(self, part: HeldBack) -> None:
        """Reserve a part of the caps for the end of the run; `hold_back(HeldBack())` frees it."""
        self.held_back = part

    def reserve(self, worst: Spend) -> None:
        """Reserve `worst`. Raises BudgetExhausted, naming the cap, if it does not fit."""
        if name := self._passed(self.total_paid + self._reserved + worst):
            raise self.exhausted(name)
        self._reserved += worst

    async def set_aside(self, model: str, worst: Spend) -> Spend:
        """Reserve the worst case of a call by its model's bills. Waits for calls in flight that may cost less."""
        while True:
            most = self.bills.reserved(model, worst)
            try:
                self.reserve(most)
                return most
            except BudgetExhausted:  # even if the calls in flight turn out to cost next to nothing?
                if self._passed(self.total_paid + Spend(self._reserved.calls) + most):
                    raise
            room = asyncio.get_running_loop().create_future()
            self._waiting.append(room)
            await room

    def exhausted(self, name: str) -> BudgetExhausted:
        """Return the error of a call that would pass the cap `name`."""
        if passed := self.overspent():
            return BudgetExhausted(f"{passed}; give more")
        whole = getattr(self.budget, name)
        part = self._kept_calls() if name == "max_calls" else f"{self.held_back.share:.0%}"
        kept = f", {part} of it kept for the sealed test" if self.held_back.calls else ""
        dear = f", because {self._dear()}" if self.bills.most > 1 else ""
        return BudgetExhausted(f"the next call would pass the cap ({name} = {whole:g}{kept}){dear}; give more")

    def overspent(self) -> str:
        """Describe by how much spending passes a cap, and why; "" if none. The caps are those on dollars and tokens."""
        paid, budget = self.total_paid, self.budget
        if budget.max_cost is not None and paid.usd - 1e-12 > budget.max_cost:
            over = f"${paid.usd - budget.max_cost:.4f}"
            passed = f"paid ${paid.usd:.4f}, which passes the cap (max_cost = {budget.max_cost:g}) by {over}"
        elif budget.max_tokens is not None and paid.tokens > budget.max_tokens:
            over = f"{paid.tokens - budget.max_tokens:,}"
            passed = f"paid {paid.tokens:,} tokens, which passes the cap (max_tokens = {budget.max_tokens}) by {over}"
        else:
            return ""
        return f"{passed}, because {self._dear()}" if self.bills.most > 1 else passed

    def _dear(self) -> str:
        return f"replies cost up to {times(self.bills.most)} their reservation"

    def time_left(self) -> float:
        """Return the seconds until no more calls start; inf without a time limit."""
        limit = self.budget.time_limit
        return math.inf if limit is None else max(0.0, limit * (1.0 - self.held_back.share) - self.seconds)

    def landing_left(self) -> float | None:
        """Return the seconds until calls in flight are cancelled; None without a time limit."""
        limit = self.budget.time_limit
        return None if limit is None else max(0.0, limit + LANDING_SECONDS - self.seconds)

    def payable(self) -> float:
        """Estimate how many replies `max_calls` still pays, by the failure rate. A resumed run estimates the same."""
        if self.budget.max_calls is None:
            return math.inf
        used = self.total_used.calls
        rate = _rate(self.failed, used)
        free = self.budget.max_calls - used - self.failed - _attempts(self.held_back.calls, rate)
        root = (math.sqrt(rate + (1 + rate) * max(0, free)) - math.sqrt(rate)) / (1 + rate)
        return math.floor(root**2 + 1e-9)  # the most calls of which _attempts are free

    def payable_in_time(self) -> float:
        """Estimate how many calls the whole time limit pays for; inf without a limit."""
        limit, paid = self.budget.time_limit, self.total_paid.calls
        return math.inf if limit is None or not paid else paid * limit / max(self.seconds, 1e-9)

    def _passed(self, after: Spend) -> str:
        budget, part = self.budget, 1.0 - self.held_back.share
        caps = (
            ("max_calls", after.calls + self._kept_calls(), budget.max_calls),
            ("max_tokens", after.tokens, budget.max_tokens and budget.max_tokens * part),
            ("max_cost", after.usd - 1e-12, budget.max_cost and budget.max_cost * part),
            ("time_limit", self.seconds, budget.time_limit and budget.time_limit * part),
        )
        return next((name for name, value, cap in caps if cap is not None and value > cap), "")

    def _kept_calls(self) -> int:
        return _attempts(self.held_back.calls, _rate(self.lost, self.total_paid.calls - self.lost))

    def release(self, worst: Spend) -> None:
        """Return a reservation and wake the calls that wait for room, first come first."""
        self._reserved -= worst
        for room in self._waiting:
            if not room.done():
                room.set_result(None)
        self._waiting.clear()

    def charge(self, role: CallRole, spend: Spend) -> None:
        self.paid[role] = self.paid.get(role, Spend()) + spend
        self.total_paid += spend

    def failed_attempt(self, role: CallRole, worst: Spend, error: ModelError) -> Spend:
        """Release `worst` and charge a failed attempt.

        A 429 costs nothing; one that may have been paid for costs all.
        """
        self.release(worst)
        if isinstance(error, RateLimited):
            self.limited += 1
            return Spend()
        spend = worst if maybe_paid(error) else Spend(1)
        self.lose(role, spend)
        self.failed += 1
        return spend

    def lose(self, role: CallRole, spend: Spend) -> None:
        """Charge an attempt without a reply."""
        self.lost += 1
        self.lost_usd += spend.usd
        self.charge(role, spend)

    def use(self, role: CallRole, usage: Usage, usd: float, cached: bool, candidate_id: str = "") -> None:
        """Count one settled call whose reply the run uses."""
        spend = Spend(1, usage.tokens, usd)
        self.used[role] = self.used.get(role, Spend()) + spend
        self.used_for[candidate_id] = self.used_for.get(candidate_id, Spend()) + spend
        self.cached += cached
        self.usage += usage


def _rate(lost: int, answered: int) -> float:
    return min(MOST_LOST, lost / max(1, answered))


def _attempts(calls: int, rate: float) -> int:
    losses = calls * rate
    return calls + math.ceil(losses + 2 * math.sqrt(losses))


# -- bills above what was reserved ------------------------------------------------------------------------------------
#
# A provider may bill more than a call's reservation: it ignores `max_tokens`, or bills hidden reasoning. No cap can
# limit what is in flight then; so a model starts with one call, and the number doubles while bills stay within
# reservations. All later calls are reserved at the higher cost.

MARGIN = 1.25  # above the largest excess: the next reply may be slightly longer
STEADY = 8  # consecutive replies within their reservation, after which calls run in parallel again


@dataclass(frozen=True, slots=True)
class Excess:
    """How many times its plain reservation a reply of a model cost, in tokens and dollars; 1: no more."""

    tokens: float = 1.0
    usd: float = 1.0

    @property
    def most(self) -> float:
        return max(self.tokens, self.usd)

    def reserved(self, worst: Spend) -> Spend:
        """Scale the plain reservation `worst` by the excess."""
        return Spend(worst.calls, math.ceil(worst.tokens * _more(self.tokens)), worst.usd * _more(self.usd))


class Bills:
    """Excess of each model of one run, in the units that the budget caps; `before` is a resumed run's."""

    def __init__(self, budget: Budget, before: Mapping[str, Excess] | None = None) -> None:
        self._budget = budget
        self._excess = dict(before or {})
        self._within: Counter[str] = Counter()  # consecutive replies within their reservation
        self._dearest: dict[str, float] = {}  # dollars of a reply, by model
        self.most = max((excess.most for excess in self._excess.values()), default=1.0)
        """Largest ratio of a reply's cost to its plain reservation."""

    def reserved(self, model: str, worst: Spend) -> Spend:
        """Return the reservation of a call of `model` with the plain reservation `worst`."""
        if not worst.usd:  # free, or known only when a reply names it
            worst = replace(worst, usd=self._dearest.get(model, 0.0))
        excess = self._excess.get(model)
        return excess.reserved(worst) if excess else worst

    def is_predictable(self, model: str) -> bool:
        """Return whether recent replies stayed within their reservations, so that calls may run in parallel."""
        return model not in self._excess or self._within[model] >= STEADY

    def read(self, model: str, worst: Spend, paid: Spend) -> Excess | None:
        """Return the model's new excess if a reply cost more than its reservation; else None."""
        budget, old = self._budget, self._excess.get(model, Excess())
        self._dearest[model] = max(paid.usd, self._dearest.get(model, 0.0))
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
    """Format a factor.

    >>> times(1.62), times(32.4)
    ('1.6 times', '32 times')
    """
    return f"{excess:.1f} times" if excess < 9.95 else f"{excess:,.0f} times"
