"""The train rows of a task as a pool: which of them a prompt with picks shows on a row, and how long that makes it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property
from statistics import mean

from agent.errors import InputError
from agent.metrics.calls import one_answer
from agent.prompt.prompt_candidate import PromptCandidate
from agent.prompt.render import shown_demo
from agent.prompt.template import fill_picked, label_text, marks
from agent.retrieval.pick import Picks, PoolIndex, PoolRow
from agent.retrieval.pool import PickedDemos, pool_id, text_of
from agent.retrieval.vectors import (
    DENSE_RETRIEVERS,
    MOST_NUMBERS,
    WORDLLAMA,
    DenseIndex,
    PoolVectors,
    Vector,
    packed,
    static_vector,
)
from agent.retrieval.votes import label_votes
from agent.task.splits import near_duplicates
from agent.types import Demo, Example, Message, Task

SAMPLE = 50
"""Train rows over which the mean length of a prompt with picks is taken."""


def as_demo(row: Example, accepted: Collection[str] = ()) -> Demo:
    """A row as a worked example with its label; `accepted`: the outputs whose labels hold accepted values."""
    answers = one_answer(row.labels, accepted)
    return Demo(row.id, row.inputs, {name: label_text(value) for name, value in answers.items()})


class PickedRows:
    """The pool of one task; all is worked out when it is first needed."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._names = task.signature.compared
        self._shown: dict[tuple[str, ...], dict[int, tuple[str, ...]]] = {}
        self._embedded: dict[str, Vector] = {}
        self._votes: dict[tuple[str, frozenset[str], int], tuple[float, ...]] = {}

    @cached_property
    def rows(self) -> tuple[PoolRow, ...]:
        """The train rows; near-duplicates have the same group, the id of the first of them."""
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
    def _dense_id(self) -> str:
        return pool_id(self.rows, self.vectors)

    def id_of(self, retriever: str) -> str:
        """The hash for a retriever; those that compare vectors have them in the hash."""
        return self._dense_id if retriever in DENSE_RETRIEVERS else self.id

    def why_other(self, picks: Picks) -> str:
        """Why these picks are not out of this task's rows, or ""."""
        if picks.retriever in DENSE_RETRIEVERS and not self._task.space.embeddings:
            return f"its examples are picked by {picks.retriever}, and the task names no embeddings"
        if picks.pool != (own := self.id_of(picks.retriever)):
            return f"its examples are picked out of {picks.pool}, and the train rows of the task are {own}"
        return ""

    @cached_property
    def vectors(self) -> PoolVectors:
        """Those of the rows. Raises InputError where they cannot be made, or are too many for a release."""
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
        """What of rows is compared, each text once."""
        return list(dict.fromkeys(text_of(row.inputs, self._names) for row in rows))

    def know(self, vectors: Mapping[str, Vector]) -> None:
        """Take the vectors of texts that a provider made."""
        self._embedded.update(vectors)

    def _vector(self, text: str) -> Vector:
        if text not in self._embedded:
            if (model := self._task.space.embeddings) != WORDLLAMA:
                raise InputError(f"a row is asked whose vector {model} was not asked for: {text!r:.60}")
            self._embedded[text] = static_vector(text)
        return self._embedded[text]

    @cached_property
    def _index(self) -> PoolIndex:
        return PoolIndex(self.rows)

    @cached_property
    def _dense_index(self) -> PoolIndex:
        return DenseIndex(self.rows, self.vectors, self._vector)

    @cached_property
    def _twins(self) -> dict[str, frozenset[str]]:
        members: dict[str, set[str]] = {}
        for row in self.rows:
            members.setdefault(row.group, set()).add(row.id)
        return {row.id: frozenset(members[row.group]) for row in self.rows}

    def positions(self, prompt: PromptCandidate, row: Example) -> list[int]:
        """Where in the pool the row's examples are: never the row itself, its near-duplicates, or a row of the head.

        An input that is no train row gets what it gets in production, where nothing else is known of it.
        """
        assert prompt.picks is not None
        head = {demo.example_id for demo in prompt.demos}
        index = self._dense_index if prompt.picks.retriever in DENSE_RETRIEVERS else self._index
        return index.pick(text_of(row.inputs, self._names), prompt.picks, self._same(row) | head)

    def _same(self, row: Example) -> frozenset[str]:
        """The ids of a train row and its near-duplicates; none for another row, even one with the id of a train row."""
        same = self._twins.get(row.id, frozenset())
        is_other = same and self._by_id[row.id].text != text_of(row.inputs, self._names)
        return frozenset() if is_other else same

    def votes(self, row: Example, k: int) -> tuple[float, ...]:
        """The votes of the `k` nearest rows for each choice of the one output, without the row and its near-duplicates.
        The votes of the `k` nearest rows for each choice of the one output, without the row and its near-duplicates."""
        text, same = text_of(row.inputs, self._names), self._same(row)
        if (text, same, k) not in self._votes:  # a search reads each dev row again for every candidate that picks
            labels = self._task.signature.outputs[0].choices
            self._votes[text, same, k] = label_votes(self._index, text, labels, k, same)
        return self._votes[text, same, k]

    @cached_property
    def _by_id(self) -> dict[str, PoolRow]:
        return {row.id: row for row in self.rows}

    def messages(
        self, prompt: PromptCandidate, template: tuple[Message, ...], row: Example, values: Mapping[str, str]
    ) -> tuple[Message, ...]:
        """The candidate's messages for a row. `values`: what goes into the template besides the demos."""
        shown = [self._text(prompt, position) for position in self.positions(prompt, row)]
        return fill_picked(template, values, shown)

    def _text(self, prompt: PromptCandidate, position: int) -> tuple[str, ...]:
        own = prompt.instruction if marks(prompt.instruction, self._names) else ""
        known = self._shown.setdefault((prompt.technique, prompt.format, own), {})
        if position not in known:
            demo = as_demo(self._task.train[position], self._task.accepted)
            known[position] = shown_demo(prompt, demo, self._task.signature)
        return known[position]

    def mean_tokens(self, prompt: PromptCandidate, count: Callable[[str], int]) -> int:
        """Tokens of the picked examples, on average over train rows, each without itself."""
        sizes = [
            sum(count(text) for at in self.positions(prompt, row) for text in self._text(prompt, at))
            for row in self._task.train[:SAMPLE]
        ]
        return round(mean(sizes))

    def most_tokens(self, prompt: PromptCandidate, count: Callable[[str], int]) -> int:
        """The most tokens that the picked examples can take with any input: those of the k longest rows."""
        assert prompt.picks is not None
        head = {demo.example_id for demo in prompt.demos}
        sizes = [sum(map(count, self._text(prompt, at))) for at, row in enumerate(self.rows) if row.id not in head]
        return sum(sorted(sizes)[-prompt.picks.k :])

    def released(self, prompt: PromptCandidate) -> PickedDemos:
        assert prompt.picks is not None
        return PickedDemos(
            prompt.picks,
            tuple(demo.example_id for demo in prompt.demos),
            self.rows,
            tuple(self._text(prompt, position) for position in range(len(self.rows))),
            self.vectors if prompt.picks.retriever in DENSE_RETRIEVERS else None,
        )
