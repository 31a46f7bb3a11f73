"""Batches of requests at a provider, which answers them within a day at half the price: what all providers share.

A row of a batch is read as the reply to a live call is, and its errors are classified alike. Nothing is retried here.
"""

from __future__ import annotations

import asyncio
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from agent.errors import BadResponse, InputError, ModelError, RunRefused
from agent.models.hosted import ALLOWED_BYTES, HostedModel, mapping
from agent.types import Request
from agent.worker import run_aside

ASK_SECONDS = 60.0
MOVE_SECONDS = 600.0
"""For what moves the rows: an upload, a submission, the results."""
PAGE = 100
"""Batches in a reply of the list."""
MOST_PAGES = 20
MOST_BYTES = 200_000_000
"""Of the results of a batch."""
NO_SUCH_ADDRESS = (404, 405, 501)
_ID = re.compile(r"\w[\w.:-]{0,199}")
_STATUS = re.compile(r"\w{1,40}")
_HTTP_STATUS = re.compile(r"[1-5][0-9]{2}")


@dataclass(frozen=True, slots=True)
class BatchJob:
    """A batch as the provider shows it.

    Args:
        id: of the batch.
        status: the provider's word.
        is_ended: whether the status is final.
        rows: how many requests it has.
        done: how many of them are answered or have failed.
        created: when it was submitted, in seconds since 1970.
        files: the ids of the files with results, for a provider that has such.
        words: why it failed, in the provider's words; "" where it says nothing.
    """

    id: str
    status: str
    is_ended: bool
    rows: int = 0
    done: int = 0
    created: float = 0.0
    files: tuple[str, ...] = ()
    words: str = ""


@dataclass(frozen=True, slots=True)
class RowReply:
    """What a batch says of a row: the HTTP status and the body of its reply. Status None: it was not asked."""

    status: int | None
    body: Any = None


@dataclass(frozen=True, slots=True)
class BatchResults:
    """The results of a batch: by `custom_id` the outcome of a row, and the number of unreadable lines."""

    rows: tuple[tuple[str, RowReply], ...] = ()
    bad_lines: int = 0


class BatchApi(ABC):
    """The batch API of a model's provider. Each method raises a ModelError where it fails.

    A row is named by `custom_id`: the name of its batch, a hyphen, and the row's own key.

    Args:
        model: the model that answers.
    """

    is_sure: ClassVar[bool]
    """Whether a batch that `find` finds is the one of this name, and not only may be."""

    def __init__(self, model: HostedModel) -> None:
        self._model = model

    async def check(self) -> None:
        """Raises RunRefused where there is no such API or the key is refused; what is unclear passes."""
        await self._model._started()
        try:
            await self._page(1, "")
        except RunRefused as refusal:
            if refusal.status in NO_SUCH_ADDRESS:
                raise self._missing(refusal) from refusal
            if refusal.status != 403:  # the key may submit batches and not list them
                raise
        except ModelError as error:
            if error.status == 501:
                raise self._missing(error) from error

    def _missing(self, error: ModelError) -> RunRefused:
        words = f"{self._model.name}: the server has no batch API (HTTP {error.status}); leave --batch out"
        return RunRefused(words, status=error.status)

    @abstractmethod
    async def submit(self, name: str, rows: Sequence[tuple[str, Request]]) -> BatchJob:
        """Submits requests by key as a batch of this name. What raises TransportUnknown, BadResponse or Transient may
        have submitted it."""

    async def find(self, name: str, rows: int, since: float, others: Collection[str] = ()) -> BatchJob | None:
        """A batch that may be the one of this name, which `is_named` says for sure when it has ended; else None.

        Args:
            name: as of `submit`.
            rows: how many it has.
            since: the earliest moment at which it may have been submitted, in seconds since 1970.
            others: ids of batches that it is not.
        """
        await self._model._started()
        after = ""
        for _ in range(MOST_PAGES):
            data = await self._page(PAGE, after)
            shown = [each for each in data.get("data") or [] if isinstance(each, dict)]
            for each in shown:
                job = self._job(each)
                if job.created >= since and job.id not in others and self._may_be(each, job, name, rows):
                    return job
            if not shown or data.get("has_more") is not True or self._job(shown[-1]).created < since:
                return None
            after = self._job(shown[-1]).id
        return None

    @abstractmethod
    async def look(self, job: str) -> BatchJob:
        """The batch as it is now."""

    @abstractmethod
    async def cancel(self, job: str) -> BatchJob:
        """Asks the provider to end the batch."""

    @abstractmethod
    async def results(self, job: BatchJob) -> BatchResults:
        """Fetch the results so far. `job`: as it was last looked at."""

    @abstractmethod
    async def _page(self, limit: int, after: str) -> dict[str, Any]:
        """A page of the list of batches, the newest first, from behind the id `after` on."""

    @abstractmethod
    def _job(self, data: dict[str, Any]) -> BatchJob:
        """The batch in a reply."""

    @abstractmethod
    def _may_be(self, shown: dict[str, Any], job: BatchJob, name: str, rows: int) -> bool:
        """Whether a batch of the list may be the one of this name."""

    # -- replies ------------------------------------------------------------------------------------------------------

    def _id(self, value: object, what: str) -> str:
        if not isinstance(value, str) or not _ID.fullmatch(value):
            raise BadResponse(f"{self._model.name}: the reply names no {what}: {self._model._quote(value)}; try again")
        return value

    def _status(self, data: dict[str, Any], key: str) -> str:
        status = data.get(key)
        if not isinstance(status, str) or not _STATUS.fullmatch(status):
            raise BadResponse(
                f"{self._model.name}: the reply has no status of a batch: {self._model._quote(data)}; try again"
            )
        return status

    async def _rows(self, asking: Awaitable[Any], read: Callable[[dict[str, Any]], RowReply]) -> BatchResults:
        """Read each line of a reply of JSON Lines that is an object; count the others."""
        ALLOWED_BYTES.set(MOST_BYTES)
        content = await self._model.answered(asking, MOVE_SECONDS)
        return await run_aside(len(content), partial(_read_lines, content, read))


def _read_lines(content: bytes, read: Callable[[dict[str, Any]], RowReply]) -> BatchResults:
    rows, bad_lines = list[tuple[str, RowReply]](), 0
    for line in content.splitlines():
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append((str(row.get("custom_id")), read(row)))
        else:
            bad_lines += 1
    return BatchResults(tuple(rows), bad_lines)


def http_status(value: object) -> int | None:
    """Read an HTTP status, a number or its text; None for anything else."""
    return int(value) if isinstance(value, int | str) and _HTTP_STATUS.fullmatch(str(value)) else None


def counts(value: object) -> dict[str, int]:
    """The counts of requests in a reply, by state."""
    return {
        key: number
        for key, number in mapping(value).items()
        if isinstance(number, int) and not isinstance(number, bool) and number >= 0
    }


def line_of(custom_id: str, **rest: Any) -> bytes:
    """A row as a line of JSON."""
    return json.dumps({"custom_id": custom_id, **rest}, ensure_ascii=True).encode() + b"\n"


def batch_api(lm: object) -> BatchApi | None:
    """The batch API of a model; None for one that has none."""
    make = getattr(lm, "batch_api", None)
    api = make() if make is not None else None
    return api if isinstance(api, BatchApi) else None


async def check_batches(lms: Iterable[object]) -> None:
    """Raises InputError with a line for each model whose server should have a batch API and has none."""
    apis = [api for lm in {id(lm): lm for lm in lms}.values() if (api := batch_api(lm)) is not None]
    faults = [str(each) for each in await asyncio.gather(*map(_fault, apis)) if each is not None]
    if faults:
        raise InputError("\n".join(faults))


async def _fault(api: BatchApi) -> RunRefused | None:
    try:
        await api.check()
    except RunRefused as refusal:
        return refusal
    except ModelError:  # unclear: the first batch will tell
        return None
    return None
