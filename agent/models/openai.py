"""OpenAI's chat completions and compatible servers: `openai/NAME`, `openai-compatible/NAME@URL`.

The openai SDK sends requests; the reply's JSON is read here, so that a broken reply is never accepted.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from agent.errors import BadResponse, InputError
from agent.models.hosted import bare_address, key_from, require_address, web_address
from agent.models.model_registry import model
from agent.models.provider_jobs import BatchApi, BatchJob, BatchResults, RowReply, counts
from agent.models.sdk_model import SdkModel
from agent.models.strict_schema import strict_schema
from agent.models.tool_calling import openai_calls, openai_choice, openai_messages, openai_tools
from agent.models.transport import http_client
from agent.models.wire_format import WireUsage, finish_reason, mapping, schema_of
from agent.types import Completion, Request

if TYPE_CHECKING:
    from httpx2 import AsyncClient, Response
    from openai import AsyncOpenAI

OFFICIAL_URL = "https://api.openai.com/v1"
ADDRESS = "OPENAI_BASE_URL"  # environment variable with OpenAI's address
NO_KEY = "no-key"  # dummy key for servers other than OpenAI's
BATCH_URL = "/v1/chat/completions"
BATCH_NAME = "promptassay"  # metadata key of a batch's name
_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
_MOST_LOGPROBS = 20
_HTTP_STATUS = re.compile(r"[1-5][0-9]{2}")
USAGE = WireUsage(
    "prompt_tokens",
    "completion_tokens",
    "prompt_tokens_details.cached_tokens",
    "prompt_tokens_details.cache_write_tokens",
    "total_tokens",
)


@dataclass(frozen=True, slots=True)
class OpenAIServer:
    """An address of OpenAI's API; a foreign server gets OPENAI_COMPATIBLE_API_KEY or a dummy, nothing of OpenAI's."""

    url: str
    variable: str = ""
    is_foreign: bool = False

    @staticmethod
    def own(*variables: str) -> OpenAIServer:
        """Return OpenAI, or the address in the first set variable of `variables` (OPENAI_BASE_URL)."""
        for variable in variables or (ADDRESS,):
            if url := os.environ.get(variable, "").strip():
                return OpenAIServer(url, variable)
        return OpenAIServer(OFFICIAL_URL)

    @staticmethod
    def at(url: str) -> OpenAIServer:
        return OpenAIServer(url, is_foreign=not _is_official(url))

    @staticmethod
    def compatible(url: str = "") -> OpenAIServer | None:
        """Return the server at `url`, or at OPENAI_BASE_URL; None if neither is set."""
        if url:
            return OpenAIServer.at(url)
        named = os.environ.get(ADDRESS, "").strip()
        return OpenAIServer(named, ADDRESS, is_foreign=not _is_official(named)) if named else None

    @property
    def is_official(self) -> bool:
        return _is_official(self.url)

    @property
    def endpoint(self) -> str:
        """The address in a call's identity; "" for OpenAI's or one in the model's name."""
        address = bare_address(self.url) if self.variable else ""
        return "" if address == OFFICIAL_URL else address

    @property
    def key_variable(self) -> str:
        return "OPENAI_COMPATIBLE_API_KEY" if self.is_foreign else "OPENAI_API_KEY"

    def key(self, given: str | None = None) -> str:
        """Return its key; a dummy for a foreign server without one. Raises RunRefused."""
        if self.is_foreign and not (given or os.environ.get(self.key_variable, "")).strip():
            return NO_KEY
        return key_from(self.key_variable, given)

    def client(self, key: str) -> AsyncOpenAI:
        """Create OpenAI's SDK client, bounded and without retries. Raises RunRefused for an unusable address."""
        require_address(self.url, "http://HOST:PORT/v1", self.key_variable, self.variable)
        from openai import AsyncOpenAI

        return AsyncOpenAI(
            api_key=key,
            base_url=self.url,
            max_retries=0,
            default_headers=_without_environment(key) if self.is_foreign else None,  # such as OPENAI_ORG_ID
            http_client=sdk_http_client(),  # closed by close() alone, not by garbage collection
        )


class OpenAIModel(SdkModel):
    """A model behind the chat completions API, at `server`, `base_url` or OPENAI_BASE_URL."""

    path, models_path = "/chat/completions", "/models"

    def __init__(
        self,
        name: str,
        model: str,
        base_url: str | None = None,
        api_key: str | None = None,
        server: OpenAIServer | None = None,
    ) -> None:
        self.server = server or (OpenAIServer.at(base_url) if base_url else OpenAIServer.own())
        self._given_key = api_key
        self.served = model  # the provider's name for it
        super().__init__(name, model, self.server.key_variable, self.server.endpoint, self.server.variable)
        if not self.server.is_official:  # many servers know the old name only
            self._sends.add("max_tokens")

    @property
    def hints(self) -> list[str]:
        url = self.server.url
        if urlsplit(url).path.strip("/"):
            return super().hints
        odd = f"{self.name}: the address has no path; most servers need /v1: {bare_address(url)}/v1"
        return [*super().hints, odd]

    def batch_api(self) -> OpenAIBatches:
        return OpenAIBatches(self)

    def _start(self) -> AsyncOpenAI:
        return self.server.client(self._key())

    def _key(self) -> str:
        key = self.server.key(self._given_key)
        if key != NO_KEY:
            self._secrets += (key,)
        return key

    def body(self, request: Request) -> dict[str, Any]:
        parameters: dict[str, Any] = {"model": self._model, "messages": openai_messages(request)}
        parameters |= self._named(request, "temperature", "seed", "stop")
        if request.json_schema is not None and "schema" in self._sends:
            parameters["response_format"] = response_format(schema_of(request.json_schema))
        if request.tools:
            parameters["tools"] = openai_tools(request.tools)
        if choice := openai_choice(request):
            parameters["tool_choice"] = choice
        if request.logprobs and "logprobs" in self._sends:
            parameters |= {"logprobs": True, "top_logprobs": min(request.logprobs, _MOST_LOGPROBS)}
        return parameters

    def _read(self, request: Request, reply: Response) -> Completion:
        data = self._object(reply.content)
        choices = data.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise BadResponse(f"the reply has no choices: {self._quote(data)}; try again")
        choice: dict[str, Any] = choices[0]
        if choice.get("error") or choice.get("finish_reason") == "error":  # OpenRouter: it failed while it answered
            raise BadResponse(f"the provider failed within its reply: {self._quote(choice)}; try again")
        message = choice.get("message")
        if not isinstance(message, dict):
            raise BadResponse(f"the reply's first choice has no message: {self._quote(choice)}; try again")
        finish = finish_reason(choice.get("finish_reason"))
        content, refusal = _joined(message.get("content")), message.get("refusal")
        if isinstance(refusal, str) and refusal:
            finish, content = "refusal", content or refusal
        if content is None and finish in ("refusal", "length"):  # length: all tokens went into reasoning
            content = ""
        if request.tools and finish != "refusal" and (message.get("tool_calls") or isinstance(content, str)):
            content = openai_calls(message, content if isinstance(content, str) else "")
        if not isinstance(content, str):
            raise BadResponse(f"the reply's message has no text: {self._quote(message)}; try again")
        logprobs = _logprobs(choice.get("logprobs"))
        return self._completion(
            request, content, finish, mapping(data.get("usage")), USAGE, data.get("model"), logprobs
        )


def response_format(schema: Any) -> dict[str, Any]:
    """Return the parameter for a JSON schema, strict if the schema allows that."""
    strict = {"strict": True} if isinstance(schema, dict) and strict_schema(schema) == schema else {}
    return {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema, **strict}}


def sdk_http_client() -> AsyncClient:
    """Create a bounded HTTP client for OpenAI's SDK, also inside LangChain."""
    from openai import DefaultAioHttpClient, DefaultAsyncHttpxClient

    return http_client(DefaultAsyncHttpxClient, DefaultAioHttpClient)


def _is_official(url: str) -> bool:
    scheme, host = web_address(url)
    return scheme == "https" and (host == "api.openai.com" or host.endswith(".api.openai.com"))


def _without_environment(key: str) -> dict[str, Any]:
    from openai import Omit

    names = [line.partition(":")[0].strip() for line in os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n")]
    withheld = {name: Omit() for name in names if name and name.lower() != "authorization"}
    organisation = {"OpenAI-Organization": Omit(), "OpenAI-Project": Omit()}
    return {**withheld, **organisation, "Authorization": f"Bearer {key}"}


def _joined(content: Any) -> Any:
    if not isinstance(content, list):
        return content
    texts = [block.get("text") for block in content if isinstance(block, dict) and block.get("type") == "text"]
    return "".join(map(str, texts)) if texts and all(isinstance(text, str) for text in texts) else None


def _logprobs(value: Any) -> tuple[tuple[tuple[str, float], ...], ...]:
    try:
        return tuple(
            tuple((str(top["token"]), float(top["logprob"])) for top in token["top_logprobs"])
            for token in value["content"]
        )
    except (TypeError, KeyError, ValueError):
        return ()


@model(
    "openai",
    form="openai/NAME",
    about="needs OPENAI_API_KEY; address from OPENAI_BASE_URL if set",
    leads_elsewhere=False,
)
def official(name: str, rest: str) -> OpenAIModel:
    return OpenAIModel(name, rest)


@model(
    "openai-compatible",
    form="openai-compatible/NAME@http://host:port/v1",
    about="any server with OpenAI's wire format; without @URL, the one at OPENAI_BASE_URL",
)
def compatible(name: str, rest: str) -> OpenAIModel:
    served, at, url = rest.partition("@")
    server = OpenAIServer.compatible(url)
    if not served or server is None or (at and not url.startswith(("http://", "https://"))):
        raise InputError(f"{name!r}: write openai-compatible/NAME@http://host:port/v1, or set {ADDRESS}")
    if "@" in url:
        raise InputError("openai-compatible: no password in the address; set OPENAI_COMPATIBLE_API_KEY instead")
    return OpenAIModel(name, served, server=server)


class OpenAIBatches(BatchApi[OpenAIModel]):
    """Batches of chat completions over uploaded files (`/v1/batches`), identified by a name in their metadata."""

    is_sure = True
    path = "/batches"

    async def submit(self, name: str, rows: Sequence[tuple[str, Request]]) -> BatchJob:
        form = {"method": "POST", "url": BATCH_URL}
        rows_sent = [{"custom_id": f"{name}-{key}", **form, "body": self._model.body(request)} for key, request in rows]
        lines = b"".join(json.dumps(row).encode() + b"\n" for row in rows_sent)
        file = await self._uploaded(f"{name}.jsonl", lines, "batch")
        batch = {"input_file_id": file, "endpoint": BATCH_URL, "completion_window": "24h"}
        return self._job(await self._asked("post", self.path, body={**batch, "metadata": {BATCH_NAME: name}}))

    async def results(self, job: BatchJob) -> BatchResults:
        parts = [await self._rows(f"/files/{quote(file, safe='')}/content", _row_reply) for file in job.files]
        rows = tuple(row for part in parts for row in part.rows)
        return BatchResults(rows, sum(part.bad_lines for part in parts))

    def _job(self, data: dict[str, Any]) -> BatchJob:
        status, number = self._status(data), counts(data.get("request_counts"))
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
        return mapping(shown.get("metadata")).get(BATCH_NAME) == name


def _row_reply(row: dict[str, Any]) -> RowReply:
    reply = mapping(row.get("response"))
    status = str(reply.get("status_code"))
    return RowReply(int(status) if _HTTP_STATUS.fullmatch(status) else None, reply.get("body"))
