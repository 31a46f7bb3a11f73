"""The texts that rows are compared by, the hash of a pool, and an indexed pool.

Imports the standard library alone, and numpy if rows have vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from agent.conversation import AS_TURNS, last_said
from agent.retrieval.pick import PoolIndex, PoolRow, words_of
from agent.retrieval.vectors import DenseIndex, PoolVectors, Vector, static_vector
from agent.retrieval.votes import label_votes
from agent.shipped import content_id

SEPARATOR = "\n"


def text_of(inputs: Mapping[str, str], names: Sequence[str]) -> str:
    """Return the compared text of an input: its values, a line each, in the order of the signature.

    For a conversation, whose name ends in `AS_TURNS`, the user's last messages.
    """
    return SEPARATOR.join(
        last_said(inputs[name.removesuffix(AS_TURNS)]) if name.endswith(AS_TURNS) else inputs[name] for name in names
    )


def same_words(text: str) -> str:
    """Return the sorted distinct words of a text, equal for texts that differ in order or writing only.

    >>> same_words("Late, LATE parcel") == same_words("parcel late")
    True
    """
    return " ".join(sorted(set(words_of(text))))


def pool_id(rows: Sequence[PoolRow], vectors: PoolVectors | None = None) -> str:
    """Hash the rows of a pool, and their vectors if they are picked by these."""
    plain = [[row.id, row.text, row.label, row.group] for row in rows]
    if vectors is None:
        return content_id("pool", plain)
    return content_id("pool", {"rows": plain, "embeddings": vectors.model, "vectors": vectors.rows})


class Pool:
    """An indexed pool of rows, shared by the prompts of a run.

    `embed`: makes the vector of an input, for rows that have `vectors`.
    """

    def __init__(
        self,
        rows: Sequence[PoolRow],
        vectors: PoolVectors | None = None,
        embed: Callable[[str], Vector] = static_vector,
    ) -> None:
        self.index = PoolIndex(rows) if vectors is None else DenseIndex(rows, vectors, embed)
        self._votes: dict[Any, tuple[float, ...]] = {}

    @cached_property
    def _by_id(self) -> dict[str, PoolRow]:
        return {row.id: row for row in self.index.rows}

    @cached_property
    def _groups(self) -> dict[str, frozenset[str]]:
        members: dict[str, set[str]] = {}
        for row in self.index.rows:
            members.setdefault(row.group, set()).add(row.id)
        return {group: frozenset(ids) for group, ids in members.items()}

    @cached_property
    def _ids_by_words(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for row in self.index.rows:
            found.setdefault(same_words(row.text), []).append(row.id)
        return found

    def same(self, row_id: str, text: str) -> frozenset[str]:
        """Return the ids of a train row and its near-duplicates; none for other rows, even with such an id."""
        known = self._by_id.get(row_id) if row_id else None
        return self._groups[known.group] if known is not None and known.text == text else frozenset()

    def replaced(self, own: Sequence[PoolRow]) -> list[str]:
        """Return the ids of rows with the same words as one of these, whose labels may be corrected ones."""
        return [name for row in own for name in self._ids_by_words.get(same_words(row.text), ())]

    def votes(
        self, text: str, labels: Sequence[str], k: int, row_id: str = "", own: Sequence[PoolRow] = ()
    ) -> tuple[float, ...]:
        """Count the votes of the `k` nearest rows for each label, without the row itself.

        `own`: rows of a user vote, too.
        """
        left_out = self.same(row_id, text) or self.replaced(own)
        if not row_id:
            return label_votes(self.index, text, labels, k, left_out, own)
        key = text, frozenset(left_out), k  # a search reads each dev row again for every candidate that picks
        if key not in self._votes:
            self._votes[key] = label_votes(self.index, text, labels, k, left_out)
        return self._votes[key]
