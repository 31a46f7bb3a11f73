"""The life of one batch: submit it or find it again, poll it until it ends, hand out its results."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from agent.errors import BadResponse, ModelError, RunRefused
from agent.gateway.retries import CLOCK, FIRST_WAIT, GROWTH, LINE_SECONDS, LONGEST_WAIT, Clock, poll
from agent.models.provider_jobs import BatchApi, BatchJob, BatchResults, RowReply
from agent.safe_text import counted
from agent.types import Request, Spend

T = TypeVar("T")
SKEW = timedelta(days=1)  # that the provider's clock may differ from ours
GONE, REFUSED = "gone", "refused"  # the statuses of a batch that its provider does not know, or would not take
_ENDINGS = {
    "completed": "is complete",
    "failed": "failed",
    "expired": "has expired",
    "cancelled": "was cancelled",
    GONE: "is no longer known to the provider",
    REFUSED: "was refused",
}


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """How calls are sent as batches; `only`: rows without an answer are not asked live."""

    wait: float | None = None  # seconds until a batch is given up
    only: bool = False
    longest_wait: float = 300.0  # seconds for which a provider that fails is retried
    is_fresh: bool = False  # ignore old batches


@dataclass(frozen=True, slots=True)
class Wanted:
    """A call that waits for its row: its request, its reservation, and the future of its reply."""

    request: Request
    worst: Spend
    reply: asyncio.Future[RowReply]


@dataclass(slots=True, eq=False)
class Batch:
    """A batch, from the moment it is intended."""

    name: str
    since: datetime
    rows: int
    pending: set[str]
    is_new: bool  # all requests are known, so it can be submitted
    run_id: str
    job: str = ""  # its id at the provider, if known
    wanted: dict[str, Wanted] = field(default_factory=dict)
    replies: dict[str, RowReply] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)
    unserved: int = 0
    ended: BatchJob | None = None
    is_noted: bool = False  # its end is in the ledger
    error: Exception | None = None
    is_refused: bool = False
    is_over: bool = False  # the provider has ended it
    task: asyncio.Task[None] | None = None

    def want(self, key: str, waiting: Wanted) -> None:
        self.wanted[key] = waiting
        if key in self.replies:
            waiting.reply.set_result(self.replies[key])
        elif self.error is not None:
            waiting.reply.set_exception(self.error)

    def deliver(self, key: str, reply: RowReply) -> None:
        """Record the reply of a row, once."""
        if key in self.pending and key not in self.replies:
            self.replies[key] = reply
            self._answer(key, reply)

    def leave_unserved(self, words: str) -> set[str]:
        """Give up the rows without a reply and return their keys."""
        keys = self.pending - self.replies.keys()
        for key in keys:
            self._answer(key, RowReply(None, words))
        self.pending -= keys
        self.unserved = len(keys)
        return keys

    def fail(self, error: Exception) -> None:
        """Raise an error in all calls that wait."""
        self.error = error
        for waiting in self.wanted.values():
            if not waiting.reply.done():
                waiting.reply.set_exception(error)

    def _answer(self, key: str, reply: RowReply) -> None:
        waiting = self.wanted.get(key)
        if waiting is not None and not waiting.reply.done():
            waiting.reply.set_result(reply)


class Course:
    """The course of a batch at its provider."""

    def __init__(
        self,
        batch: Batch,
        api: BatchApi[Any],
        settings: BatchSettings,
        say: Callable[[str], None],
        clock: Clock = CLOCK,
    ) -> None:
        self._batch, self._api, self._settings, self._say, self._clock = batch, api, settings, say, clock

    async def submitted(self, known: Collection[str]) -> tuple[BatchJob | None, bool]:
        """Return the batch found or submitted, and whether it is certainly this one. None: it never arrived."""
        batch, api = self._batch, self._api
        if batch.job:
            return await self.look(batch.job), True
        may_be_there = not batch.is_new or bool(batch.others)
        rows = [(key, waiting.request) for key, waiting in batch.wanted.items()]

        async def once() -> tuple[BatchJob | None, bool]:
            nonlocal may_be_there
            if may_be_there:
                since = (batch.since - SKEW).timestamp()
                job = await api.find(batch.name, batch.rows, since, {*batch.others, *known})
                if job is not None or not batch.is_new:
                    return job, api.is_sure
            may_be_there = True  # even if the submission fails
            try:
                return await api.submit(batch.name, rows), True
            except ModelError as error:
                if error.retry or isinstance(error, RunRefused):
                    raise
                return BatchJob("", REFUSED, True, words=str(error)), True

        return await self._poll(once)

    async def until_ended(self, job: BatchJob, is_sure: bool) -> BatchJob:
        """Poll until the batch has ended, handing out its results. Raises RunRefused on timeout."""
        wait, began, most = FIRST_WAIT, self._clock.now(), self._settings.wait
        said, taken = began, 0
        while not job.is_ended:
            now = self._clock.now()
            if most is not None and now - began >= most:
                raise RunRefused(
                    f"the batch {job.id} has not ended within {most:g} seconds ({_progress(job)}); it continues at "
                    "the provider: resume later"
                )
            await self._clock.sleep(wait if most is None else min(wait, most - (now - began)))
            wait, before = min(LONGEST_WAIT, GROWTH * wait), job
            job = await self.look(job.id)
            if job.is_ended:
                break
            if is_sure and job.done > taken:
                taken = job.done
                with suppress(BadResponse):  # the complete results follow at the end
                    self._deliver(await self._poll(partial(self._api.results, job)))
            if _progress(job) != _progress(before) or now - said >= LINE_SECONDS:
                said = now
                self._say(f"the batch {job.id} is {_progress(job)}")
        if is_sure or await self.is_named(job):
            self._batch.is_over = True
            job = await self._take(job)
        return job

    async def is_named(self, job: BatchJob) -> bool:
        """Return whether the results of an ended batch carry this batch's name."""
        results, _ = await self._results(job)
        return any(custom_id.startswith(f"{self._batch.name}-") for custom_id, _ in results.rows)

    async def look(self, job: str) -> BatchJob:

        async def once() -> BatchJob:
            try:
                return await self._api.look(job)
            except RunRefused as refusal:
                if refusal.status != 404:
                    raise
                return BatchJob(job, GONE, True)

        return await self._poll(once)

    async def _take(self, job: BatchJob) -> BatchJob:
        if job.status in (GONE, REFUSED):
            return job
        results, fault = await self._results(job)
        self._deliver(results)
        if results.bad_lines:
            fault = f"{counted(results.bad_lines, 'line')} of its results cannot be read"
        return replace(job, words="; ".join(filter(None, (job.words, fault))))

    async def _results(self, job: BatchJob) -> tuple[BatchResults, str]:
        async def once() -> BatchResults:
            results = await self._api.results(job)
            if results.bad_lines and not results.rows:  # retried, as a proxy may have sent its own page
                raise BadResponse("its results are not JSON Lines")
            return results

        try:
            return await self._poll(once), ""
        except BadResponse as error:
            return BatchResults(), str(error)

    def _deliver(self, results: BatchResults) -> None:
        for custom_id, reply in results.rows:
            name, _, key = custom_id.partition("-")
            if name == self._batch.name and reply.status is not None:
                self._batch.deliver(key, reply)

    def _poll(self, ask: Callable[[], Awaitable[T]]) -> Awaitable[T]:
        return poll(ask, self._clock.sleep, self._say, self._settings.longest_wait, FIRST_WAIT, self._clock)


def ending(job: BatchJob) -> str:
    """Describe how a batch ended."""
    name = f"the batch {job.id}" if job.id else "the batch"
    return f"{name} {_ENDINGS.get(job.status, 'has ended')}{f' ({job.words})' if job.words else ''}"


def _progress(job: BatchJob) -> str:
    return f"{job.status}, {job.done} of {job.rows} done" if job.rows else job.status
