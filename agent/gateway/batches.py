"""Calls sent to a provider as batches: collected, submitted once, polled, and found again after a kill.

Three events track a batch. `batch_intended` is on the disk before anything is sent, `batch_submitted` has its id at the
provider, `batch_ended` follows once each of its rows is recorded. Rows of a batch without an end are looked up at the
provider by any run that asks for them, and bought again only if the provider has no such batch. A row becomes a call
when its reply arrives: a kill leaves no call with an unknown outcome.
"""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from agent.errors import ModelError, ParameterRefused, RequestRefused, RowRefused, RunRefused
from agent.gateway.batch_course import GONE, Batch, BatchSettings, Course, Wanted, ending
from agent.gateway.in_flight import Flight, PendingCall
from agent.gateway.prices import in_a_batch
from agent.gateway.retries import CLOCK, Clock
from agent.ledger.query import BATCH, Row
from agent.ledger.store import Ledger
from agent.models.hosted import HostedModel, cut
from agent.models.provider_jobs import BatchJob, RowReply, batch_api
from agent.observer import NO_OBSERVER, Observer
from agent.types import LM, Completion, Request, Spend, content_id

if TYPE_CHECKING:
    from agent.gateway.gateway import Gateway

INTENDED, SUBMITTED, ENDED = BATCH
QUIET_SECONDS = 0.5  # seconds without a new row after which the collected rows are submitted
LEAST_ROWS = 10  # fewest rows of a batch; fewer calls are asked live, as waiting would save next to nothing
MOST_ROWS = 5_000  # most rows of a batch; more are split
MOST_BYTES = 100_000_000  # approximate size limit of a batch's requests
ROW_BYTES = 2_000  # approximate size of a row without its messages
RECORDED = "recorded"  # status of a batch whose rows were all recorded when it was looked up
FRESH = timedelta(days=2)  # maximum age of batches and unfinished runs that may answer a run without the cache


class Batches:
    """The batches of a run."""

    def __init__(
        self,
        ledger: Ledger,
        run_id: str,
        settings: BatchSettings,
        observer: Observer = NO_OBSERVER,
        clock: Clock = CLOCK,
    ) -> None:
        self._clock = clock
        self.settings, self._ledger, self._run_id, self._observer = settings, ledger, run_id, observer
        self._open: dict[str, Batch] = {}  # by call key, the batch without an end that has its row
        self._count = 0  # batches of this run so far, for their names
        self._jobs: set[str] = set()  # ids at the provider of all batches that are known
        self._collected: dict[str, tuple[LM, dict[str, Wanted]]] = {}  # by the model's name
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._begun: list[Batch] = []
        for row in ledger.batches():
            self._count += row["run_id"] == run_id
            self._jobs.add(row["job"])
            if row["end"] is None:
                self._open.update(self._taken_up(row))

    async def reply(self, lm: LM, key: str, request: Request, worst: Spend) -> RowReply:
        """Return a batch's reply to a call. Status None, with the reason: no reply. Raises RunRefused."""
        waiting = Wanted(request, worst, asyncio.get_running_loop().create_future())
        if (batch := self._open.get(key)) is None:
            self._collect(lm, key, waiting)
        else:
            batch.want(key, waiting)
            if batch.task is None:
                self._start(batch, lm)
        return await waiting.reply

    async def recorded(self, key: str) -> None:
        """Mark a row as recorded; the last row ends its batch."""
        if (batch := self._open.pop(key, None)) is not None:
            batch.pending.discard(key)
            await self._end(batch)

    def left(self, is_over: bool = False) -> dict[str, list[str]]:
        """List batches without their results by run: still running, or over (`is_over`)."""
        found: dict[str, list[str]] = {}
        for batch in self._begun:
            if batch.ended is None and not batch.is_refused and batch.is_over is is_over:
                found.setdefault(batch.run_id, []).append(batch.job or batch.name)
        return found

    async def close(self) -> None:
        """Stop polling; submitted batches continue at the provider."""
        for timer in self._timers.values():
            timer.cancel()
        tasks = [batch.task for batch in self._begun if batch.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- sets of rows -------------------------------------------------------------------------------------------------

    def _collect(self, lm: LM, key: str, waiting: Wanted) -> None:
        self._collected.setdefault(lm.name, (lm, {}))[1][key] = waiting
        if (timer := self._timers.get(lm.name)) is not None:
            timer.cancel()
        self._timers[lm.name] = asyncio.get_running_loop().call_later(QUIET_SECONDS, self._close_set, lm.name)

    def _close_set(self, name: str) -> None:
        lm, every = self._collected.pop(name)
        rows = {key: waiting for key, waiting in every.items() if not waiting.reply.done()}
        if len(rows) < LEAST_ROWS and not self.settings.only:
            for waiting in rows.values():
                waiting.reply.set_result(RowReply(None))
            return
        part: dict[str, Wanted] = {}
        size = 0
        for key, waiting in rows.items():
            more = ROW_BYTES + sum(len(json.dumps(message.content)) for message in waiting.request.messages)
            if part and (len(part) == MOST_ROWS or size + more > MOST_BYTES):
                self._begin(lm, part)
                part, size = {}, 0
            part[key], size = waiting, size + more
        if part:
            self._begin(lm, part)

    def _begin(self, lm: LM, rows: dict[str, Wanted]) -> None:
        name = content_id("b", [self._ledger.id(), self._run_id, self._count, sorted(rows)])
        self._count += 1
        batch = Batch(name, datetime.now(UTC), len(rows), set(rows), True, self._run_id, wanted=rows)
        self._open.update(dict.fromkeys(rows, batch))
        self._start(batch, lm)

    def _start(self, batch: Batch, lm: LM) -> None:
        self._begun.append(batch)
        batch.task = asyncio.create_task(self._run(batch, lm))

    def _taken_up(self, row: Row) -> dict[str, Batch]:
        body, since = row["body"], datetime.fromisoformat(row["utc"])
        if self.settings.is_fresh and datetime.now(UTC) - since > FRESH:
            return {}
        missing = set(body["rows"]) - self._ledger.recorded_since(row["utc"], body["rows"])
        if not missing:  # killed before recording it
            end = {"job": row["job"], "status": RECORDED, "words": "", "unserved": 0}
            self._ledger.event(self._run_id, ENDED, {"name": body["name"], **end})
        batch = Batch(body["name"], since, len(body["rows"]), missing, False, row["run_id"], row["job"])
        return dict.fromkeys(missing, batch)

    # -- one batch ----------------------------------------------------------------------------------------------------

    async def _run(self, batch: Batch, lm: LM) -> None:
        try:
            await self._to_end(batch, lm)
        except ModelError as error:
            what = str(error).removeprefix(f"{lm.name}: ")
            more = "; resume when the provider is back" * error.retry
            batch.is_refused = not error.retry and not batch.job
            batch.fail(RunRefused(f"{lm.name}: {what}{more}", status=error.status))
        except Exception as error:
            batch.fail(error)

    async def _to_end(self, batch: Batch, lm: LM) -> None:
        api, say = batch_api(lm), partial(self._say, lm)
        assert api is not None
        course = Course(batch, api, self.settings, say, self._clock)
        if batch.is_new:
            worst = sum((waiting.worst for waiting in batch.wanted.values()), Spend())
            reserved = {"calls": worst.calls, "tokens": worst.tokens, "usd": worst.usd}
            await self._note(INTENDED, batch, model=lm.name, rows=list(batch.wanted), reserved=reserved)
        while True:
            job, is_sure = await course.submitted(self._jobs)
            if job is None:  # ask its rows in another batch
                for key in batch.pending:
                    self._open.pop(key, None)
                batch.pending.clear()
                await self._end(batch, BatchJob("", GONE, True))
                for key, waiting in batch.wanted.items():
                    self._collect(lm, key, waiting)
                return
            if is_sure and job.id != batch.job:
                await self._note(SUBMITTED, batch, job=job.id)
                batch.job = job.id
                self._jobs.add(job.id)
                say(f"the batch {job.id} of {batch.rows} calls was submitted ({job.status})")
            job = await course.until_ended(job, is_sure)
            if is_sure or await course.is_named(job):
                break
            batch.others.add(job.id)
        words = ending(job)
        for key in batch.leave_unserved(words):
            self._open.pop(key, None)
        rest = "remain unanswered" if self.settings.only else "are asked live"
        say(f"{words}; {batch.unserved} of its {batch.rows} calls {rest}" if batch.unserved else words)
        await self._end(batch, job)

    async def _end(self, batch: Batch, job: BatchJob | None = None) -> None:
        batch.ended = batch.ended or job
        if batch.ended is not None and not batch.pending and not batch.is_noted:
            batch.is_noted = True
            job = batch.ended
            how = {"job": job.id, "status": job.status, "words": cut(job.words)}
            await self._note(ENDED, batch, **how, unserved=batch.unserved)

    async def _note(self, kind: str, batch: Batch, **body: object) -> None:
        self._ledger.event(self._run_id, kind, {"name": batch.name, **body})
        await self._ledger.commit()

    def _say(self, lm: LM, line: str) -> None:
        self._observer.on_message(f"{lm.name}: {line.removeprefix(f'{lm.name}: ')}")


# -- one call ---------------------------------------------------------------------------------------------------------

ROUNDS = 5  # batches a call may go through: one for each parameter that a model refuses, and one more


class BatchedCall:
    """A call that goes through batches."""

    def __init__(self, gateway: Gateway, batches: Batches, call: PendingCall, flight: Flight) -> None:
        self._gateway, self._batches, self._live, self._flight = gateway, batches, call, flight
        self._call = replace(call, worst=in_a_batch(call.worst))

    async def reply(self) -> tuple[Completion | None, int]:
        """Return the reply (None: ask live) and the number of attempts. Raises ModelError and BudgetExhausted."""
        only = self._batches.settings.only
        for attempt in range(ROUNDS):
            held = replace(
                self._call, worst=await self._gateway.account.set_aside(self._call.lm.name, self._call.worst)
            )
            row = await self._row(held)
            if row.status is None:
                self._gateway.account.release(held.worst)
                if only and row.body:
                    raise RowRefused(f"{held.lm.name}: {row.body}; drop --batch-only to ask it live")
                return None, attempt
            self._flight.sent = True  # no longer cancellable
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
        self._flight.since = gateway.account.clock.now()
        try:
            async with asyncio.timeout(None if left == math.inf else left):
                return await self._batches.reply(held.lm, held.key, held.request, held.worst)
        except TimeoutError as late:  # keeps its reservation: the batch continues at the provider
            raise gateway.account.exhausted("time_limit") from late
        except BaseException:
            gateway.account.release(held.worst)
            raise
        finally:
            self._flight.since = None

    async def _recorded(self, held: PendingCall, row: RowReply) -> Completion | ModelError:
        gateway, account = self._gateway, self._gateway.account
        assert isinstance(held.lm, HostedModel)
        assert row.status is not None
        outcome: Completion | ModelError
        try:
            outcome = held.lm.read_batched(held.request, row.status, row.body)
        except ModelError as error:
            outcome = error
        if isinstance(outcome, Completion):
            usage = outcome.usage
            live = Spend(1, usage.tokens, gateway._cost(held.lm, usage))
            spend = in_a_batch(live)
            account.charge(held.role, spend)
            gateway._read_bill(self._call, spend, gateway._limiter(held.lm))
            account.release(held.worst)
        else:
            spend = account.failed_attempt(held.role, held.worst, outcome)
        await gateway._ledger.record(gateway.reservation(held, 1), outcome, spend.usd)
        if isinstance(outcome, Completion):  # counted as a live call, so that a search makes the same trials
            gateway._use(held.role, held.lm, held.candidate_id, usage, live.usd)
        await self._batches.recorded(held.key)
        return outcome

    def _refusal(self, error: ModelError) -> ModelError:
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
