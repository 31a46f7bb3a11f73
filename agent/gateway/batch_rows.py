"""A batch of calls and its rows, as a run knows them while it waits."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from agent.models.batch_jobs import BatchJob, RowReply
from agent.types import Request, Spend


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """How calls go as batches.

    Args:
        wait: the most seconds for which a batch is waited for. None: as long as it takes.
        only: whether rows that a batch left unanswered stay so; else they go one by one.
    """

    wait: float | None = None
    only: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """A call that waits for its row: what is sent, the most that it can cost, and where the reply goes."""

    request: Request
    worst: Spend
    reply: asyncio.Future[RowReply]


@dataclass(slots=True, eq=False)
class Batch:
    """A batch from its intent on.

    Args:
        name: its own, which the ledger and the provider have.
        since: when it was intended.
        rows: how many it has.
        pending: the call keys of those that are not in the ledger.
        is_new: whether this run begins it, and so has all its requests.
        run_id: of the run that began it.
        job: its id at the provider; "": not known.
        wanted: by call key the calls that wait.
        replies: by call key what came.
        others: ids of batches at the provider that it is not.
        unserved: how many rows were not asked.
        ended: the batch as its provider showed it at its end.
        is_noted: whether the ledger has that.
        error: why it is not waited for any more.
        is_refused: whether the provider would not take it.
        is_over: whether it has ended at the provider.
        task: what waits for it.
    """

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
        """Adds a call that waits for its row."""
        self.wanted[key] = waiting
        if key in self.replies:
            waiting.reply.set_result(self.replies[key])
        elif self.error is not None:
            waiting.reply.set_exception(self.error)

    def deliver(self, key: str, reply: RowReply) -> None:
        """Takes what came of a row, once."""
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
        """What is sent, by call key."""
        return {key: waiting.request for key, waiting in self.wanted.items()}
