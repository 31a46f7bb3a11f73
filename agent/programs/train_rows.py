"""What a prompt takes from the train rows: examples picked for each input, and a classifier for `prior` calibration."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from statistics import mean
from typing import Any

from agent.errors import InputError
from agent.metrics.calls import one_answer
from agent.programs.classifiers import regression
from agent.prompt.prompt_candidate import PromptCandidate
from agent.prompt.render import shown_demo
from agent.prompt.template import fill_picked, label_text, marks
from agent.retrieval.linear import MOST_FEATURES, LabelClassifier, term_counts
from agent.retrieval.linear import MOST_NUMBERS as MOST_WEIGHTS
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
from agent.shipped import content_id
from agent.task.splits import near_duplicates
from agent.types import Candidate, Demo, Example, Message, Task

SAMPLE = 50
"""Train rows over which the mean length of a prompt with picks is taken."""


def as_prompt(candidate: Candidate) -> PromptCandidate:
    assert isinstance(candidate, PromptCandidate)
    return candidate


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
        """The votes of the `k` nearest rows for each choice, without the row and its near-duplicates."""
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


MOST_ROWS = 10_000
"""Train rows that it learns from."""
RARITY_UNIT = 20.0  # of one nat of inverse document frequency
UNSEEN = 0.5  # of a row, for a label that no train row has
DIGITS = 4


class TrainedPrior:
    """The classifier of a task's train rows; trained when first needed."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._names = task.signature.compared
        self._known: dict[str, tuple[float, ...]] = {}

    @cached_property
    def trained(self) -> LabelClassifier | None:
        """None where the task has no single choice, or train rows too few to tell labels apart."""
        outputs = self._task.signature.outputs
        if len(outputs) != 1 or len(outputs[0].choices) < 2:
            return None
        field = outputs[0]
        rows = [row for row in self._task.train if row.labels[field.name] in field.choices][:MOST_ROWS]
        texts = [text_of(row.inputs, self._names) for row in rows]
        return trained(texts, [field.choices.index(row.labels[field.name]) for row in rows], len(field.choices))

    @property
    def rows(self) -> str:
        return self.trained.trained_on if self.trained else ""

    def log_probabilities(self, row: Example) -> tuple[float, ...]:
        """Of each label for a row, in nats."""
        assert self.trained is not None
        text = text_of(row.inputs, self._names)
        if text not in self._known:  # a search reads each dev row again for every finalist
            self._known[text] = self.trained.log_probabilities(text)
        return self._known[text]

    def why_other(self, rows: str) -> str:
        own = self.rows or "too few to train one"
        return "" if rows == own else f"its classifier was trained on {rows}, and the train rows of the task are {own}"


def trained(texts: Sequence[str], answers: Sequence[int], labels: int) -> LabelClassifier | None:
    """Train a classifier; None where the rows have one label or no text.

    `answers`: for each row the position of its label. `labels`: how many there are.
    """
    counts = [term_counts(text) for text in texts]
    frequency = Counter(term for row in counts for kind in row for term in kind)
    if len(set(answers)) < 2 or not frequency:
        return None
    most = max(1, min(MOST_FEATURES, MOST_WEIGHTS // labels))
    features = sorted(heapq.nsmallest(most, frequency, key=lambda term: (-frequency[term], term)))
    nats = [math.log((1 + len(texts)) / (1 + frequency[term])) + 1 for term in features]
    rarity = bytes(min(255, round(RARITY_UNIT * nat)) for nat in nats)
    blank = LabelClassifier("", features, rarity, (), (), 1.0)
    weights, intercepts = _fitted([blank.values(text) for text in texts], answers, len(features), labels)
    scale = float(f"{max(abs(weights).max(), 1e-9) / 127:.6g}")
    whole = [bytes(round(float(value)) & 0xFF for value in row / scale) for row in weights]
    rows = content_id("rows", [[text, answer] for text, answer in zip(texts, answers, strict=True)])
    return LabelClassifier(rows, features, rarity, whole, [round(float(one), DIGITS) for one in intercepts], scale)


def _fitted(
    values: Sequence[Sequence[tuple[int, float]]], answers: Sequence[int], features: int, labels: int
) -> tuple[Any, Any]:
    """Weights by label and feature, and intercepts; a label without rows is as unlikely as UNSEEN of a row makes it."""
    import numpy as np
    from scipy.sparse import csr_matrix
    from threadpoolctl import threadpool_limits

    starts = np.cumsum([0, *map(len, values)])
    columns = [at for row in values for at, _ in row]
    table = csr_matrix(([value for row in values for _, value in row], columns, starts), (len(values), features))
    with threadpool_limits(1):
        model = regression().fit(table, answers)
    weights = np.zeros((labels, features))
    intercepts = np.full(labels, math.log(UNSEEN / len(values)))
    two = len(model.classes_) == 2
    weights[model.classes_] = np.vstack([-model.coef_ / 2, model.coef_ / 2]) if two else model.coef_
    intercepts[model.classes_] = [-model.intercept_[0] / 2, model.intercept_[0] / 2] if two else model.intercept_
    return weights, intercepts
