"""One batch: the calls that wait for its rows, and its course at the provider.

It is submitted once or found again, waited for with patience, and its results are handed out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from agent.errors import BadResponse, ModelError, RunRefused
from agent.gateway.limiter import FIRST_WAIT, GROWTH, LINE_SECONDS, LONGEST_WAIT, patiently
from agent.models.provider_jobs import BatchApi, BatchJob, BatchResults, RowReply
from agent.safe_text import counted
from agent.types import Request, Spend

T = TypeVar("T")
SKEW = timedelta(days=1)
"""That the provider's clock may differ from ours."""
GONE, REFUSED = "gone", "refused"
"""The statuses of a batch that its provider does not know, or would not take."""
_ENDINGS = {
    "completed": "is complete",
    "failed": "failed",
    "expired": "has expired",
    "cancelled": "was cancelled",
    GONE: "is not known to the provider any more",
    REFUSED: "was refused",
}


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """How calls go as batches: for at most `wait` seconds (None: as long as it takes); rows without an answer go one by
    one, unless `only`. A provider that is down is tried for `longest_wait` seconds; `is_fresh`: not by old batches."""

    wait: float | None = None
    only: bool = False
    longest_wait: float = 300.0
    is_fresh: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """A call that waits for its row: what is sent, the most that it can cost, and where the reply goes."""

    request: Request
    worst: Spend
    reply: asyncio.Future[RowReply]


@dataclass(slots=True, eq=False)
class Batch:
    """A batch from its intent on. One that `is_new` has all its requests; `job` is its id at the provider ("": not
    known); the ledger has the end of one that `is_noted`; the provider has ended one that `is_over`."""

    name: str
    since: datetime
    rows: int
    pending: set[str]
    is_new: bool
    run_id: str
    job: str = ""
    wanted: dict[str, Wanted] = field(default_factory=dict)
    replies: dict[str, RowReply] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)
    unserved: int = 0
    ended: BatchJob | None = None
    is_noted: bool = False
    error: Exception | None = None
    is_refused: bool = False
    is_over: bool = False
    task: asyncio.Task[None] | None = None

    def want(self, key: str, waiting: Wanted) -> None:
        self.wanted[key] = waiting
        if key in self.replies:
            waiting.reply.set_result(self.replies[key])
        elif self.error is not None:
            waiting.reply.set_exception(self.error)

    def deliver(self, key: str, reply: RowReply) -> None:
        """Takes the outcome of a row, once."""
        if key in self.pending and key not in self.replies:
            self.replies[key] = reply
            self._answer(key, reply)

    def leave_unserved(self, words: str) -> set[str]:
        """Gives up the rows of which nothing came; returns their keys."""
        keys = self.pending - self.replies.keys()
        for key in keys:
            self._answer(key, RowReply(None, words))
        self.pending -= keys
        self.unserved = len(keys)
        return keys

    def fail(self, error: Exception) -> None:
        """Lets all that wait raise an error."""
        self.error = error
        for waiting in self.wanted.values():
            if not waiting.reply.done():
                waiting.reply.set_exception(error)

    def _answer(self, key: str, reply: RowReply) -> None:
        waiting = self.wanted.get(key)
        if waiting is not None and not waiting.reply.done():
            waiting.reply.set_result(reply)

    def requests(self) -> Mapping[str, Request]:
        return {key: waiting.request for key, waiting in self.wanted.items()}


class Course:
    """The course of a batch."""

    def __init__(self, batch: Batch, api: BatchApi[Any], settings: BatchSettings, say: Callable[[str], None]) -> None:
        self._batch, self._api, self._settings, self._say = batch, api, settings, say

    async def submitted(self, known: Collection[str]) -> tuple[BatchJob | None, bool]:
        """The batch at the provider, found or submitted (None: it never was), and whether it is this one for sure."""
        batch, api = self._batch, self._api
        if batch.job:
            return await self.look(batch.job), True
        may_be_there = not batch.is_new or bool(batch.others)
        rows = list(batch.requests().items())

        async def once() -> tuple[BatchJob | None, bool]:
            nonlocal may_be_there
            if may_be_there:
                since = (batch.since - SKEW).timestamp()
                job = await api.find(batch.name, batch.rows, since, {*batch.others, *known})
                if job is not None or not batch.is_new:
                    return job, api.is_sure
            may_be_there = True  # whatever comes back
            try:
                return await api.submit(batch.name, rows), True
            except ModelError as error:
                if error.retry or isinstance(error, RunRefused):
                    raise
                return BatchJob("", REFUSED, True, words=str(error)), True

        return await self._patiently(once)

    async def until_ended(self, job: BatchJob, is_sure: bool) -> BatchJob:
        """The batch as it is at its end, with its results handed out. Raises RunRefused where that takes too long."""
        wait, began, most = FIRST_WAIT, time.monotonic(), self._settings.wait
        said, taken = began, 0
        while not job.is_ended:
            now = time.monotonic()
            if most is not None and now - began >= most:
                raise RunRefused(
                    f"the batch {job.id} has not ended within {most:g} seconds ({_progress(job)}); it goes on at the "
                    "provider: come back later"
                )
            await asyncio.sleep(wait if most is None else min(wait, most - (now - began)))
            wait, before = min(LONGEST_WAIT, GROWTH * wait), job
            job = await self.look(job.id)
            if job.is_ended:
                break
            if is_sure and job.done > taken:
                taken = job.done
                with suppress(BadResponse):  # the whole results come at the end
                    self._deliver(await self._patiently(partial(self._api.results, job)))
            if _progress(job) != _progress(before) or now - said >= LINE_SECONDS:
                said = now
                self._say(f"the batch {job.id} is {_progress(job)}")
        if is_sure or await self.is_named(job):
            self._batch.is_over = True
            job = await self._take(job)
        return job

    async def is_named(self, job: BatchJob) -> bool:
        """Whether a batch that has ended is this one, by the names of its rows."""
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

        return await self._patiently(once)

    async def _take(self, job: BatchJob) -> BatchJob:
        if job.status in (GONE, REFUSED):
            return job
        results, fault = await self._results(job)
        self._deliver(results)
        if results.bad_lines:
            fault = f"{counted(results.bad_lines, 'line')} of its results cannot be read"
        return replace(job, words="; ".join(filter(None, (job.words, fault))))

    async def _results(self, job: BatchJob) -> tuple[BatchResults, str]:
        """Fetch the results of a batch that has ended, and why nothing of them can be read; "" where something can.

        What cannot be read at all may be a proxy's page: it is fetched again before it counts.
        """

        async def once() -> BatchResults:
            results = await self._api.results(job)
            if results.bad_lines and not results.rows:
                raise BadResponse("its results are not JSON Lines")
            return results

        try:
            return await self._patiently(once), ""
        except BadResponse as error:
            return BatchResults(), str(error)

    def _deliver(self, results: BatchResults) -> None:
        for custom_id, reply in results.rows:
            name, _, key = custom_id.partition("-")
            if name == self._batch.name and reply.status is not None:
                self._batch.deliver(key, reply)

    def _patiently(self, ask: Callable[[], Awaitable[T]]) -> Awaitable[T]:
        return patiently(ask, asyncio.sleep, self._say, self._settings.longest_wait, FIRST_WAIT)


def ending(job: BatchJob) -> str:
    """How a batch ended, in words."""
    name = f"the batch {job.id}" if job.id else "the batch"
    return f"{name} {_ENDINGS.get(job.status, 'has ended')}{f' ({job.words})' if job.words else ''}"


def _progress(job: BatchJob) -> str:
    return f"{job.status}, {job.done} of {job.rows} done" if job.rows else job.status
