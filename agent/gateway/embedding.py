"""Vectors of texts by a provider's model, through the gateway: batched, counted, kept, and none of a run paid twice."""

from __future__ import annotations

from collections.abc import Iterable

from agent.errors import RunRefused
from agent.gateway.gateway import ModelClient
from agent.gateway.in_flight import all_of
from agent.models.langchain import MOST_TEXTS, embedding_request, vectors_in
from agent.retrieval.vectors import Vector
from agent.types import LM


class Embedder:
    """Embeds the texts of one run, each of them once."""

    def __init__(self, client: ModelClient, lm: LM) -> None:
        self._client, self._lm = client, lm
        self._known: dict[str, Vector] = {}

    @staticmethod
    def calls(texts: int) -> int:
        return -(-texts // MOST_TEXTS)

    async def vectors(self, texts: Iterable[str]) -> dict[str, Vector]:
        """The vector of each text. Raises as `Gateway.complete`, and RunRefused for vectors of several lengths."""
        wanted = list(dict.fromkeys(texts))
        new = [text for text in wanted if text not in self._known]
        batches = [new[at : at + MOST_TEXTS] for at in range(0, len(new), MOST_TEXTS)]
        for made in await all_of([self._batch(batch) for batch in batches]):
            self._known |= made
        if len(sizes := {len(vector) for vector in self._known.values()}) > 1:
            raise RunRefused(f"{self._lm.name}: gives vectors of {' and '.join(map(str, sorted(sizes)))} numbers")
        return {text: self._known[text] for text in wanted}

    def forget(self) -> None:
        """Drops the vectors so far, of rows that will not be asked again."""
        self._known.clear()

    async def vector(self, text: str) -> Vector:
        """The vector of one text; raises what `vectors` does."""
        return (await self.vectors([text]))[text]

    async def _batch(self, texts: list[str]) -> dict[str, Vector]:
        reply = await self._client.complete("embedding", self._lm, embedding_request(texts))
        return dict(zip(texts, vectors_in(reply), strict=True))
