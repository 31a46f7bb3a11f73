"""The one door for every model call of every role: cache, budget, limits, retries, record. Knows no score."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from agent.errors import BadResponse, ModelError, RateLimited, RunRefused, Transient
from agent.gateway.budget import Account, Spend
from agent.gateway.prices import Price
from agent.ledger.store import Ledger
from agent.types import LM, CallRole, Completion, Request, Usage, content_id

MAX_ATTEMPTS = 3
DEFAULT_CONCURRENCY = 8
TEMPLATE_TOKENS = 8  # what a chat template may add to each message, for the reservation


class Gateway:
    """Calls models for one run. `complete` returns a settled reply or raises; nothing is ever scored as 0 here."""

    def __init__(
        self,
        ledger: Ledger,
        run_id: str,
        account: Account,
        prices: dict[str, Price],
        max_concurrency: int | None = None,
        use_cache: bool = True,
        on_call: Callable[[], None] = lambda: None,
        jitter: random.Random | None = None,
    ) -> None:
        self.account = account
        self._ledger = ledger
        self._run_id = run_id
        self._prices = prices
        self._max_concurrency = max_concurrency
        self._use_cache = use_cache
        self._on_call = on_call
        self._jitter = jitter or random.Random(0)
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._flying: dict[str, asyncio.Future[Completion]] = {}
        self._not_before: dict[str, float] = {}
        self._stopped: dict[str, RunRefused] = {}

    async def complete(self, role: CallRole, lm: LM, request: Request, candidate_id: str = "") -> Completion:
        """The reply to `request`. An identical call is bought once: settled ones come from the ledger.

        Raises BudgetExhausted when it no longer fits, RowRefused / RunRefused for what cannot work, and the last
        RateLimited / Transient / BadResponse after three attempts.
        """
        key = content_id("k", {"model": lm.name, **request.identity()})
        while (twin := self._flying.get(key)) is not None:
            await asyncio.wait([twin])
            if not twin.cancelled():
                completion = twin.result()
                self._record_hit(role, lm, key, candidate_id, completion)
                return completion
        if self._use_cache and (settled := self._ledger.settled(key)) is not None:
            self._record_hit(role, lm, key, candidate_id, settled)
            return settled
        flight: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self._flying[key] = flight
        try:
            completion = await self._buy(role, lm, request, key, candidate_id)
            flight.set_result(completion)
            return completion
        except Exception as error:
            flight.set_exception(error)
            flight.exception()  # seen: a twin that waits gets it all the same
            raise
        except BaseException:
            flight.cancel()  # only this caller was interrupted: a twin that waits buys the call itself
            raise
        finally:
            del self._flying[key]

    def _record_hit(self, role: CallRole, lm: LM, key: str, candidate_id: str, completion: Completion) -> None:
        self._ledger.cache_hit(self._run_id, role, lm.name, key, candidate_id, completion.usage)
        self.account.use(role, completion.usage, self._cost(lm, completion.usage), cached=True)
        self._on_call()

    async def _buy(self, role: CallRole, lm: LM, request: Request, key: str, candidate_id: str) -> Completion:
        slots = self._slots.setdefault(lm.name, asyncio.Semaphore(self._width(lm)))
        tokens_in = sum(lm.count_tokens(m.content) + TEMPLATE_TOKENS for m in request.messages) if self._counts() else 0
        worst_usage = Usage(tokens_in, request.max_tokens)
        worst = Spend(1, tokens_in + request.max_tokens, self._cost(lm, worst_usage))
        for attempt in range(1, MAX_ATTEMPTS + 1):
            async with slots:
                await self._pause(lm.name)  # in the slot: a call that queued for it may not have seen a 429 before
                if (stopped := self._stopped.get(lm.name)) is not None:
                    raise stopped
                self.account.reserve(worst)
                call_id = self._ledger.reserve(
                    self._run_id, role, lm.name, key, candidate_id, attempt, request, worst.usd
                )
                started = time.monotonic()
                try:
                    completion = await lm.complete(request)
                except ModelError as error:
                    self.account.release(worst)
                    self._failed(role, call_id, error, worst, time.monotonic() - started)
                    if isinstance(error, RunRefused):
                        self._stopped[lm.name] = error
                    if not error.retry or attempt == MAX_ATTEMPTS:
                        raise
                    delay = self._delay(lm.name, error, attempt)
                except BaseException as error:
                    self.account.release(worst)
                    self.account.charge(role, worst)
                    elapsed = time.monotonic() - started
                    self._ledger.fail(call_id, type(error).__name__, "interrupted", elapsed, worst.usd, "unknown")
                    raise
                else:
                    self.account.release(worst)
                    usage, usd = completion.usage, self._cost(lm, completion.usage)
                    self.account.charge(role, Spend(1, usage.prompt_tokens + usage.completion_tokens, usd))
                    self._ledger.settle(call_id, completion, usd, time.monotonic() - started)
                    self.account.use(role, usage, usd, cached=False)
                    self._on_call()
                    return completion
            await asyncio.sleep(delay)  # outside the slot
        raise AssertionError("unreachable: the loop returns or raises")

    def _failed(self, role: CallRole, call_id: int, error: ModelError, worst: Spend, latency: float) -> None:
        """A failed attempt counts as a call; where the provider may have done the work, it is charged in full."""
        maybe_paid = isinstance(error, Transient | BadResponse)
        self.account.charge(role, worst if maybe_paid else Spend(1))
        self._ledger.fail(
            call_id,
            error.kind,
            str(error),
            latency,
            worst.usd if maybe_paid else 0.0,
            "unknown" if maybe_paid else "error",
        )

    def _delay(self, name: str, error: ModelError, attempt: int) -> float:
        """Seconds until the next attempt, with full jitter. A rate limit holds back every call of the model."""
        self.account.retries += 1
        delay = self._jitter.uniform(0, min(20.0, 0.5 * 2**attempt))
        if isinstance(error, RateLimited):
            delay = error.retry_after if error.retry_after is not None else delay
            self._not_before[name] = max(self._not_before.get(name, 0.0), time.monotonic() + delay)
            return 0.0
        return delay

    async def _pause(self, name: str) -> None:
        while (wait := self._not_before.get(name, 0.0) - time.monotonic()) > 0:
            await asyncio.sleep(wait)

    def _counts(self) -> bool:
        budget = self.account.budget
        return budget.max_tokens is not None or budget.max_cost is not None

    def _cost(self, lm: LM, usage: Usage) -> float:
        price = self._prices.get(lm.name)
        return price(usage) if price else 0.0

    def _width(self, lm: LM) -> int:
        if self._max_concurrency is not None:
            return self._max_concurrency
        return lm.concurrency or DEFAULT_CONCURRENCY
