"""The rows of a pool as data: their hash, and what a release holds of them. Imports the standard library alone.

Where rows are picked by their vectors, picking imports numpy, and wordllama where that makes the vector of an input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Annotated, Any

from agent.conversation import AS_TURNS, MOST_MESSAGES, last_said
from agent.errors import InputError, ReleaseError
from agent.retrieval.pick import MOST_PICKED, ORDERS, RETRIEVERS, Picks, PoolIndex, PoolRow, chosen, words_of
from agent.retrieval.vectors import (
    DENSE_RETRIEVERS,
    MOST_DIMENSIONS,
    DenseIndex,
    PoolVectors,
    Vector,
    require_vector,
    static_vector,
)
from agent.retrieval.votes import label_votes
from agent.shipped import content_id
from agent.strict import one_of, read_as, whole

SEPARATOR = "\n"
VECTOR = "vector"
"""Of a row in a release, the key of its vector."""


def text_of(inputs: Mapping[str, str], names: Sequence[str]) -> str:
    """The text of an input that is compared: its values, a line each, in the order of the signature.

    Of a conversation, whose name ends in `AS_TURNS`, the user's last messages.
    """
    return SEPARATOR.join(
        last_said(inputs[name.removesuffix(AS_TURNS)]) if name.endswith(AS_TURNS) else inputs[name] for name in names
    )


def same_words(text: str) -> str:
    """The words of a text, each once and sorted: equal for texts that say the same in another order or writing.

    >>> same_words("Late, LATE parcel") == same_words("parcel late")
    True
    """
    return " ".join(sorted(set(words_of(text))))


def pool_id(rows: Sequence[PoolRow], vectors: PoolVectors | None = None) -> str:
    """The hash of the rows that may be picked, and of their vectors where they are picked by these."""
    plain = [[row.id, row.text, row.label, row.group] for row in rows]
    if vectors is None:
        return content_id("pool", plain)
    return content_id("pool", {"rows": plain, "embeddings": vectors.model, "vectors": vectors.rows})


@dataclass(frozen=True)
class PickedDemos:
    """The picked part of a released prompt.

    `head`: ids of the rows that the prompt always shows, which are not picked again. `shown`: of each row its texts in
    the prompt: those of the user's and the assistant's turn, or one for a layout with all examples in one turn.
    `vectors`: those of the rows, where rows are picked by them.
    """

    picks: Picks
    head: tuple[str, ...]
    rows: tuple[PoolRow, ...]
    shown: tuple[tuple[str, ...], ...]
    vectors: PoolVectors | None = None

    @cached_property
    def _index(self) -> PoolIndex:
        if self.vectors is None:
            return PoolIndex(self.rows)
        return DenseIndex(self.rows, self.vectors, self._embed)

    @cached_property
    def _is_alike(self) -> bool:
        """Whether the installed wordllama gives the first row the vector that it had in the run."""
        assert self.vectors is not None
        kept, made = self.vectors.vector(0), static_vector(self.rows[0].text)
        return len(kept) == len(made) and all(abs(one - other) < 1e-3 for one, other in zip(kept, made, strict=True))

    def _embed(self, text: str) -> Vector:
        assert self.vectors is not None
        what = f"this prompt picks its examples by vectors of {self.vectors.model}"
        if self.vectors.is_provided:
            raise ReleaseError(f"{what}; give the one of the input as vector=..., or call complete, which asks for it")
        try:
            if self._is_alike:
                return static_vector(text)
        except InputError as missing:
            raise ReleaseError(f"{what}; {missing}") from missing
        raise ReleaseError(
            f"{what}, and the installed version makes others than those of the run; install the version that the run "
            "had, or run the task again"
        )

    def _index_for(self, vector: Vector | None) -> PoolIndex:
        if vector is None:
            return self._index
        if self.vectors is None or not isinstance(self._index, DenseIndex):
            raise ReleaseError("vector=... was given, and this prompt picks no examples by vectors; leave it out")
        return self._index.for_vector(require_vector(vector, self.vectors))

    def for_inputs(
        self, values: Mapping[str, str], names: Sequence[str], vector: Vector | None = None
    ) -> list[tuple[str, ...]]:
        """The texts of the picked rows for an input, in the order in which they are shown.

        `names`: of its fields, in the order of the signature. `vector`: that of the input; None: wordllama makes it
        where rows are picked by its vectors.
        """
        found = self._index_for(vector).pick(text_of(values, names), self.picks, self.head)
        return [self.shown[position] for position in found]

    @cached_property
    def _ids_by_words(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for row in self.rows:
            found.setdefault(same_words(row.text), []).append(row.id)
        return found

    def with_own(
        self,
        values: Mapping[str, str],
        names: Sequence[str],
        own: Sequence[PoolRow],
        shown: Sequence[tuple[str, ...]],
        vector: Vector | None = None,
    ) -> list[tuple[str, ...]]:
        """`for_inputs` with rows of a user before those of the pool.

        Of the user's own rows those that have something in common with the input come first, as many as k. A row of the
        pool with the words of one of them is not picked: its label may be the one that was corrected. The user's rows
        have no vectors: they are picked by words and letters. `shown`: of each of `own` its texts in the prompt.
        """
        text = text_of(values, names)
        left_out = {*self.head, *self._replaced(own)}
        common = self._index_for(vector).candidates(text, self.picks, len(left_out))
        by_text = self.picks if self.vectors is None else replace(self.picks, retriever="hybrid")
        nearest = chain(PoolIndex(own).alike(text, by_text), (len(own) + position for position in common))
        texts = (*shown, *self.shown)
        return [texts[position] for position in chosen((*own, *self.rows), nearest, self.picks, left_out)]

    def _replaced(self, own: Sequence[PoolRow]) -> list[str]:
        """Ids of the pool's rows with the words of one of these."""
        return [name for row in own for name in self._ids_by_words.get(same_words(row.text), ())]

    def votes(
        self, values: Mapping[str, str], names: Sequence[str], labels: Sequence[str], k: int, own: Sequence[PoolRow]
    ) -> tuple[float, ...]:
        """The votes of the `k` nearest rows for each label; rows of a user (`own`) vote as they are picked."""
        return label_votes(self._index, text_of(values, names), labels, k, self._replaced(own), own)

    def settings(self) -> dict[str, Any]:
        made = {"embeddings": self.vectors.model, "dimensions": self.vectors.dimensions} if self.vectors else {}
        return {**self.picks.as_dict(), "head": list(self.head), **made}

    def row_data(self) -> list[dict[str, Any]]:
        data: list[dict[str, Any]] = [
            {"id": row.id, "text": row.text, "label": row.label, "group": row.group, "shown": list(shown)}
            for row, shown in zip(self.rows, self.shown, strict=True)
        ]
        if self.vectors is None:
            return data
        return [{**row, VECTOR: vector} for row, vector in zip(data, self.vectors.rows, strict=True)]


_SETTINGS: dict[str, Any] = {
    "retriever": Annotated[str, one_of((*RETRIEVERS, *DENSE_RETRIEVERS))],
    "k": Annotated[int, whole(1, MOST_PICKED)],
    "order": Annotated[str, one_of(ORDERS)],
    "diverse": bool,
    "balanced": bool,
    "pool": str,
}
_OF_VECTORS: dict[str, Any] = {"embeddings": str, "dimensions": Annotated[int, whole(1, MOST_DIMENSIONS)]}
_ROW: dict[str, Any] = {"id": str, "text": str, "label": str, "group": str}


def picked_examples(settings: Any, rows: Any) -> PickedDemos:
    """Restore what `settings` and `row_data` gave. Raises ValueError for wrong data."""
    is_dense = isinstance(settings, dict) and settings.get("retriever") in DENSE_RETRIEVERS
    of_vectors = _OF_VECTORS if is_dense else {}
    read = read_as({**_SETTINGS, "head": tuple[str, ...], **of_vectors}, settings, "picks")
    kind = {**_ROW, "shown": tuple[str, ...], **({VECTOR: str} if is_dense else {})}
    found = [read_as(kind, row, f"picks.rows[{at}]") for at, row in enumerate(read_as(tuple[Any, ...], rows, "rows"))]
    if not found:
        raise ValueError("there are picks and no rows that may be picked")
    for at, row in enumerate(found):
        turns = len(row["shown"])
        if turns not in (1, *range(2, 2 + 2 * MOST_MESSAGES, 2)) or turns % 2 != len(found[0]["shown"]) % 2:
            raise ValueError(f"picks.rows[{at}].shown must be one text, or turns, as in the other rows")
    vectors = None
    if is_dense:
        vectors = PoolVectors(read["embeddings"], read["dimensions"], tuple(row[VECTOR] for row in found))
        for at in range(len(found)):
            try:
                vectors.vector(at)
            except ValueError as error:
                raise ValueError(f"picks.rows[{at}].{VECTOR} {error}") from None
    made = tuple(PoolRow(**{name: row[name] for name in _ROW}) for row in found)
    if read["pool"] != (own := pool_id(made, vectors)):
        raise ValueError(f"the rows of the pool are {own}, and picks says {read['pool']!r:.40}")
    picks = Picks(**{name: read[name] for name in _SETTINGS})
    return PickedDemos(picks, read["head"], made, tuple(row["shown"] for row in found), vectors)
