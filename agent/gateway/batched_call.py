"""One call that goes with a batch: reserved at half the price, and on the disk with its row."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.errors import ModelError, ParameterRefused, RateLimited, RequestRefused, RowRefused, RunRefused
from agent.gateway.batches import Batches
from agent.gateway.in_flight import Flight, PendingCall
from agent.gateway.prices import in_a_batch
from agent.gateway.retry import maybe_paid
from agent.models.batch_jobs import RowReply
from agent.models.hosted import HostedModel
from agent.types import Completion, Spend

if TYPE_CHECKING:
    from agent.gateway.gateway import Gateway

ROUNDS = 5
"""Batches that a call may go with: one for each parameter that a model refuses, and one more."""


class BatchedCall:
    """A call of a set."""

    def __init__(self, gateway: Gateway, batches: Batches, call: PendingCall, flight: Flight) -> None:
        self._gateway, self._batches, self._live, self._flight = gateway, batches, call, flight
        self._call = replace(call, worst=in_a_batch(call.worst))

    async def reply(self) -> tuple[Completion | None, int]:
        """The reply that a batch brings, None where the call is to go on live; and how many attempts were made.

        Raises:
            ModelError: the row was refused, or stays without an answer.
            BudgetExhausted: the call no longer fits the budget.
        """
        only = self._batches.settings.only
        for attempt in range(ROUNDS):
            held = replace(
                self._call, worst=await self._gateway.account.set_aside(self._call.lm.name, self._call.worst)
            )
            row = await self._row(held)
            if row.status is None:
                self._gateway.account.release(held.worst)
                if only and row.body:
                    raise RowRefused(f"{held.lm.name}: {row.body}; without --batch-only it is asked live")
                return None, attempt
            self._flight.sent = True  # from here on it lands
            outcome = await self._recorded(held, row)
            self._flight.sent = False
            if isinstance(outcome, Completion):
                return outcome, attempt + 1
            if not outcome.retry or (only and not isinstance(outcome, ParameterRefused)):
                raise self._refusal(outcome)
            if not isinstance(outcome, ParameterRefused):
                break
        return None, attempt + 1

    async def _row(self, held: PendingCall) -> RowReply:
        gateway, left = self._gateway, self._gateway.account.time_left()
        self._flight.since = time.monotonic()
        try:
            async with asyncio.timeout(None if left == math.inf else left):
                return await self._batches.reply(held.lm, held.key, held.request, held.worst)
        except TimeoutError as late:  # its reservation stays: it goes on at the provider
            raise gateway.account.exhausted("time_limit") from late
        except BaseException:
            gateway.account.release(held.worst)
            raise
        finally:
            self._flight.since = None

    async def _recorded(self, held: PendingCall, row: RowReply) -> Completion | ModelError:
        gateway, account = self._gateway, self._gateway.account
        outcome = _read(held, row)
        if isinstance(outcome, Completion):
            live = Spend(1, _tokens(outcome), gateway._cost(held.lm, outcome.usage))
            spend = in_a_batch(live)
            account.charge(held.role, spend)
            gateway._read_bill(self._call, spend, gateway._limiter(held.lm))
        elif isinstance(outcome, RateLimited):
            spend = Spend()
            account.limited += 1
        else:
            spend = held.worst if maybe_paid(outcome) else Spend(1)
            account.lose(held.role, spend)
            account.failed += 1
        gateway.account.release(held.worst)
        await gateway.record(held, outcome, spend.usd)
        if isinstance(outcome, Completion):  # used as a live call, so that a search makes the same trials
            gateway._use(held.role, held.lm, held.candidate_id, outcome.usage, live.usd)
        await self._batches.recorded(held.key)
        return outcome

    def _refusal(self, error: ModelError) -> ModelError:
        """The error of a row that asking again does not mend; what refuses all calls stops the run, as a live one."""
        call, limiter = self._live, self._gateway._limiter(self._live.lm)
        try:
            known = call.candidate_id and (call.lm.name, call.candidate_id) in self._gateway._answered
            if known and isinstance(error, RequestRefused):
                limiter.refused(error, call.turn)
        except RunRefused as refusal:
            error = refusal
        if isinstance(error, RunRefused):
            limiter.close(error)
        return error


def _read(held: PendingCall, row: RowReply) -> Completion | ModelError:
    assert isinstance(held.lm, HostedModel)
    assert row.status is not None
    try:
        return held.lm.read_batched(held.request, row.status, row.body)
    except ModelError as error:
        return error


def _tokens(reply: Completion) -> int:
    return reply.usage.prompt_tokens + reply.usage.completion_tokens
