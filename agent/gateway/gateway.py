"""Every model call of every role passes through here: cache, budget, limits, retries, record.

A call in flight is a separate task. If the task that waits for it is cancelled, a call that was sent is still settled
and recorded, because it is paid for; only an unsent call can be cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Protocol

from agent.errors import (
    LedgerError,
    ModelError,
    ParameterRefused,
    RateLimited,
    RequestRefused,
    RunRefused,
    Transient,
    TransportUnknown,
)
from agent.gateway.batches import BatchedCall, Batches
from agent.gateway.budget import STEADY, Account, times
from agent.gateway.in_flight import Flight, InFlight, PendingCall, in_flight
from agent.gateway.limiter import START, Limiter
from agent.gateway.prices import Price, dearest_call
from agent.gateway.retries import Retries, maybe_paid
from agent.ledger.resume_state import OVERBILLED
from agent.ledger.store import Ledger, Reservation, state_after
from agent.models.provider_jobs import batch_api
from agent.models.tool_calling import tools_text
from agent.observer import NO_OBSERVER, Observer
from agent.options.shared import AskingOptions
from agent.tracking.spans import NO_TRACER, ROLE
from agent.types import LM, CallRole, Completion, Request, Spend, Usage, call_key, endpoint_of

DEFAULT_CONCURRENCY = 32
TEMPLATE_TOKENS = 8  # allowance for the chat template around each message, for the reservation
TOOLS_TOKENS = 500  # allowance for a provider's own instructions on tools; Anthropic's have up to 350
_TOGETHER: ContextVar[bool] = ContextVar("_TOGETHER", default=False)  # whether calls of the current task may be batched


def most_tokens_in(count: Callable[[str], int], request: Request) -> int:
    """Bound the tokens of a request, with what the provider adds to messages and tools."""
    of_messages = sum(count(message.content) + TEMPLATE_TOKENS for message in request.messages)
    return of_messages + (count(tools_text(request.tools)) + TOOLS_TOKENS if request.tools else 0)


class ModelClient(Protocol):
    """Sends calls to models: the gateway, or a client in front of it."""

    @property
    def stopped(self) -> Exception | None: ...

    async def complete(self, role: CallRole, lm: LM, request: Request, candidate_id: str = "") -> Completion: ...


@dataclass(frozen=True, slots=True)
class CallSettings:
    """How calls are made: limits (`asking`), and whether settled calls of any run answer (`use_cache`).

    `reasoning_tokens`: what a reply of a proposer or judge may have in addition to its `max_tokens`.
    """

    asking: AskingOptions = field(default_factory=AskingOptions)
    reasoning_tokens: int = 0
    use_cache: bool = True
    jitter: random.Random | None = None


class Gateway:
    """Calls models for one run: returns a settled reply or raises, never scores 0."""

    def __init__(
        self,
        ledger: Ledger,
        run_id: str,
        account: Account,
        prices: dict[str, Price],
        settings: CallSettings = CallSettings(),
        observer: Observer = NO_OBSERVER,
        batches: Batches | None = None,
    ) -> None:
        self.account, self.batches, self.tracer = account, batches, NO_TRACER
        self._settings, self._jitter = settings, settings.jitter or random.Random(0)
        self.retries = Retries(self._jitter)
        self._ledger, self._run_id, self._prices, self._observer = ledger, run_id, prices, observer
        self._past, self._clock = account.past, account.clock
        self._own: dict[str, int] = {}  # by call key, the attempt that this run paid before it was interrupted
        self._answered: set[tuple[str, str]] = set()  # models and candidates of replies
        self._limiters: dict[str, Limiter] = {}
        self._flights: set[Flight] = set()
        self._joinable: dict[str, Flight] = {}  # by call key
        self.stopped: Exception | None = None

    async def complete(self, role: CallRole, lm: LM, request: Request, candidate_id: str = "") -> Completion:
        """Call a model once; settled calls are answered by the ledger.

        For a proposer or judge, `max_tokens` excludes reasoning. Raises BudgetExhausted, ModelError, LedgerError, and
        the error given to `stop`.
        """
        if self.stopped is not None:
            raise self.stopped
        if role in ("proposer", "judge"):
            request = replace(request, max_tokens=request.max_tokens + self._settings.reasoning_tokens)
        key = call_key(lm, request)
        self.account.failed += self._past.losses.pop(key, 0)
        flight = self._joinable.get(key)
        is_twin = flight is not None and not flight.cancelled
        if flight is None or flight.cancelled:
            turn = next(self._limiter(lm).turns)
            if (settled := self._settled(role, lm, key, candidate_id)) is not None:
                return settled
            flight = self._start(role, lm, request, key, candidate_id, turn)
        assert flight.task is not None
        flight.waiting += 1
        try:
            completion = await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            flight.waiting -= 1
            if not flight.waiting:
                flight.cancel()
            task = asyncio.current_task()
            is_cancelled = task is not None and task.cancelling() > 0  # itself, and not only what it waits for
            if self.stopped is not None and flight.task.cancelled() and not is_cancelled:
                raise self.stopped from None
            raise
        if is_twin:
            self._record_hit(role, lm, key, candidate_id, completion)
        return completion

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Let calls that begin inside be sent as one batch, if batches are on."""
        token = _TOGETHER.set(True)
        try:
            yield
        finally:
            _TOGETHER.reset(token)

    def stop(self, error: Exception) -> None:
        """Send nothing more: waiting and later calls raise `error`; calls in flight finish."""
        self.stopped = self.stopped or error
        for limiter in self._limiters.values():
            limiter.close(self.stopped)
        for flight in self._flights:
            flight.cancel()

    def in_flight(self) -> int:
        """Return how many calls are sent and not settled."""
        return sum(flight.sent for flight in self._flights)

    def waiting(self) -> InFlight:
        """Return what is awaited now, including calls of models in this process."""
        sent = [(flight.model, flight.since) for flight in self._flights if flight.since is not None]
        silent = [each for each in self._limiters.values() if each.trouble]
        outages = [f"{each.name}: {each.trouble}; giving up in {each.seconds_left():.0f} s" for each in silent]
        return in_flight(sent, self._clock.now(), next(iter(outages), ""))

    async def drain(self) -> None:
        """Wait until every sent call is on the disk; cancel the others."""
        for flight in self._flights:
            flight.cancel()
        tasks = [flight.task for flight in self._flights if flight.task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """Stop waiting for batches; they go on at the provider."""
        if self.batches is not None:
            await self.batches.close()

    def _settled(self, role: CallRole, lm: LM, key: str, candidate_id: str) -> Completion | None:
        past = self._past
        while attempts := past.bought.get(key):
            self._own[key] = attempts.pop(0)
            if (reply := self._ledger.reply(self._own[key])) is not None:
                self._use(role, lm, candidate_id, reply.usage, self._cost(lm, reply.usage))
                return reply
        was_hit = past.hits[key, candidate_id] > 0
        if was_hit and key in self._own:
            reply = self._ledger.reply(self._own[key])
        elif self._settings.use_cache or was_hit:
            reply = self._ledger.settled(key)
        else:
            left = past.left.get(key)
            reply = self._ledger.reply(left.pop(0)) if left else None
        if reply is None:
            return None
        if was_hit:
            past.hits[key, candidate_id] -= 1
        self._record_hit(role, lm, key, candidate_id, reply, is_new=not was_hit)
        return reply

    def _record_hit(
        self, role: CallRole, lm: LM, key: str, candidate_id: str, reply: Completion, is_new: bool = True
    ) -> None:
        if is_new:
            self._ledger.cache_hit(self._run_id, role, lm.name, key, candidate_id, reply.usage)
        self._use(role, lm, candidate_id, reply.usage, self._cost(lm, reply.usage), cached=True)

    def _use(
        self, role: CallRole, lm: LM, candidate_id: str, usage: Usage, usd: float, *, cached: bool = False
    ) -> None:
        self._answered.add((lm.name, candidate_id))
        self.account.use(role, usage, usd, cached, candidate_id)
        self._observer.on_call_settled()

    def _start(self, role: CallRole, lm: LM, request: Request, key: str, candidate_id: str, turn: int) -> Flight:
        budget = self.account.budget
        is_counted = lm.concurrency is None or budget.max_tokens is not None or budget.max_cost is not None
        tokens_in = most_tokens_in(lm.count_tokens, request) if is_counted else 0  # counting takes time
        usd = dearest_call(partial(self._cost, lm), tokens_in, request.max_tokens)
        worst = Spend(1, tokens_in + request.max_tokens, usd)
        call = PendingCall(role, lm, request, key, candidate_id, worst, turn)
        flight = Flight(call.lm.name)

        def ended(task: asyncio.Task[Completion]) -> None:
            self._flights.discard(flight)
            if self._joinable.get(key) is flight:
                del self._joinable[key]
            if not task.cancelled():
                task.exception()  # retrieved here, or asyncio warns; waiting tasks get it anyway

        flight.task = asyncio.get_running_loop().create_task(self._send(call, flight))
        flight.task.add_done_callback(ended)
        self._flights.add(flight)
        self._joinable[key] = flight
        return flight

    async def _send(self, call: PendingCall, flight: Flight) -> Completion:
        attempt = 0
        if self.batches is not None and _TOGETHER.get() and batch_api(call.lm) is not None:
            batched, attempt = await BatchedCall(self, self.batches, call, flight).reply()
            if batched is not None:
                return batched
        limiter = self._limiter(call.lm)
        failed = paid = limited = 0
        answers: int | None = None
        while True:
            left = self.account.time_left()
            try:
                async with asyncio.timeout(None if left == math.inf else left):
                    await limiter.acquire()
            except TimeoutError as late:
                raise self.account.exhausted("time_limit") from late
            attempt += 1
            try:
                outcome = await self._attempt(call, flight, limiter, attempt)
            finally:
                flight.since = None
                limiter.release()
            if isinstance(outcome, Completion):
                return outcome
            if outcome is None:  # not sent
                continue
            flight.sent = False
            answers = limiter.answers if answers is None else answers
            if maybe_paid(outcome):
                paid += 1
            elif isinstance(outcome, RateLimited):
                if limiter.answers > answers:  # else no call is let through, and this one is not at fault
                    limited += 1
                    limiter.limited_again(limited)
            elif not isinstance(outcome, ParameterRefused):
                # during an outage no call is at fault, unless others were answered since it first failed
                failed += not limiter.is_open() or limiter.answers > answers
            tried = paid if maybe_paid(outcome) else failed
            delay = self.retries.delay(outcome, tried, self.account.total_used.calls)
            if delay is None:
                raise outcome
            await self._clock.sleep(min(delay, limiter.seconds_left(), self.account.time_left()))

    def reservation(self, call: PendingCall, attempt: int) -> Reservation:
        who = (self._run_id, call.role, call.lm.name, call.key, call.candidate_id)
        return Reservation(*who, attempt, call.request, call.worst.usd, call.worst.tokens, endpoint_of(call.lm))

    async def _attempt(
        self, call: PendingCall, flight: Flight, limiter: Limiter, attempt: int
    ) -> Completion | ModelError | None:
        plain, call = call, replace(call, worst=await self.account.set_aside(call.lm.name, call.worst))
        try:
            call_id = await self._reserve(call, attempt)
        except BaseException:
            self.account.release(call.worst)
            raise
        if limiter.is_paused() or call.worst != self.account.bills.reserved(call.lm.name, plain.worst):
            self.account.release(call.worst)
            await self._ledger.fail(self._run_id, call_id, "error", "not_sent", 0.0, 0.0)
            return None
        flight.sent = call.lm.concurrency is None  # calls in this process are free and can be cancelled
        self._ledger.sent(call_id)
        started = flight.since = self._clock.now()
        limit = asyncio.timeout(self.account.landing_left())
        try:
            with self.tracer.call(call.lm.name, call.request, call.candidate_id, {ROLE: call.role}) as answered:
                async with limit:
                    reply = await call.lm.complete(call.request)
                answered(reply)
        except ModelError as error:
            await self._failed(call, call_id, error, limiter, self._clock.now() - started)
            return error
        except BaseException as error:
            # cancelled, too late or an internal error: unknown, and charged as if answered, unless the model runs here
            free = call.lm.concurrency is not None
            self.account.release(call.worst)
            self.account.lose(call.role, Spend(1) if free else call.worst)
            state, usd = ("error", 0.0) if free else ("unknown", call.worst.usd)
            with contextlib.suppress(LedgerError):  # the first error is the one that counts
                latency = self._clock.now() - started
                await self._ledger.fail(self._run_id, call_id, state, type(error).__name__, latency, usd)
            if limit.expired():
                raise self.account.exhausted("time_limit") from error
            raise
        usd = self._cost(call.lm, reply.usage)
        spend = Spend(1, reply.usage.tokens, usd)
        self.account.charge(call.role, spend)
        self._read_bill(plain, spend, limiter)
        self.account.release(call.worst)
        limiter.succeeded()
        latency = self._clock.now() - started if reply.seconds is None else reply.seconds
        await self._ledger.settle(self._run_id, call_id, reply, usd, latency)
        self._use(call.role, call.lm, call.candidate_id, reply.usage, usd)
        return reply

    def _read_bill(self, call: PendingCall, paid: Spend, limiter: Limiter) -> None:
        bills, name = self.account.bills, call.lm.name
        is_first = bills.reserved(name, call.worst) == call.worst
        excess = bills.read(name, call.worst, paid)
        limiter.one_by_one = not bills.is_predictable(name)
        if excess is None:
            return
        body = {"model": name, "times": asdict(excess), "reserved": asdict(call.worst), "paid": asdict(paid)}
        self._ledger.event(self._run_id, OVERBILLED, body)
        if is_first:
            self._observer.on_message(
                f"{name}: a reply cost {times(excess.most)} its reservation: {paid.tokens:,} tokens (${paid.usd:.4f}), "
                f"not {call.worst.tokens:,} (${call.worst.usd:.4f}); later calls are reserved at this cost, one at "
                f"a time until {STEADY} consecutive replies stay within it"
            )

    async def _reserve(self, call: PendingCall, attempt: int) -> int:
        writing = asyncio.ensure_future(self._ledger.reserve(self.reservation(call, attempt)))
        try:
            return await asyncio.shield(writing)
        except asyncio.CancelledError:
            await self._ledger.fail(self._run_id, await writing, "error", "not_sent", 0.0, 0.0)
            raise

    async def _failed(
        self, call: PendingCall, call_id: int, error: ModelError, limiter: Limiter, latency: float
    ) -> None:
        spend = self.account.failed_attempt(call.role, call.worst, error)
        await self._ledger.fail(self._run_id, call_id, state_after(error), error, latency, spend.usd)
        try:
            if isinstance(error, RateLimited):
                limiter.rate_limited(error.retry_after, latency)
            elif isinstance(error, RunRefused):
                raise error
            elif isinstance(error, Transient | TransportUnknown) and not isinstance(error, ParameterRefused):
                limiter.failed(error)
            elif isinstance(error, RequestRefused) and (
                call.candidate_id != "" and (call.lm.name, call.candidate_id) in self._answered
            ):  # else the candidate itself may be what is refused
                limiter.refused(error, call.turn)
            else:
                limiter.answered()
        except RunRefused as refusal:
            limiter.close(refusal)
            raise

    def _limiter(self, lm: LM) -> Limiter:
        limiter = self._limiters.get(lm.name)
        if limiter is None:
            asking, is_free = self._settings.asking, lm.concurrency is not None  # models in this process are free
            ceiling = asking.max_concurrency or lm.concurrency or DEFAULT_CONCURRENCY
            budget, has_price = self.account.budget, lm.name in self._prices
            is_capped = budget.max_tokens is not None or (budget.max_cost is not None and has_price)
            start = START if is_free or not is_capped else 1  # a bill may pass the cap: see the first ones
            limiter = Limiter(lm.name, ceiling, is_free, asking.longest_wait, self._jitter, start, self._clock)
            self._limiters[lm.name] = limiter
            limiter.one_by_one = not self.account.bills.is_predictable(lm.name)
            if self.stopped is not None:
                limiter.close(self.stopped)
        return limiter

    def width(self, lm: LM) -> int:
        return self._limiter(lm).allowed()

    def _cost(self, lm: LM, usage: Usage) -> float:
        price = self._prices.get(lm.name)
        return price(usage) if price else 0.0
