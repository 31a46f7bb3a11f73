"""Anthropic's messages API: `anthropic/NAME`.

The anthropic SDK sends requests; the reply's JSON is read here, so that a broken reply is never accepted.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from agent.errors import BadResponse
from agent.models.hosted import bare_address, require_address
from agent.models.model_registry import model
from agent.models.provider_jobs import MOVE_SECONDS, BatchApi, BatchJob, BatchResults, RowReply, counts
from agent.models.sdk_model import SdkModel
from agent.models.tool_calling import (
    anthropic_calls,
    anthropic_choice,
    anthropic_messages,
    anthropic_tools,
    tools_to_send,
)
from agent.models.transport import http_client
from agent.models.wire_format import WireUsage, finish_reason, mapping, schema_of
from agent.types import Completion, Request

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic
    from httpx2 import Response

OFFICIAL_URL = "https://api.anthropic.com"
ADDRESS = "ANTHROPIC_BASE_URL"  # environment variable with the address

_UNSUPPORTED = ("minLength", "maxLength", "maxItems")  # keywords refused by structured outputs


def output_config(schema: Any) -> dict[str, Any]:
    """Return the parameter for a JSON schema."""
    return {"format": {"type": "json_schema", "schema": schema}}


class AnthropicModel(SdkModel):
    """A Claude model at `base_url`, ANTHROPIC_BASE_URL or Anthropic itself (without `/v1`).

    The system text and the last turn before the final user message, equal for all rows, are marked for the prompt
    cache. `choices`, `seed` and `logprobs` are ignored.
    """

    path, models_path = "/v1/messages", "/v1/models"

    def __init__(self, name: str, model: str, base_url: str | None = None, api_key: str | None = None) -> None:
        self._url = base_url or os.environ.get(ADDRESS) or OFFICIAL_URL
        self._given_key = api_key
        endpoint, variable = bare_address(self._url), "" if base_url else ADDRESS
        super().__init__(name, model, "ANTHROPIC_API_KEY", "" if endpoint == OFFICIAL_URL else endpoint, variable)

    def batch_api(self) -> AnthropicBatches:
        return AnthropicBatches(self)

    def _start(self) -> AsyncAnthropic:
        key = self._key()
        instead = f"{self._variable}, or ANTHROPIC_CUSTOM_HEADERS for a gateway,"
        require_address(self._url, "https://HOST", instead, self._address_variable)

        from anthropic import AsyncAnthropic, DefaultAioHttpClient, DefaultAsyncHttpxClient

        return AsyncAnthropic(
            api_key=key,
            base_url=self._url,
            max_retries=0,
            open_telemetry=False,
            http_client=http_client(DefaultAsyncHttpxClient, DefaultAioHttpClient),  # closed by close() alone
        )

    def body(self, request: Request) -> dict[str, Any]:
        system = "\n\n".join(m.content for m in request.messages if m.role == "system")
        parameters: dict[str, Any] = {
            "model": self._model,
            "max_tokens": request.max_tokens,
            "messages": _turns(anthropic_messages(request)),
        }
        if system:
            parameters["system"] = [{"type": "text", "text": system, **CACHED}]
        if tools := tools_to_send(request):
            parameters["tools"] = anthropic_tools(tools)
            parameters |= {"tool_choice": choice} if (choice := anthropic_choice(request)) else {}
        if request.stop:
            parameters["stop_sequences"] = list(request.stop)
        if request.json_schema is not None and "schema" in self._sends:
            parameters["output_config"] = output_config(schema_of(request.json_schema, _UNSUPPORTED))
        if "temperature" in self._sends:  # older models still take it
            parameters["temperature"] = request.temperature
        return parameters

    def _read(self, request: Request, reply: Response) -> Completion:
        data = self._object(reply.content)
        finish = finish_reason(data.get("stop_reason"))
        blocks = data.get("content")
        if blocks is None and finish == "refusal":
            blocks = []
        if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
            raise BadResponse(f"the reply has no content: {self._quote(data)}; try again")
        texts = [block.get("text") for block in blocks if block.get("type") == "text"]
        reason = data.get("stop_reason")
        explained = (
            finish in ("refusal", "length")
            or reason == "stop_sequence"
            or (finish == "stop" and not blocks and reason != "tool_use")  # the model ended its turn
            or (request.tools and any(block.get("type") == "tool_use" for block in blocks))
        )
        if not all(isinstance(text, str) for text in texts) or not (texts or explained):
            raise BadResponse(f"the reply's content has no text: {self._quote(blocks)}; try again")
        text = "".join(str(part) for part in texts)
        if request.tools and finish != "refusal":
            text = anthropic_calls(blocks, text)
        return self._completion(request, text, finish, mapping(data.get("usage")), USAGE, data.get("model"))


USAGE = WireUsage(
    "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", prompt_is_new=True
)
CACHED: dict[str, Any] = {"cache_control": {"type": "ephemeral"}}  # marks a block for the prompt cache


def _turns(messages: Iterable[tuple[str, Any]]) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = []
    for role, content in messages:
        if turns and turns[-1]["role"] == role:
            said = turns[-1]["content"]
            texts = isinstance(said, str) and isinstance(content, str)
            turns[-1]["content"] = f"{said}\n\n{content}" if texts else [*_blocks(said), *_blocks(content)]
        else:
            turns.append({"role": role, "content": content})
    last_user = max((i for i, turn in enumerate(turns) if turn["role"] == "user"), default=0)
    if last_user > 0:
        demo = turns[last_user - 1]
        *before, last = _blocks(demo["content"])
        demo["content"] = [*before, {**last, **CACHED}]
    return turns


def _blocks(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


@model(
    "anthropic",
    form="anthropic/NAME",
    about="needs ANTHROPIC_API_KEY; address from ANTHROPIC_BASE_URL if set",
    leads_elsewhere=False,
)
def claude(name: str, rest: str) -> AnthropicModel:
    return AnthropicModel(name, rest)


def with_own_connections(client: AsyncAnthropic) -> AsyncAnthropic:
    """Replace the HTTP client of LangChain's client, which is tied to the first event loop."""
    from anthropic import DefaultAsyncHttpxClient

    return client.with_options(http_client=DefaultAsyncHttpxClient())


class AnthropicBatches(BatchApi[AnthropicModel]):
    """Batches of messages (`/v1/messages/batches`), identified by age, number of rows and names in their results."""

    is_sure = False
    cursor = "after_id"
    path = "/v1/messages/batches"

    async def submit(self, name: str, rows: Sequence[tuple[str, Request]]) -> BatchJob:
        requests = [{"custom_id": f"{name}-{key}", "params": self._model.body(request)} for key, request in rows]
        return self._job(await self._asked("post", self.path, MOVE_SECONDS, body={"requests": requests}))

    async def results(self, job: BatchJob) -> BatchResults:
        """Fetch results from our address, as a URL in the reply would get the key."""
        if not job.is_ended:
            return BatchResults()
        return await self._rows(f"{self.path}/{quote(job.id, safe='')}/results", _row_reply)

    def _job(self, data: dict[str, Any]) -> BatchJob:
        status, number = self._status(data, "processing_status"), counts(data.get("request_counts"))
        rows = sum(number.values())
        done = rows - number.get("processing", 0)
        id = self._id(data.get("id"), "batch")
        return BatchJob(id, status, status == "ended", rows, done, _seconds(data.get("created_at")))

    def _may_be(self, shown: dict[str, Any], job: BatchJob, name: str, rows: int) -> bool:
        return job.rows == rows


STATUS_OF = {
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


def _row_reply(row: dict[str, Any]) -> RowReply:
    result = mapping(row.get("result"))
    if result.get("type") == "succeeded":
        return RowReply(200, result.get("message"))
    if result.get("type") == "errored":
        error = mapping(result.get("error"))
        kind = mapping(error.get("error")).get("type")
        return RowReply(STATUS_OF.get(str(kind), 500), dict(error))
    return RowReply(None)


def _seconds(value: object) -> float:
    try:
        return datetime.fromisoformat(str(value)).timestamp()
    except ValueError:
        return 0.0
