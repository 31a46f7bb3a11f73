"""The rows of a pool as data: their hash, and what a release holds of them. Imports the standard library alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import chain
from typing import Any

from agent.retrieval.pick import MOST_PICKED, ORDERS, RETRIEVERS, Picks, PoolIndex, PoolRow, chosen, words_of
from agent.retrieval.votes import label_votes
from agent.shipped import content_id

SEPARATOR = "\n"


def text_of(inputs: Mapping[str, str], names: Sequence[str]) -> str:
    """What of an input is compared: its values, a line each, in the order of the signature."""
    return SEPARATOR.join(inputs[name] for name in names)


def same_words(text: str) -> str:
    """The words of a text, each once and sorted: equal for texts that say the same in another order or writing.

    >>> same_words("Late, LATE parcel") == same_words("parcel late")
    True
    """
    return " ".join(sorted(set(words_of(text))))


def pool_id(rows: Sequence[PoolRow]) -> str:
    """The hash of the rows that may be picked."""
    return content_id("pool", [[row.id, row.text, row.label, row.group] for row in rows])


@dataclass(frozen=True)
class PickedDemos:
    """The picked part of a released prompt.

    Args:
        picks: how rows are picked.
        head: ids of the rows that the prompt always shows, which are not picked again.
        rows: the pool.
        shown: of each row its texts in the prompt: those of the user's and the assistant's turn, or one for a layout
            with all examples in one turn.
    """

    picks: Picks
    head: tuple[str, ...]
    rows: tuple[PoolRow, ...]
    shown: tuple[tuple[str, ...], ...]

    @cached_property
    def _index(self) -> PoolIndex:
        return PoolIndex(self.rows)

    def for_inputs(self, values: Mapping[str, str], names: Sequence[str]) -> list[tuple[str, ...]]:
        """The texts of the picked rows for an input, in the order in which they are shown."""
        return [self.shown[position] for position in self._index.pick(text_of(values, names), self.picks, self.head)]

    @cached_property
    def _ids_by_words(self) -> dict[str, list[str]]:
        """By their words the ids of the rows."""
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
    ) -> list[tuple[str, ...]]:
        """`for_inputs` with rows of a user before those of the pool.

        Of the user's own rows those that have something in common with the input come first, as many as k. A row of the
        pool with the words of one of them is not picked: its label may be the one that was corrected.

        Args:
            values: The input.
            names: Of its fields, in the order of the signature.
            own: The user's rows.
            shown: Of each of these its texts in the prompt.
        """
        text = text_of(values, names)
        left_out = {*self.head, *self._replaced(own)}
        common = self._index.candidates(text, self.picks, len(left_out))
        nearest = chain(PoolIndex(own).alike(text, self.picks), (len(own) + position for position in common))
        texts = (*shown, *self.shown)
        return [texts[position] for position in chosen((*own, *self.rows), nearest, self.picks, left_out)]

    def _replaced(self, own: Sequence[PoolRow]) -> list[str]:
        """The ids of rows of the pool with the words of one of these."""
        return [name for row in own for name in self._ids_by_words.get(same_words(row.text), ())]

    def votes(
        self, values: Mapping[str, str], names: Sequence[str], labels: Sequence[str], k: int, own: Sequence[PoolRow]
    ) -> tuple[float, ...]:
        """The votes of the rows nearest to an input for each label; rows of a user vote as they are picked.

        Args:
            values: The input.
            names: Of its fields, in the order of the signature.
            labels: Those of the one output.
            k: How many rows vote.
            own: The user's rows; a row of the pool with the words of one of them does not vote.
        """
        return label_votes(self._index, text_of(values, names), labels, k, self._replaced(own), own)

    def settings(self) -> dict[str, Any]:
        """All but the rows, JSON-ready."""
        return {**self.picks.as_dict(), "head": list(self.head)}

    def row_data(self) -> list[dict[str, Any]]:
        """The rows, JSON-ready."""
        return [
            {"id": row.id, "text": row.text, "label": row.label, "group": row.group, "shown": list(shown)}
            for row, shown in zip(self.rows, self.shown, strict=True)
        ]


def picked_demos(settings: Any, rows: Any) -> PickedDemos:
    """What `settings` and `row_data` gave. Raises ValueError, which says what is wrong with data from elsewhere."""
    if not isinstance(settings, dict) or set(settings) != {"head", *(field.name for field in fields(Picks))}:
        raise ValueError(f"picks must have retriever, k, order, diverse, balanced, pool and head, not {settings!r:.60}")
    if settings["retriever"] not in RETRIEVERS or settings["order"] not in ORDERS:
        raise ValueError(f"picks: the retriever is one of {', '.join(RETRIEVERS)}, the order {' or '.join(ORDERS)}")
    k = settings["k"]
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= MOST_PICKED:
        raise ValueError(f"picks: k is a whole number from 1 to {MOST_PICKED}, not {k!r:.20}")
    if not all(isinstance(settings[name], bool) for name in ("diverse", "balanced")):
        raise ValueError("picks: diverse and balanced are true or false")
    head = settings["head"]
    if not isinstance(head, list) or not all(isinstance(name, str) for name in head):
        raise ValueError(f"picks: head is a list of row ids, not {head!r:.60}")
    if not isinstance(rows, list) or not rows:
        raise ValueError("there are picks and no rows that may be picked")
    for number, row in enumerate(rows, start=1):
        if not _is_row(row) or len(row["shown"]) != len(rows[0]["shown"]):
            raise ValueError(f"row {number} of the pool is no row with id, text, label, group and shown: {row!r:.60}")
    made = tuple(PoolRow(row["id"], row["text"], row["label"], row["group"]) for row in rows)
    if settings["pool"] != pool_id(made):
        raise ValueError(f"the rows of the pool are {pool_id(made)}, and picks says {settings['pool']!r:.40}")
    picks = Picks(**{name: value for name, value in settings.items() if name != "head"})
    return PickedDemos(picks, tuple(head), made, tuple(tuple(row["shown"]) for row in rows))


def _is_row(row: Any) -> bool:
    texts = ("id", "text", "label", "group")
    return (
        isinstance(row, dict)
        and set(row) == {*texts, "shown"}
        and all(isinstance(row[name], str) for name in texts)
        and isinstance(row["shown"], list)
        and len(row["shown"]) in (1, 2)
        and all(isinstance(text, str) for text in row["shown"])
    )
