"""The batch API of OpenAI (`/v1/batches` over uploaded files), and of servers that offer it.

A batch is named in its metadata, by which it is found again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agent.models.batch_jobs import (
    ASK_SECONDS,
    MOVE_SECONDS,
    BatchApi,
    BatchJob,
    BatchResults,
    RowReply,
    counts,
    http_status,
    line_of,
)
from agent.models.hosted import mapping
from agent.models.transport import time_limits
from agent.types import Request

if TYPE_CHECKING:
    from agent.models.openai import OpenAIModel

URL = "/v1/chat/completions"
NAMED = "promptassay"
"""The key of a batch's name in its metadata."""
_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})


class OpenAIBatches(BatchApi):
    """Batches of chat completions."""

    _model: OpenAIModel
    is_sure = True

    async def submit(self, name: str, rows: Sequence[tuple[str, Request]]) -> BatchJob:
        await self._model._started()
        lines = [
            line_of(f"{name}-{key}", method="POST", url=URL, body=self._model._parameters(request))
            for key, request in rows
        ]
        client, limits = self._model._client, time_limits(MOVE_SECONDS)
        files = client.files.with_raw_response
        upload = files.create(file=(f"{name}.jsonl", b"".join(lines)), purpose="batch", timeout=limits)
        file = self._id((await self._model.asked(upload, MOVE_SECONDS)).get("id"), "file")
        creation = client.batches.with_raw_response.create(
            input_file_id=file,
            endpoint=URL,
            completion_window="24h",
            metadata={NAMED: name},
            timeout=time_limits(ASK_SECONDS),
        )
        return self._job(await self._model.asked(creation, ASK_SECONDS))

    async def look(self, job: str) -> BatchJob:
        await self._model._started()
        batches = self._model._client.batches.with_raw_response
        look = batches.retrieve(job, timeout=time_limits(ASK_SECONDS))
        return self._job(await self._model.asked(look, ASK_SECONDS))

    async def cancel(self, job: str) -> BatchJob:
        await self._model._started()
        batches = self._model._client.batches.with_raw_response
        cancellation = batches.cancel(job, timeout=time_limits(ASK_SECONDS))
        return self._job(await self._model.asked(cancellation, ASK_SECONDS))

    async def results(self, job: BatchJob) -> BatchResults:
        await self._model._started()
        files = self._model._client.files.with_raw_response
        parts = [await self._rows(files.content(file, timeout=time_limits(MOVE_SECONDS)), _reply) for file in job.files]
        rows = tuple(row for part in parts for row in part.rows)
        return BatchResults(rows, sum(part.bad_lines for part in parts))

    async def _page(self, limit: int, after: str) -> dict[str, Any]:
        batches = self._model._client.batches.with_raw_response
        start = {"after": after} if after else {}
        return await self._model.asked(
            batches.list(limit=limit, timeout=time_limits(ASK_SECONDS), **start), ASK_SECONDS
        )

    def _job(self, data: dict[str, Any]) -> BatchJob:
        status, number = self._status(data, "status"), counts(data.get("request_counts"))
        files = [data[key] for key in ("output_file_id", "error_file_id") if data.get(key)]
        errors = mapping(data.get("errors")).get("data")
        said = [mapping(each) for each in errors] if isinstance(errors, list) else []
        words = "; ".join(str(each.get("message") or each.get("code")) for each in said[:3])
        created = data.get("created_at")
        return BatchJob(
            self._id(data.get("id"), "batch"),
            status,
            status in _ENDED,
            number.get("total", 0),
            number.get("completed", 0) + number.get("failed", 0),
            float(created) if isinstance(created, int | float) else 0.0,
            tuple(self._id(file, "file") for file in files),
            self._model._quote(words) if words else "",
        )

    def _may_be(self, shown: dict[str, Any], job: BatchJob, name: str, rows: int) -> bool:
        return mapping(shown.get("metadata")).get(NAMED) == name


def _reply(row: dict[str, Any]) -> RowReply:
    reply = mapping(row.get("response"))
    return RowReply(http_status(reply.get("status_code")), reply.get("body"))
