"""Embedding models that LangChain can start (`init_embeddings`), behind the interface of all models.

The messages of a request are the texts, and the reply's text has a vector of each in a line, so that gateway, budget
and ledger treat such a call like any other. LangChain hides how many tokens a provider counted: they are estimated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent.errors import BadResponse, InputError
from agent.extras import require
from agent.models.hosted import MAX_RESPONSE_BYTES, HostedModel, key_from
from agent.models.langchain import KEY_VARIABLES, OPENAI_ADDRESSES, key_variable_of, untraced
from agent.models.openai import NO_KEY, OpenAIServer
from agent.retrieval.vectors import MOST_DIMENSIONS, Vector, packed, unpacked
from agent.types import Completion, Message, Request, Usage

FORMS = (
    "PROVIDER:NAME, such as openai:text-embedding-3-small, or openai-compatible:NAME@http://HOST:PORT/v1 "
    "(without @ it is asked at OPENAI_BASE_URL)"
)
MOST_TEXTS = 32
"""Texts in a call."""
MOST_CHARS = 6_000
"""Of a text, its first characters: providers refuse texts of more than about 8,000 tokens."""
_COMPATIBLE = "openai-compatible"


def embedding_request(texts: Sequence[str]) -> Request:
    """The request for the vectors of at most `MOST_TEXTS` texts. Providers refuse an empty one, so it gets a word."""
    cut = [text.strip()[:MOST_CHARS].encode("utf-8", "replace").decode("utf-8") for text in texts]
    return Request(tuple(Message("user", text or "(empty)") for text in cut), max_tokens=0)


def vectors_in(reply: Completion) -> list[Vector]:
    """The vectors in a reply, in the order of the texts."""
    lines = reply.text.split("\n")
    return [unpacked(line, _dimensions(line)) for line in lines]


def _dimensions(line: str) -> int:
    """Numbers in a vector, out of its base64: four characters for three bytes, four bytes for a number."""
    return (3 * len(line) // 4 - line.count("=")) // 4


class EmbeddingModel(HostedModel):
    """An embedding model of a provider, made by `init_embeddings` on first use.

    OpenAI's, and those behind an address that speaks as OpenAI does, get our bounded HTTP client, and such an address
    gets no key but OPENAI_COMPATIBLE_API_KEY. Others make their own connections, as `LangChainModel` says."""

    def __init__(self, named: str) -> None:
        require("langchain", f"embeddings {named}")
        self._provider, _, rest = named.partition(":")
        is_compatible = self._provider == _COMPATIBLE
        model, at, url = rest.partition("@") if is_compatible else (rest, "", "")
        self._server = self._found_server(url)
        if not self._provider or not model or (is_compatible and (self._server is None or bool(at) != bool(url))):
            raise InputError(f"embeddings {named!r}: no such model; write wordllama, {FORMS}")
        variable, endpoint, address_variable = key_variable_of(self._provider), "", ""
        if server := self._server:
            variable, endpoint, address_variable = server.key_variable, server.endpoint, server.variable
        name = f"{_COMPATIBLE}/{rest}" if is_compatible else f"langchain/{named}"
        super().__init__(name, model, variable, endpoint, address_variable)

    def _found_server(self, url: str) -> OpenAIServer | None:
        """The server that speaks as OpenAI does; None for another provider, and for one without an address."""
        if self._provider == _COMPATIBLE:
            return OpenAIServer.compatible(url)
        return OpenAIServer.own(*OPENAI_ADDRESSES) if self._provider == "openai" else None

    def check_key(self) -> None:
        if self._provider in KEY_VARIABLES:
            super().check_key()

    def most_bytes(self, request: Request) -> int:
        return MAX_RESPONSE_BYTES

    def most_chars(self, request: Request) -> int:
        return MAX_RESPONSE_BYTES

    def _start(self) -> Any:
        untraced()
        from langchain.embeddings import init_embeddings

        if self._provider in KEY_VARIABLES:
            self._secrets += (key_from(self._variable),)
        if self._server is None:
            return init_embeddings(f"{self._provider}:{self._model}")
        own = self._server.client(self._server.key())
        self._secrets += tuple(key for key in (own.api_key,) if key != NO_KEY)
        return init_embeddings(
            f"openai:{self._model}",
            client=own.embeddings,  # never called: without one LangChain would make another
            async_client=own.embeddings,
            check_embedding_ctx_length=False,  # or it would fetch a tokenizer
            chunk_size=MOST_TEXTS,
        )

    async def _stop(self, client: Any) -> None:
        if (own := getattr(client, "async_client", None)) is not None:
            await own._client.close()

    async def _send(self, request: Request) -> Any:
        return await self._client.aembed_documents([message.content for message in request.messages])

    def _read(self, request: Request, reply: Any) -> Completion:
        """The vectors, one for each text; all of the same length, and finite."""
        wanted = len(request.messages)
        try:
            lines = [packed([float(number) for number in vector]) for vector in reply]
            sizes = {len(unpacked(line, len(vector))) for line, vector in zip(lines, reply, strict=True)}
        except (TypeError, ValueError, OverflowError) as error:
            raise BadResponse(f"the reply holds what is no vector ({error}); try again") from error
        if len(lines) != wanted or len(sizes) != 1 or not 1 <= min(sizes) <= MOST_DIMENSIONS:
            raise BadResponse(
                f"the reply has {len(lines)} vectors of {', '.join(map(str, sorted(sizes))) or 'no'} numbers for "
                f"{wanted} texts; try again"
            )
        tokens = sum(self.count_tokens(message.content) for message in request.messages)
        return Completion("\n".join(lines), "stop", Usage(tokens, 0), self._model)
