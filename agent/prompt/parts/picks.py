"""Examples that are picked for each input from the train rows, whose labels may also vote."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import chain
from statistics import mean
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from agent.conversation import MOST_MESSAGES
from agent.errors import InputError, ReleaseError
from agent.prompt.label_calibration import NEIGHBOURS
from agent.prompt.parts.calibration import Opinion
from agent.prompt.parts.examples import as_demo
from agent.prompt.parts.kinds import FileHead, PartKind, TaskParts, WrongPart, part
from agent.prompt.parts.part import Count, PromptPart, Row
from agent.prompt.template import PICKED, marks, placeholder
from agent.retrieval.pick import MOST_PICKED, ORDERS, RETRIEVERS, Picks, PoolIndex, PoolRow, chosen, text_of
from agent.retrieval.vectors import (
    DENSE_RETRIEVERS,
    MOST_DIMENSIONS,
    MOST_NUMBERS,
    WORDLLAMA,
    DenseIndex,
    PoolVectors,
    Vector,
    index_of,
    packed,
    pool_id,
    require_vector,
    static_vector,
)
from agent.safe_data import one_of, read_as, whole

if TYPE_CHECKING:
    from agent.prompt.prompt_candidate import PromptCandidate
    from agent.types import Example, Task

VECTOR = "vector"
"""Of a row in a release, the key of its vector."""


@dataclass(frozen=True)
class PickedDemos(PromptPart):
    """The picked part of a prompt.

    `head`: ids of the rows that the prompt always shows. `shown`: of each row the texts of its turns, or one text for a
    layout with all examples in one turn. `vectors`: if rows are picked by them. `shared`: the pool of a run, if any.
    """

    name = "picks"
    mark, place = PICKED, "examples"

    picks: Picks
    head: tuple[str, ...]
    rows: tuple[PoolRow, ...]
    shown: tuple[tuple[str, ...], ...]
    vectors: PoolVectors | None = None
    shared: PoolIndex | None = field(default=None, compare=False, repr=False)

    @cached_property
    def pool(self) -> PoolIndex:
        return self.shared or index_of(self.rows, self.vectors, self._embed)

    def example(self) -> tuple[str, ...]:
        return self.shown[0]

    @cached_property
    def _is_alike(self) -> bool:
        assert self.vectors is not None
        kept, made = self.vectors.vector(0), static_vector(self.rows[0].text)
        return len(kept) == len(made) and all(abs(one - other) < 1e-3 for one, other in zip(kept, made, strict=True))

    def _embed(self, text: str) -> Vector:
        assert self.vectors is not None
        what = f"this prompt picks its examples by vectors of {self.vectors.model}"
        if self.vectors.is_provided:
            raise ReleaseError(f"{what}; pass the input's as vector=..., or call complete, which requests it")
        try:
            if self._is_alike:
                return static_vector(text)
        except InputError as missing:
            raise ReleaseError(f"{what}; {missing}") from missing
        raise ReleaseError(
            f"{what}, and the installed version makes different ones; install the version of the run, or "
            "run the task again"
        )

    def _index_for(self, vector: Vector | None) -> PoolIndex:
        index = self.pool
        if vector is None or self.vectors is None or not isinstance(index, DenseIndex):
            return index
        return index.for_vector(require_vector(vector, self.vectors))

    def positions(self, row: Row) -> list[int]:
        """Return the pool positions of the row's examples. Never the row, its near-duplicates, or a row of the head."""
        left_out = self.pool.same(row.id, row.text) | frozenset(self.head)
        return self._index_for(row.vector).pick(row.text, self.picks, left_out)

    def values(self, row: Row) -> dict[str, Any]:
        picked = self._with_own(row) if row.own else [self.shown[position] for position in self.positions(row)]
        return {PICKED: picked}

    def _with_own(self, row: Row) -> list[tuple[str, ...]]:
        # a pool row with the words of a user's row is not picked: its label may be the one that was corrected
        left_out = {*self.head, *self.pool.replaced(row.own)}
        common = self._index_for(row.vector).candidates(row.text, self.picks, len(left_out))
        by_text = self.picks if self.vectors is None else replace(self.picks, retriever="hybrid")
        nearest = chain(PoolIndex(row.own).alike(row.text, by_text), (len(row.own) + position for position in common))
        texts = (*row.shown, *self.shown)
        return [texts[position] for position in chosen((*row.own, *self.rows), nearest, self.picks, left_out)]

    def size(self, count: Count, rows: Sequence[Row], most: bool) -> int:
        if not most:
            return round(mean(sum(count(text) for texts in self.values(row)[PICKED] for text in texts) for row in rows))
        sizes = [sum(map(count, self.shown[at])) for at, row in enumerate(self.rows) if row.id not in self.head]
        return sum(sorted(sizes)[-self.picks.k :])

    def data(self) -> dict[str, Any]:
        rows: list[dict[str, Any]] = [
            {**asdict(row), "shown": list(shown)} for row, shown in zip(self.rows, self.shown, strict=True)
        ]
        made: dict[str, Any] = {}
        if self.vectors is not None:
            made = {"embeddings": self.vectors.model, "dimensions": self.vectors.dimensions}
            rows = [{**row, VECTOR: vector} for row, vector in zip(rows, self.vectors.rows, strict=True)]
        return {self.name: {**self.picks.as_dict(), "head": list(self.head), **made, "rows": rows}}


# -- read from a file --------------------------------------------------------------------------------------------------

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
    """Restore the output of `PickedDemos.data`. Raises ValueError."""
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


# -- the pool of a task ------------------------------------------------------------------------------------------------


class PickedRows:
    """The pool of one task; everything is made when first needed."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._names = task.signature.compared
        self._layouts: dict[tuple[str, str, str, str], tuple[tuple[str, ...], ...]] = {}
        self._embedded: dict[str, Vector] = {}

    @cached_property
    def rows(self) -> tuple[PoolRow, ...]:
        """The train rows; near-duplicates have the same group, the id of the first of them."""
        from agent.task.copies import near_duplicates

        train, outputs = self._task.train, self._task.signature.outputs
        texts = [text_of(row.inputs, self._names) for row in train]
        groups = [row.id for row in train]
        for twins in near_duplicates(texts):
            for position in twins:
                groups[position] = train[twins[0]].id
        field = outputs[0].name if len(outputs) == 1 and outputs[0].choices else ""
        labels = [str(row.labels[field]) if field else "" for row in train]
        return tuple(
            PoolRow(row.id, text, label, group)
            for row, text, label, group in zip(train, texts, labels, groups, strict=True)
        )

    @cached_property
    def id(self) -> str:
        """The hash of the pool, which a candidate's `picks` names."""
        return pool_id(self.rows)

    @cached_property
    def _dense_id(self) -> str:  # of vectors of a megabyte or more, and asked for each change of a candidate
        return pool_id(self.rows, self.vectors)

    def id_of(self, retriever: str) -> str:
        """Return the hash for a retriever; it covers the vectors of those that compare them."""
        return self._dense_id if retriever in DENSE_RETRIEVERS else self.id

    def why_other(self, picks: Picks) -> str:
        if picks.retriever in DENSE_RETRIEVERS and not self._task.space.embeddings:
            return f"its examples are picked by {picks.retriever}, and the task names no embeddings"
        if picks.pool != (own := self.id_of(picks.retriever)):
            return f"its examples are picked out of {picks.pool}, and the train rows of the task are {own}"
        return ""

    @cached_property
    def vectors(self) -> PoolVectors:
        """The vectors of the rows. Raises InputError if they cannot be made, or are too many for a release."""
        model = self._task.space.embeddings
        made = [self._vector(row.text) for row in self.rows]
        if (numbers := len(made) * len(made[0])) > MOST_NUMBERS:
            raise InputError(
                f"{len(made):,} train rows with vectors of {len(made[0]):,} numbers ({model}) are more than a release "
                f"holds ({numbers:,} numbers, at most {MOST_NUMBERS:,}); use fewer train rows (--limit), a model of "
                "fewer dimensions, or no embeddings"
            )
        return PoolVectors(model, len(made[0]), tuple(map(packed, made)))

    def texts(self, rows: Iterable[Example]) -> list[str]:
        return list(dict.fromkeys(text_of(row.inputs, self._names) for row in rows))

    def know(self, vectors: Mapping[str, Vector]) -> None:
        """Store the vectors of texts that a provider made."""
        self._embedded.update(vectors)

    def _vector(self, text: str) -> Vector:
        if text not in self._embedded:
            if (model := self._task.space.embeddings) != WORDLLAMA:
                raise InputError(f"no vector of {model} was requested for the row {text!r:.60}")
            self._embedded[text] = static_vector(text)
        return self._embedded[text]

    @cached_property
    def pool(self) -> PoolIndex:
        return PoolIndex(self.rows)

    @cached_property
    def _dense_pool(self) -> PoolIndex:
        return index_of(self.rows, self.vectors, self._vector)

    def bound(self, prompt: PromptCandidate) -> PickedDemos:
        """Return the picker of a candidate that has `picks`."""
        picks: Picks = prompt.part("picks")
        is_dense = picks.retriever in DENSE_RETRIEVERS
        return PickedDemos(
            picks,
            tuple(demo.example_id for demo in prompt.demos),
            self.rows,
            self._laid_out(prompt),
            self.vectors if is_dense else None,
            self._dense_pool if is_dense else self.pool,
        )

    def _laid_out(self, prompt: PromptCandidate) -> tuple[tuple[str, ...], ...]:
        from agent.prompt.render import added_words, shown_demos

        task = self._task
        own = prompt.instruction if marks(prompt.instruction, self._names) else ""
        key = (prompt.technique, prompt.format, own, added_words(prompt, task.signature))
        if key not in self._layouts:
            demos = (as_demo(row, task.accepted) for row in task.train)
            self._layouts[key] = tuple(shown_demos(prompt, demos, task.signature))
        return self._layouts[key]

    def positions(self, prompt: PromptCandidate, row: Example) -> list[int]:
        return self.bound(prompt).positions(Row(row.inputs, self._names, row.id))

    def votes(self, row: Example, k: int) -> tuple[float, ...]:
        """Count the votes of the `k` nearest rows per choice. The row and its near-duplicates do not vote."""
        text, labels = text_of(row.inputs, self._names), self._task.signature.outputs[0].choices
        return self.pool.votes(text, labels, k, row.id)


def of_pool(prompt: PromptCandidate, shared: TaskParts) -> PromptCandidate:
    """Return the same prompt, which picks from the rows of another task."""
    picks = prompt.part("picks")
    return prompt.having(picks=replace(picks, pool=shared.of(PickedRows).id)) if picks else prompt


# -- the kind ----------------------------------------------------------------------------------------------------------


@part
class Picking(PartKind):
    name, settings = "picks", Picks
    headings: ClassVar[Mapping[str, str]] = {"picks": "pool"}
    made = PickedDemos
    must_prove = True

    def examples(self, settings: Picks) -> int:
        return settings.k

    def needs_vectors(self, settings: Picks) -> bool:
        return settings.retriever in DENSE_RETRIEVERS

    def learnt_from(self, settings: Picks, task: Task) -> Iterable[str]:
        return (row.id for row in task.train)

    def features(self, settings: Picks) -> dict[tuple[str, str], float]:
        return {
            ("picked examples", settings.retriever): 1.0,
            ("picked order", settings.order): 1.0,
            ("log2 picked examples", ""): math.log2(1 + settings.k) / 2,
        }

    def without(self, winner: PromptCandidate, baseline: PromptCandidate) -> tuple[str, PromptCandidate] | None:
        if winner.part("picks") is None:
            return None
        calibration = winner.part("calibration")
        is_near = calibration and calibration.neighbours  # which come with the pool
        static = winner.having(picks=None, calibration=None if is_near else calibration)
        return "picked examples", static.with_demos(winner.demos)

    def why_rejected(self, settings: Picks, prompt: PromptCandidate, task: Task) -> str:
        from agent.prompt.techniques import TECHNIQUES

        is_reasoned = TECHNIQUES[prompt.technique].reasoning
        return f"technique {prompt.technique}: a picked demo has no reasons to show" if is_reasoned else ""

    def why_other(self, settings: Picks, prompt: PromptCandidate, shared: TaskParts) -> str:
        return shared.of(PickedRows).why_other(settings)

    def opinion(self, shared: TaskParts) -> Opinion:
        pool = shared.of(PickedRows)
        return Opinion("neighbours", lambda row: pool.votes(row, NEIGHBOURS))

    def bind(self, settings: Picks, prompt: PromptCandidate, shared: TaskParts) -> PickedDemos:
        return shared.of(PickedRows).bound(prompt)

    def load(self, head: FileHead) -> PickedDemos:
        found, mark = picked_examples(*head.table(self.name)), placeholder(PICKED)
        if not any(mark in content for content in head.contents):
            raise WrongPart("messages", f"hold no {mark}, where the picked examples go")
        if len(found.shown[0]) % 2 != (0 if mark in head.contents else 1):
            raise WrongPart("messages", "show picked examples in another form than the rows of the pool have")
        return found
