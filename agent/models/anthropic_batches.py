"""The batch API of Anthropic (`/v1/messages/batches`).

A batch has no name and shows its rows only when it has ended. So one is found again by its age, its number of rows and,
in the end, by the names of the rows in its results.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from agent.models.batch_jobs import (
    ASK_SECONDS,
    MOVE_SECONDS,
    BatchApi,
    BatchJob,
    BatchResults,
    RowReply,
    counts,
)
from agent.models.hosted import mapping
from agent.models.transport import time_limits
from agent.types import Request

if TYPE_CHECKING:
    from agent.models.anthropic import AnthropicModel

PATH = "/v1/messages/batches"
_STATUS_OF = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""The HTTP status that a live call gets with this type of an error; 500 for others."""


class AnthropicBatches(BatchApi):
    """Batches of messages."""

    _model: AnthropicModel
    is_sure = False

    async def submit(self, name: str, rows: Sequence[tuple[str, Request]]) -> BatchJob:
        await self._model._started()
        requests = [{"custom_id": f"{name}-{key}", "params": self._model.body(request)} for key, request in rows]
        batches = self._model._client.messages.batches.with_raw_response
        creation = batches.create(requests=requests, timeout=time_limits(MOVE_SECONDS))
        return self._job(await self._model.asked(creation, MOVE_SECONDS))

    async def look(self, job: str) -> BatchJob:
        await self._model._started()
        batches = self._model._client.messages.batches.with_raw_response
        look = batches.retrieve(job, timeout=time_limits(ASK_SECONDS))
        return self._job(await self._model.asked(look, ASK_SECONDS))

    async def cancel(self, job: str) -> BatchJob:
        await self._model._started()
        batches = self._model._client.messages.batches.with_raw_response
        cancellation = batches.cancel(job, timeout=time_limits(ASK_SECONDS))
        return self._job(await self._model.asked(cancellation, ASK_SECONDS))

    async def results(self, job: BatchJob) -> BatchResults:
        """By an address of our own: the one in the reply may lead anywhere, and would get the key."""
        if not job.is_ended:
            return BatchResults()
        await self._model._started()
        return await self._rows(self._model.get(f"{PATH}/{job.id}/results", MOVE_SECONDS), _reply)

    async def _page(self, limit: int, after: str) -> dict[str, Any]:
        batches = self._model._client.messages.batches.with_raw_response
        start = {"after_id": after} if after else {}
        return await self._model.asked(
            batches.list(limit=limit, timeout=time_limits(ASK_SECONDS), **start), ASK_SECONDS
        )

    def _job(self, data: dict[str, Any]) -> BatchJob:
        status, number = self._status(data, "processing_status"), counts(data.get("request_counts"))
        rows = sum(number.values())
        return BatchJob(
            self._id(data.get("id"), "batch"),
            status,
            status == "ended",
            rows,
            rows - number.get("processing", 0),
            _seconds(data.get("created_at")),
        )

    def _may_be(self, shown: dict[str, Any], job: BatchJob, name: str, rows: int) -> bool:
        return job.rows == rows


def _reply(row: dict[str, Any]) -> RowReply:
    result = mapping(row.get("result"))
    if result.get("type") == "succeeded":
        return RowReply(200, result.get("message"))
    if result.get("type") == "errored":
        error = mapping(result.get("error"))
        kind = mapping(error.get("error")).get("type")
        return RowReply(_STATUS_OF.get(str(kind), 500), dict(error))
    return RowReply(None)


def _seconds(value: object) -> float:
    try:
        return datetime.fromisoformat(str(value)).timestamp()
    except ValueError:
        return 0.0
