"""Rows of a pool ranked by the cosine of their vectors with that of an input, alone or fused with BM25.

Vectors are kept as float32. They are compared as unit vectors in whole numbers, so that sums are exact and each
platform gives the same order. numpy is imported only to compare vectors.

Source: Karpukhin et al. 2020, "Dense Passage Retrieval for Open-Domain Question Answering"; reciprocal rank fusion:
Cormack, Clarke & Buettcher 2009.
"""

from __future__ import annotations

import binascii
import copy
import logging
import math
import struct
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import InputError, ReleaseError
from agent.retrieval.pick import DEPTH, FUSED, MOST_LETTERS, PoolIndex, PoolRow, fused, words_of
from agent.safe_text import whole_characters
from agent.shipped import content_id

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


WORDLLAMA = "wordllama"
"""The name of the vectors of that package in a task and in a release."""
DENSE, BM25_DENSE = "dense", "bm25+dense"
DENSE_RETRIEVERS = (DENSE, BM25_DENSE)
"""Cosine of vectors, and the same fused with BM25 by reciprocal rank."""
MOST_NUMBERS = 2_000_000
"""Of all vectors of a pool: a release holds them as text, and has at most 16 MB."""
MOST_DIMENSIONS = 16_384
_UNIT = 2**24
"""The length of a vector in whole numbers: a sum of products stays below 2**49, far from the end of int64."""

Vector = Sequence[float]
Embed = Callable[[str], Vector]


def packed(vector: Vector) -> str:
    """Encode a vector as base64 of float32 numbers, least significant byte first."""
    return b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")


def unpacked(text: str, dimensions: int) -> tuple[float, ...]:
    """Decode `packed`. Raises ValueError unless the text holds `dimensions` finite numbers."""
    try:
        data = b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is not base64") from None
    if len(data) != 4 * dimensions:
        raise ValueError(f"has {len(data)} bytes, not {4 * dimensions}")
    numbers = struct.unpack(f"<{dimensions}f", data)
    if not all(map(math.isfinite, numbers)):
        raise ValueError("holds a number that is not finite")
    return numbers


@dataclass(frozen=True)
class PoolVectors:
    """The vectors of a pool, `packed`, one for each row.

    `model`: "wordllama", or a provider's model as "PROVIDER:NAME".
    """

    model: str
    dimensions: int
    rows: tuple[str, ...]

    @property
    def is_provided(self) -> bool:
        """Whether a provider makes them, and not wordllama."""
        return self.model != WORDLLAMA

    def vector(self, position: int) -> Vector:
        return unpacked(self.rows[position], self.dimensions)

    @cached_property
    def _matrix(self) -> npt.NDArray[np.int64]:
        import numpy as np

        raw = b"".join(map(b64decode, self.rows))
        return _whole(np.frombuffer(raw, dtype="<f4").reshape(len(self.rows), self.dimensions))

    def nearest(self, vector: Vector, most: int) -> list[int]:
        """Return at most `most` positions, largest cosine first.

        Ties are in the order of the pool; a zero vector has none.
        """
        import numpy as np

        asked = _whole(np.asarray(vector, dtype=np.float32).reshape(1, -1))[0]
        if not asked.any():
            return []
        return [int(at) for at in np.argsort(-(self._matrix @ asked), kind="stable")[:most]]


def require_vector(vector: Any, vectors: PoolVectors) -> Vector:
    """Return the vector of an input. Raises ReleaseError unless it has the length of those of the pool."""
    try:
        numbers = [float(number) for number in vector]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != vectors.dimensions or not all(map(math.isfinite, numbers)):
        raise ReleaseError(
            f"vector has {len(numbers)} numbers; give the {vectors.dimensions:,} finite numbers that {vectors.model} "
            "makes of the input"
        )
    return numbers


def _whole(vectors: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    import numpy as np

    exact = vectors.astype(np.float64)
    lengths = np.sqrt((exact * exact).sum(axis=1, keepdims=True))
    units: npt.NDArray[np.int64] = np.rint(_UNIT * exact / np.where(lengths > 0, lengths, 1)).astype(np.int64)
    return units


def pool_id(rows: Sequence[PoolRow], vectors: PoolVectors | None = None) -> str:
    """Hash the rows of a pool, and their vectors if they are picked by these."""
    plain = [[row.id, row.text, row.label, row.group] for row in rows]
    if vectors is None:
        return content_id("pool", plain)
    return content_id("pool", {"rows": plain, "embeddings": vectors.model, "vectors": vectors.rows})


class DenseIndex(PoolIndex):
    """A pool with vectors; immutable, so threads may share it. `embed` gives the vector of an input."""

    def __init__(self, rows: Sequence[PoolRow], vectors: PoolVectors, embed: Embed) -> None:
        super().__init__(rows)
        self._vectors, self._embed = vectors, embed
        self._origin: DenseIndex = self  # of the copies, too

    def for_vector(self, vector: Vector) -> DenseIndex:
        """Return this index for one input whose vector is known. Its words are indexed once for all inputs."""
        index = copy.copy(self)
        index._embed = lambda text: vector
        return index

    def _ranked(self, text: str, retriever: str, most: int) -> Iterator[int]:
        if retriever not in DENSE_RETRIEVERS:
            return super()._ranked(text, retriever, most)
        near = self._vectors.nearest(self._embed(text), most)
        if retriever == DENSE:
            return iter(near)
        deep = FUSED + most - DEPTH
        return fused(self._origin._words.nearest(words_of(text), deep), near[:deep])


def index_of(rows: Sequence[PoolRow], vectors: PoolVectors | None, embed: Embed) -> PoolIndex:
    """Return the index of a pool, also by `vectors` if it has them."""
    return PoolIndex(rows) if vectors is None else DenseIndex(rows, vectors, embed)


def load_wordllama() -> Any:
    """Load the package's model. Raises ImportError if it is not installed."""
    held = logging.NullHandler()
    logging.root.addHandler(held)  # while it has one, `basicConfig` of the package's files changes no logging
    try:
        import wordllama
    finally:
        logging.root.removeHandler(held)
    return wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)


@cache
def _model() -> Any:
    try:
        return load_wordllama()
    except ImportError as missing:
        raise InputError(
            f"vectors of wordllama need a missing package ({missing}); pip install 'promptassay[embedding]'"
        ) from missing


def static_vector(text: str) -> Vector:
    """Embed the first 20,000 letters of a text with wordllama. Raises InputError if it is not installed."""
    known = whole_characters(text[:MOST_LETTERS])
    return [float(number) for number in _model().embed(known)[0]]
