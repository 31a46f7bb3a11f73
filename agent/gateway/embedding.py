"""Text embeddings from a provider through the gateway: batched, counted, and paid once per run."""

from __future__ import annotations

from collections.abc import Iterable

from agent.errors import RunRefused
from agent.gateway.gateway import ModelClient
from agent.gateway.in_flight import all_of
from agent.models.langchain import MOST_TEXTS, embedding_request, vectors_in
from agent.retrieval.vectors import Vector
from agent.types import LM


class Embedder:
    """Embeds each text of a run once."""

    def __init__(self, client: ModelClient, lm: LM) -> None:
        self._client, self._lm = client, lm
        self._known: dict[str, Vector] = {}

    @staticmethod
    def calls(texts: int) -> int:
        return -(-texts // MOST_TEXTS)

    async def vectors(self, texts: Iterable[str]) -> dict[str, Vector]:
        """Embed texts. Raises as `Gateway.complete`, and RunRefused if vectors differ in length."""
        wanted = list(dict.fromkeys(texts))
        new = [text for text in wanted if text not in self._known]
        batches = [new[at : at + MOST_TEXTS] for at in range(0, len(new), MOST_TEXTS)]
        for made in await all_of([self._batch(batch) for batch in batches]):
            self._known |= made
        if len(sizes := {len(vector) for vector in self._known.values()}) > 1:
            raise RunRefused(f"{self._lm.name}: returned vectors of {' and '.join(map(str, sorted(sizes)))} numbers")
        return {text: self._known[text] for text in wanted}

    def forget(self) -> None:
        """Drop all vectors so far."""
        self._known.clear()

    async def vector(self, text: str) -> Vector:
        """Embed one text; raises as `vectors`."""
        return (await self.vectors([text]))[text]

    async def _batch(self, texts: list[str]) -> dict[str, Vector]:
        reply = await self._client.complete("embedding", self._lm, embedding_request(texts))
        return dict(zip(texts, vectors_in(reply), strict=True))
