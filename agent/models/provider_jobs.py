"""Jobs at a model's provider: batches of requests, and fine-tuning behind OpenAI's API.

A provider answers a batch within a day at half the price. Rows are read like live replies, and their errors classified
alike. The client is that of the model's calls: same key, same address, bounded replies, no redirect. No retries here.
"""

from __future__ import annotations

import asyncio
import json
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar
from urllib.parse import quote

from agent.errors import BadResponse, InputError, ModelError, RequestRefused, RunRefused
from agent.models.sdk_model import SdkModel
from agent.models.transport import ALLOWED_BYTES
from agent.models.wire_format import mapping, token_count
from agent.types import Request
from agent.worker import run_aside

if TYPE_CHECKING:
    from agent.models.openai import OpenAIModel

ASK_SECONDS = 60.0
MOVE_SECONDS = 600.0  # timeout of transfers: upload, submission, results
PAGE = 100  # jobs per page of the list
MOST_PAGES = 20
MOST_BYTES = 200_000_000  # size limit of a batch's results
NO_SUCH_ADDRESS = (404, 405, 501)
_ID = re.compile(r"\w[\w.:-]{0,199}")
_STATUS = re.compile(r"\w{1,40}")


M = TypeVar("M", bound=SdkModel)
J = TypeVar("J")


class ProviderJobs(ABC, Generic[M, J]):
    """Jobs of one kind at the address of a model. Methods raise ModelError."""

    kind: ClassVar[str]
    path: ClassVar[str]
    no_api: ClassVar[tuple[str, str]]  # what a server without such jobs lacks, and advice
    cursor: ClassVar[str] = "after"  # list parameter that names the last job of the previous page
    cancel_seconds: ClassVar[float] = ASK_SECONDS

    def __init__(self, model: M) -> None:
        self._model = model

    async def check(self) -> None:
        """Raise RunRefused if the API is missing or the key refused. Unclear failures pass."""
        try:
            await self._page(1, "")
        except ModelError as error:
            if error.status in NO_SUCH_ADDRESS:
                what, advice = self.no_api
                lacks = f"{self._model.name}: the server has no {what} (HTTP {error.status}); {advice}"
                raise RunRefused(lacks, status=error.status) from error
            if isinstance(error, RunRefused) and error.status != 403:  # the key may start jobs without listing them
                raise

    async def look(self, job: str) -> J:
        """Return the job's current state."""
        return self._job(await self._asked("get", f"{self.path}/{quote(job, safe='')}"))

    async def cancel(self, job: str) -> J:
        path = f"{self.path}/{quote(job, safe='')}/cancel"
        return self._job(await self._asked("post", path, self.cancel_seconds))

    @abstractmethod
    def _job(self, data: dict[str, Any]) -> J: ...

    async def _asked(self, method: str, path: str, seconds: float = ASK_SECONDS, **sent: Any) -> dict[str, Any]:
        return await self._model.asked(method, path, seconds, **sent)

    async def _uploaded(self, name: str, data: bytes, purpose: str) -> str:
        form = {"body": {"purpose": purpose}, "files": [("file", (name, data))]}
        headers = {"headers": {"Content-Type": "multipart/form-data"}}
        made = await self._asked("post", "/files", MOVE_SECONDS, options=headers, **form)
        return self._id(made.get("id"), "file")

    async def _page(self, limit: int, after: str) -> dict[str, Any]:
        start = {self.cursor: after} if after else {}
        return await self._asked("get", self.path, options={"params": {"limit": limit, **start}})

    async def _pages(self) -> AsyncIterator[list[dict[str, Any]]]:
        after = ""
        for _ in range(MOST_PAGES):
            data = await self._page(PAGE, after)
            if not (shown := [each for each in data.get("data") or [] if isinstance(each, dict)]):
                return
            yield shown
            if data.get("has_more") is not True:
                return
            after = self._id(shown[-1].get("id"), self.kind)

    def _id(self, value: object, what: str) -> str:
        if not isinstance(value, str) or not _ID.fullmatch(value):
            raise BadResponse(f"{self._model.name}: the reply names no {what}: {self._model._quote(value)}; try again")
        return value

    def _status(self, data: dict[str, Any], key: str = "status") -> str:
        status = data.get(key)
        if not isinstance(status, str) or not _STATUS.fullmatch(status):
            shown = self._model._quote(data)
            raise BadResponse(f"{self._model.name}: the reply has no status of a {self.kind}: {shown}; try again")
        return status


# -- batches ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BatchJob:
    """A batch as the provider shows it; `created` in seconds since 1970, `words`: why it failed."""

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
    """A batch's answer for a row: HTTP status and body of its reply. Status None: it was not asked."""

    status: int | None
    body: Any = None


@dataclass(frozen=True, slots=True)
class BatchResults:
    """Results of a batch: each row's outcome by `custom_id`, and the number of unreadable lines."""

    rows: tuple[tuple[str, RowReply], ...] = ()
    bad_lines: int = 0


class BatchApi(ProviderJobs[M, BatchJob]):
    """The batch API of a model's provider; a row's `custom_id` is the batch's name, a hyphen, and the row's key."""

    kind = "batch"
    no_api = ("batch API", "leave --batch out")
    is_sure: ClassVar[bool]  # whether a batch found by `find` is certainly the one of this name

    @abstractmethod
    async def submit(self, name: str, rows: Sequence[tuple[str, Request]]) -> BatchJob:
        """Submit requests by key as a batch. After TransportUnknown, BadResponse or Transient it may exist."""

    @abstractmethod
    async def results(self, job: BatchJob) -> BatchResults: ...

    @abstractmethod
    def _may_be(self, shown: dict[str, Any], job: BatchJob, name: str, rows: int) -> bool: ...

    async def find(self, name: str, rows: int, since: float, others: Collection[str] = ()) -> BatchJob | None:
        """Find the batch that may have this name, submitted `since` (seconds since 1970)."""
        async for page in self._pages():
            jobs = [(each, self._job(each)) for each in page]
            for each, job in jobs:
                if job.created >= since and job.id not in others and self._may_be(each, job, name, rows):
                    return job
            if jobs[-1][1].created < since:
                break
        return None

    async def _rows(self, path: str, read: Callable[[dict[str, Any]], RowReply]) -> BatchResults:
        ALLOWED_BYTES.set(MOST_BYTES)
        content = await self._model.answered("get", path, MOVE_SECONDS)
        return await run_aside(len(content), partial(_read_lines, content, read))


def _read_lines(content: bytes, read: Callable[[dict[str, Any]], RowReply]) -> BatchResults:
    rows, bad_lines = list[tuple[str, RowReply]](), 0
    for line in filter(bytes.strip, content.splitlines()):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append((str(row.get("custom_id")), read(row)))
        else:
            bad_lines += 1
    return BatchResults(tuple(rows), bad_lines)


def counts(value: object) -> dict[str, int]:
    return {
        key: number
        for key, number in mapping(value).items()
        if isinstance(number, int) and not isinstance(number, bool) and number >= 0
    }


def batch_api(lm: object) -> BatchApi[Any] | None:
    """Return the batch API of a model, if it has one."""
    make = getattr(lm, "batch_api", None)
    api = make() if make is not None else None
    return api if isinstance(api, BatchApi) else None


async def check_batches(lms: Iterable[object]) -> None:
    """Raise InputError, a line per model whose server lacks the batch API."""
    apis = [api for lm in {id(lm): lm for lm in lms}.values() if (api := batch_api(lm)) is not None]
    found = await asyncio.gather(*(api.check() for api in apis), return_exceptions=True)
    if faults := [str(each) for each in found if isinstance(each, RunRefused)]:
        raise InputError("\n".join(faults))
    for each in found:
        if isinstance(each, BaseException) and not isinstance(each, ModelError):  # unclear until a batch is sent
            raise each


# -- fine-tuning -------------------------------------------------------------------------------------------------------

SUCCEEDED = "succeeded"
ENDED = frozenset({SUCCEEDED, "failed", "cancelled", "expired"})
_MODEL = re.compile(r"[\w.:/-]{1,200}")  # no "@" or blank: it becomes part of a model's name


@dataclass(frozen=True, slots=True)
class TuningSettings:
    """Training settings; `epochs` (at least 1): passes over the train rows."""

    epochs: int = 3
    seed: int = 0


@dataclass(frozen=True, slots=True)
class TuningJob:
    """A fine-tuning job as the provider shows it, with the tuned model, why it failed, and the billed tokens."""

    id: str
    status: str
    training_file: str = ""
    model: str = ""
    words: str = ""
    tokens: int | None = None
    seconds: float | None = None

    @property
    def is_ended(self) -> bool:
        return self.status in ENDED


class FineTuning(ProviderJobs["OpenAIModel", TuningJob]):
    """The fine-tuning API at the address of a model; `close` closes its connections."""

    kind = "job"
    path = "/fine_tuning/jobs"
    no_api = (
        "fine-tuning API",
        "leave `hosted` out of --arms, or write the files for another provider with --export-only DIR",
    )
    cancel_seconds = 10.0

    @staticmethod
    def of(model: OpenAIModel) -> FineTuning:
        """Return the API for training a model."""
        from agent.models.openai import OpenAIModel

        return FineTuning(OpenAIModel(model.name, model.served, api_key=model._given_key, server=model.server))

    async def close(self) -> None:
        await self._model.close()

    async def upload(self, name: str, data: bytes) -> str:
        """Upload a JSON Lines file for training; return its id at the provider."""
        return await self._uploaded(name, data, "fine-tune")

    async def create(self, training_file: str, validation_file: str, settings: TuningSettings) -> TuningJob:
        """Start a job on uploaded files; after TransportUnknown or BadResponse one may have started."""
        body = tuning_body(self._model, training_file, validation_file, settings)
        return self._job(await self._asked("post", self.path, body=body))

    async def find(self, training_file: str) -> TuningJob | None:
        """Return the latest job on this file, if any."""
        async for page in self._pages():
            for each in page:
                if each.get("training_file") == training_file:
                    return self._job(each)
        return None

    def _job(self, data: dict[str, Any]) -> TuningJob:
        status, model, error = self._status(data), data.get("fine_tuned_model"), mapping(data.get("error"))
        quote = self._model._quote
        if status == SUCCEEDED and (not isinstance(model, str) or not _MODEL.fullmatch(model)):
            name = self._model.name
            raise RequestRefused(f"{name}: the job succeeded with no usable name of a model: {quote(model)}")
        said = [str(error[part]) for part in ("message", "code") if error.get(part)]
        file = data.get("training_file")
        return TuningJob(
            self._id(data.get("id"), "job"),
            status,
            file if isinstance(file, str) else "",
            str(model) if status == SUCCEEDED else "",
            quote(" / ".join(said)) if said else "",
            token_count(data.get("trained_tokens")),
            _seconds(data.get("created_at"), data.get("finished_at")),
        )


def tuning_body(
    model: OpenAIModel, training_file: str, validation_file: str, settings: TuningSettings
) -> dict[str, Any]:
    """Build the request that starts a job. Servers other than OpenAI's know only the older form."""
    how: dict[str, Any] = {"hyperparameters": {"n_epochs": settings.epochs}}
    if model.server.is_official:
        how = {"method": {"type": "supervised", "supervised": how}}
    validation = {"validation_file": validation_file} if validation_file else {}
    return {"model": model.served, "training_file": training_file, **validation, "seed": settings.seed, **how}


def tuned_name(base: str, served: str) -> str:
    """Return the name of a tuned model: its base's, with the provider's model name replaced.

    >>> tuned_name("openai-compatible/small@http://127.0.0.1:1/v1", "ft:small:me")
    'openai-compatible/ft:small:me@http://127.0.0.1:1/v1'
    """
    kind, _, rest = base.partition("/")
    _, at, url = rest.partition("@")
    return f"{kind}/{served}{at}{url}"


def _seconds(start: object, end: object) -> float | None:
    if isinstance(start, int | float) and isinstance(end, int | float) and end >= start > 0:
        return float(end - start)
    return None
