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
from agent.models.hosted import (
    PROBE_SECONDS,
    HostedModel,
    WireUsage,
    bare_address,
    finish_reason,
    key_from,
    mapping,
    require_address,
    schema_of,
)
from agent.models.model_registry import model
from agent.models.provider_jobs import MOVE_SECONDS, BatchApi, BatchJob, BatchResults, RowReply, counts
from agent.models.tool_calling import anthropic_blocks, anthropic_calls, anthropic_tools
from agent.models.transport import http_client, time_limits
from agent.types import Completion, Message, Request

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic
    from httpx2 import Response

OFFICIAL_URL = "https://api.anthropic.com"
ADDRESS = "ANTHROPIC_BASE_URL"
"""Environment variable with the address."""
BATCHES = "/v1/messages/batches"
_UNSUPPORTED = ("minLength", "maxLength", "maxItems")  # keywords refused by structured outputs


class AnthropicModel(HostedModel):
    """A Claude model at `base_url`, ANTHROPIC_BASE_URL or Anthropic itself (without `/v1`).

    Consecutive messages of a role are joined by a blank line. The system text and the last turn before the final user
    message are marked for the prompt cache, as both are equal for all rows. `json_schema` becomes a structured output;
    `choices`, `seed` and `logprobs` are ignored.
    """

    def __init__(self, name: str, model: str, base_url: str | None = None, api_key: str | None = None) -> None:
        self._url = base_url or os.environ.get(ADDRESS) or OFFICIAL_URL
        self._given_key = api_key
        endpoint, variable = bare_address(self._url), "" if base_url else ADDRESS
        super().__init__(name, model, "ANTHROPIC_API_KEY", "" if endpoint == OFFICIAL_URL else endpoint, variable)

    def check_key(self) -> None:
        key_from(self._variable, self._given_key)

    def batch_api(self) -> AnthropicBatches:
        return AnthropicBatches(self)

    def _start(self) -> AsyncAnthropic:
        key = key_from(self._variable, self._given_key)
        self._secrets += (key,)
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

    async def _stop(self, client: AsyncAnthropic) -> None:
        await client.close()

    def _parameters(self, request: Request) -> dict[str, Any]:
        system = "\n\n".join(m.content for m in request.messages if m.role == "system")
        parameters: dict[str, Any] = {
            "model": self._model,
            "max_tokens": request.max_tokens,
            "messages": _turns([m for m in request.messages if m.role != "system"], bool(request.tools)),
            "timeout": time_limits(request.timeout),
        }
        if system:
            parameters["system"] = [{"type": "text", "text": system, **CACHED}]
        if request.tools:
            parameters["tools"] = anthropic_tools(request.tools)
        if request.stop:
            parameters["stop_sequences"] = list(request.stop)
        if request.json_schema is not None and "schema" in self._sends:
            schema = {"type": "json_schema", "schema": schema_of(request.json_schema, _UNSUPPORTED)}
            parameters["output_config"] = {"format": schema}
        if "temperature" in self._sends:  # no longer an SDK argument; older models still take it
            parameters["extra_body"] = {"temperature": request.temperature}
        return parameters

    async def _send(self, request: Request) -> Response:
        client: AsyncAnthropic = self._client
        reply = await client.messages.with_raw_response.create(**self._parameters(request))
        response: Response = reply.http_response
        return response

    def body(self, request: Request) -> dict[str, Any]:
        parameters = self._parameters(request)
        del parameters["timeout"]
        extra = parameters.pop("extra_body", {})
        return {**parameters, **extra}

    async def get(self, path: str, seconds: float) -> Response:
        """Get a path of the address."""
        from httpx2 import Response

        reply: Response = await self._client.get(path, cast_to=Response, options={"timeout": time_limits(seconds)})
        return reply

    async def _look(self) -> str:
        await self.get(f"/v1/models/{quote(self._model, safe='')}", PROBE_SECONDS)
        return ""

    def _read(self, request: Request, reply: Response) -> Completion:
        data = self._object(reply.content)
        finish = finish_reason(data.get("stop_reason"))
        blocks = data.get("content")
        if blocks is None and finish == "refusal":
            blocks = []
        if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
            raise BadResponse(f"the reply has no content: {self._quote(data)}; try again")
        texts = [block.get("text") for block in blocks if block.get("type") == "text"]
        explained = finish in ("refusal", "length") or data.get("stop_reason") == "stop_sequence"
        explained = explained or (
            finish == "stop" and not (blocks or data.get("stop_reason") == "tool_use")
        )  # the model ended its turn
        explained = explained or (bool(request.tools) and any(block.get("type") == "tool_use" for block in blocks))
        if not all(isinstance(text, str) for text in texts) or not (texts or explained):
            raise BadResponse(f"the reply's content has no text: {self._quote(blocks)}; try again")
        text = "".join(str(part) for part in texts)
        if request.tools and finish != "refusal":
            text = anthropic_calls(blocks, text)
        return self._completion(request, text, finish, mapping(data.get("usage")), USAGE, data.get("model"))


USAGE = WireUsage(
    "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", prompt_is_new=True
)
CACHED: dict[str, Any] = {"cache_control": {"type": "ephemeral"}}
"""Marks a block for the prompt cache."""


def _turns(messages: Iterable[Message], with_calls: bool = False) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    made = 0
    for message in messages:
        content: Any = message.content
        if with_calls and message.role == "assistant" and (blocks := anthropic_blocks(content, made)) is not None:
            content, results = blocks
            made += len(results)
        elif results and message.role == "user":
            content, results = [*results, {"type": "text", "text": content}], []
        if turns and turns[-1]["role"] == message.role:
            turns[-1]["content"] = _after(turns[-1]["content"], content)
        else:
            turns.append({"role": message.role, "content": content})
    last_user = max((i for i, turn in enumerate(turns) if turn["role"] == "user"), default=0)
    if last_user > 0:
        demo = turns[last_user - 1]
        *before, last = _blocks(demo["content"])
        demo["content"] = [*before, {**last, **CACHED}]
    return turns


def _after(content: Any, more: Any) -> Any:
    if isinstance(content, str) and isinstance(more, str):
        return f"{content}\n\n{more}"
    return [*_blocks(content), *_blocks(more)]


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
    """Give LangChain's client a new HTTP client: its own is tied to the event loop of the first run."""
    from anthropic import DefaultAsyncHttpxClient

    return client.with_options(http_client=DefaultAsyncHttpxClient())


class AnthropicBatches(BatchApi[AnthropicModel]):
    """Batches of messages (`/v1/messages/batches`), identified by age, number of rows and names in their results."""

    is_sure = False
    cursor = "after_id"

    async def _jobs(self) -> Any:
        return (await self._sdk()).messages.batches.with_raw_response

    async def submit(self, name: str, rows: Sequence[tuple[str, Request]]) -> BatchJob:
        jobs = await self._jobs()
        requests = [{"custom_id": f"{name}-{key}", "params": self._model.body(request)} for key, request in rows]
        creation = jobs.create(requests=requests, timeout=time_limits(MOVE_SECONDS))
        return self._job(await self._asked(creation, MOVE_SECONDS))

    async def results(self, job: BatchJob) -> BatchResults:
        """Fetch results from our own address: the URL in the reply may lead anywhere, and would get the key."""
        if not job.is_ended:
            return BatchResults()
        await self._sdk()
        return await self._rows(self._model.get(f"{BATCHES}/{job.id}/results", MOVE_SECONDS), _row_reply)

    def _job(self, data: dict[str, Any]) -> BatchJob:
        status, number = self._status(data, "processing_status"), counts(data.get("request_counts"))
        rows = sum(number.values())
        done = rows - number.get("processing", 0)
        id = self._id(data.get("id"), "batch")
        return BatchJob(id, status, status == "ended", rows, done, _seconds(data.get("created_at")))

    def _may_be(self, shown: dict[str, Any], job: BatchJob, name: str, rows: int) -> bool:
        return job.rows == rows


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


def _row_reply(row: dict[str, Any]) -> RowReply:
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
