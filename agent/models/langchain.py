"""Chat models started by LangChain: `langchain/PROVIDER:NAME`. Third-party tracing stays off.

OpenAI's and Azure's use our bounded HTTP client. Others create their own: only the total time of an attempt is bounded
there, replies may have any size, and redirects are followed; use `anthropic/NAME` for an untrusted server.

An embedding model (`init_embeddings`) is a model, too: the messages of a request are the texts, and the reply has one
vector per line. LangChain hides the provider's token counts: they are estimated.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

from agent.errors import BadResponse, InputError
from agent.extras import require
from agent.models.anthropic import with_own_connections
from agent.models.hosted import HostedModel, bare_address, require_address
from agent.models.model_registry import model
from agent.models.openai import NO_KEY, OpenAIServer, sdk_http_client
from agent.models.tool_calling import anthropic_choice, openai_messages, openai_tools, tools_to_send
from agent.models.wire_format import WireUsage, finish_reason, mapping, token_count
from agent.redact import silence_tracing
from agent.retrieval.vectors import MOST_DIMENSIONS, Vector, packed, unpacked
from agent.safe_text import whole_characters
from agent.turns import calls_text
from agent.types import Completion, Message, Request, Usage

KEY_VARIABLES: Mapping[str, str] = {
    "anthropic": "ANTHROPIC_API_KEY",
    "deepseek": "DEEPSEEK_API_KEY",
    "groq": "GROQ_API_KEY",
    "mistralai": "MISTRAL_API_KEY",
    "openai": "OPENAI_API_KEY",
    "openrouter": "OPENROUTER_API_KEY",
    "xai": "XAI_API_KEY",
}
_OPENAI = ("openai", "azure_openai")
_WRITTEN = ("cache_creation", "ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")  # the first or the others
USAGE = WireUsage("input_tokens", "output_tokens", "input_token_details.cache_read", "written", "total_tokens")
_ADDRESSES: Mapping[str, tuple[str, ...]] = {
    "azure_openai": ("AZURE_OPENAI_ENDPOINT", "OPENAI_API_BASE", "OPENAI_API_VERSION"),
    "mistralai": ("MISTRAL_BASE_URL",),
    "openai": (),
}
OPENAI_ADDRESSES = ("OPENAI_API_BASE", "OPENAI_BASE_URL")
"""Environment variables of OpenAI's address, in LangChain's order of lookup."""
_ADDRESS_ENDINGS = ("API_BASE", "API_URL", "BASE_URL", "HOST")  # after the name of any other provider


def _key_variable_of(provider: str) -> str:
    return KEY_VARIABLES.get(provider, f"{provider.upper()}_API_KEY")


def untraced() -> None:
    """Switch LangSmith's tracing off in this process, unless the user opted in."""
    silence_tracing(os.environ)
    from langsmith.utils import get_env_var

    cast(Any, get_env_var).cache_clear()  # may cache earlier values


class LangChainModel(HostedModel):
    """A LangChain chat model, created by `init_chat_model` on first use, or given as `chat`."""

    def __init__(self, name: str, provider: str, model: str, chat: Any = None, base_url: str | None = None) -> None:
        require("langchain", name)
        self._provider = provider
        self._given_chat = chat
        self._url = base_url
        endpoint, variable = _found_address(provider, base_url)
        if provider == "openai" and not base_url:
            server = OpenAIServer.own(*OPENAI_ADDRESSES)
            self._url, endpoint, variable = server.url, server.endpoint, server.variable
        super().__init__(name, model, _key_variable_of(provider), endpoint, variable)
        self._sends.add("max_tokens")

    def check_key(self) -> None:
        if self._given_chat is None and self._provider in KEY_VARIABLES:
            super().check_key()

    def _start(self) -> Any:
        untraced()
        chat = self._given_chat
        if chat is None:
            self.check_key()  # the key is a secret from here on
            chat = self._init_chat()
        hidden = [value.get_secret_value() for value in vars(chat).values() if hasattr(value, "get_secret_value")]
        self._secrets += tuple(value for value in hidden if isinstance(value, str) and value)
        return chat

    def _init_chat(self) -> Any:
        from langchain.chat_models import init_chat_model

        options: dict[str, Any] = {"max_retries": 0}
        if self._url:
            require_address(self._url, "http://HOST:PORT/v1", self._variable, self._address_variable)
            options["base_url"] = self._url
        if self._provider in _OPENAI and not os.environ.get("OPENAI_PROXY"):  # LangChain's own client for that proxy
            options["http_async_client"] = sdk_http_client()
        model = f"{self._provider}:{self._model}"
        try:
            chat = init_chat_model(model, **options)
        except (TypeError, ValueError) as error:
            if "max_retries" not in str(error):
                raise
            chat = init_chat_model(model)
        if self._provider == "anthropic":
            chat.__dict__["_async_client"] = with_own_connections(chat._async_client)
        return chat

    async def _stop(self, client: Any) -> None:
        if client is self._given_chat:
            return  # below: LangChain shares other connections between models
        if (own := getattr(client, "http_async_client", None)) is not None:
            await own.aclose()
        elif self._provider == "anthropic":
            await client._async_client.close()

    async def _send(self, request: Request) -> Any:
        parameters = self._named(request, "temperature", "stop", *(["seed"] * (self._provider in _OPENAI)))
        client = self._client
        if tools := tools_to_send(request):
            client = client.bind_tools(openai_tools(tools), **self._choice(request))
        return await client.ainvoke(openai_messages(request), **parameters)

    def _choice(self, request: Request) -> dict[str, Any]:
        choice = request.tool_choice if request.tools else "none"
        if choice in ("", "auto"):
            return {}
        if self._provider == "anthropic":  # LangChain takes "none" for the name of a tool
            return {"tool_choice": anthropic_choice(request)}
        return {"tool_choice": "any" if choice == "required" else choice}

    def _read(self, request: Request, reply: Any) -> Completion:
        metadata = mapping(getattr(reply, "response_metadata", None))
        reason = _reason(metadata)
        if reason == "error":
            raise BadResponse(f"the provider failed within its reply: {self._quote(reply)}; try again")
        finish = finish_reason(reason)
        text = str(reply.text)
        refusal = _refusal(reply)
        if isinstance(refusal, str) and refusal:
            finish, text = "refusal", text or refusal
        if request.tools and finish != "refusal":
            text = _calls(reply, text)
        if not text and finish not in ("refusal", "length") and not request.stop:
            raise BadResponse(f"the reply has no text: {self._quote(reply)}; try again")
        usage = mapping(getattr(reply, "usage_metadata", None))
        details = mapping(usage.get("input_token_details"))
        written = sum(token_count(details.get(kind)) or 0 for kind in _WRITTEN)
        served = metadata.get("model_name") or metadata.get("model")
        return self._completion(request, text, finish, {**usage, "written": written}, USAGE, served)


def _found_address(provider: str, base_url: str | None) -> tuple[str, str]:
    usual = tuple(f"{provider.upper()}_{ending}" for ending in _ADDRESS_ENDINGS)
    found = {name: address for name in _ADDRESSES.get(provider, usual) if (address := os.environ.get(name))}
    addresses = [base_url, *found.values()]
    return " ".join(bare_address(each) for each in addresses if each), "" if base_url else next(iter(found), "")


def _calls(reply: Any, said: str) -> str:
    broken = [(str(call["name"]), call["args"]) for call in getattr(reply, "invalid_tool_calls", None) or ()]
    return calls_text([*((call["name"], call["args"]) for call in reply.tool_calls), *broken], said)


def _reason(metadata: Mapping[str, Any]) -> object:
    reasons = (metadata.get(name) for name in ("finish_reason", "stop_reason", "done_reason"))
    incomplete = mapping(metadata.get("incomplete_details")).get("reason")
    return next(filter(None, (*reasons, incomplete, metadata.get("status"))), None)


def _refusal(reply: Any) -> object:
    blocks = reply.content if isinstance(reply.content, list) else ()
    refusals = (mapping(block).get("refusal") for block in blocks)
    return next(filter(None, refusals), mapping(getattr(reply, "additional_kwargs", None)).get("refusal"))


@model("langchain", form="langchain/PROVIDER:NAME", about="any provider known to LangChain", leads_elsewhere=False)
def chat_model(name: str, rest: str) -> LangChainModel:
    provider, _, called = rest.partition(":")
    if not called:
        raise InputError(f"{name!r}: write langchain/PROVIDER:NAME")
    return LangChainModel(name, provider, called)


# -- embeddings --------------------------------------------------------------------------------------------------------


FORMS = "PROVIDER:NAME (as openai:text-embedding-3-small) or openai-compatible:NAME[@http://HOST:PORT/v1]"
MOST_TEXTS = 32  # texts per call
MOST_CHARS = 6_000  # characters of a text that are sent: providers refuse texts above about 8,000 tokens
_COMPATIBLE = "openai-compatible"


def embedding_request(texts: Sequence[str]) -> Request:
    """Build the request for vectors of at most `MOST_TEXTS` texts. Providers refuse empty ones, which become a word."""
    cut = [whole_characters(text.strip()[:MOST_CHARS]) for text in texts]
    return Request(tuple(Message("user", text or "(empty)") for text in cut), max_tokens=0)


def vectors_in(reply: Completion) -> list[Vector]:
    """Return the vectors in a reply, in the order of the texts."""
    lines = reply.text.split("\n")  # base64: four characters for three bytes, four bytes for a number
    return [unpacked(line, (3 * len(line) // 4 - line.count("=")) // 4) for line in lines]


class EmbeddingModel(HostedModel):
    """A provider's embedding model, created by `init_embeddings` on first use."""

    is_bounded = False  # its replies are vectors

    def __init__(self, named: str) -> None:
        require("langchain", f"embeddings {named}")
        self._provider, _, rest = named.partition(":")
        is_compatible = self._provider == _COMPATIBLE
        model, at, url = rest.partition("@") if is_compatible else (rest, "", "")
        self._server = OpenAIServer.compatible(url) if is_compatible else None
        if self._provider == "openai":
            self._server = OpenAIServer.own(*OPENAI_ADDRESSES)
        if not self._provider or not model or (is_compatible and (self._server is None or bool(at) != bool(url))):
            raise InputError(f"embeddings {named!r}: no such model; use wordllama, {FORMS}")
        variable, endpoint, address_variable = _key_variable_of(self._provider), "", ""
        if server := self._server:
            variable, endpoint, address_variable = server.key_variable, server.endpoint, server.variable
        name = f"{_COMPATIBLE}/{rest}" if is_compatible else f"langchain/{named}"
        super().__init__(name, model, variable, endpoint, address_variable)

    def check_key(self) -> None:
        if self._provider in KEY_VARIABLES:
            super().check_key()

    def _start(self) -> Any:
        untraced()
        from langchain.embeddings import init_embeddings

        self.check_key()  # the key is a secret from here on
        if self._server is None:
            return init_embeddings(f"{self._provider}:{self._model}")
        own = self._server.client(self._server.key())
        self._secrets += tuple(key for key in (own.api_key,) if key != NO_KEY)
        return init_embeddings(
            f"openai:{self._model}",
            client=own.embeddings,  # never called: without it LangChain would create one
            async_client=own.embeddings,
            check_embedding_ctx_length=False,  # else it downloads a tokenizer
            chunk_size=MOST_TEXTS,
        )

    async def _stop(self, client: Any) -> None:
        if (own := getattr(client, "async_client", None)) is not None:
            await own._client.close()

    async def _send(self, request: Request) -> Any:
        return await self._client.aembed_documents([message.content for message in request.messages])

    def _read(self, request: Request, reply: Any) -> Completion:
        wanted = len(request.messages)
        try:
            lines = [packed([float(number) for number in vector]) for vector in reply]
            sizes = {len(unpacked(line, len(vector))) for line, vector in zip(lines, reply, strict=True)}
        except (TypeError, ValueError, OverflowError) as error:
            raise BadResponse(f"the reply contains an invalid vector ({error}); try again") from error
        if len(lines) != wanted or len(sizes) != 1 or not 1 <= min(sizes) <= MOST_DIMENSIONS:
            raise BadResponse(
                f"the reply has {len(lines)} vectors of {', '.join(map(str, sorted(sizes))) or 'no'} numbers for "
                f"{wanted} texts; try again"
            )
        tokens = sum(self.count_tokens(message.content) for message in request.messages)
        return Completion("\n".join(lines), "stop", Usage(tokens, 0), self._model)
