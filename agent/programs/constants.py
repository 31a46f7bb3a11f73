"""The best answer that is the same for every row: chosen on train and dev by the task's own metrics, without a call.

Dev takes part, as it chose the prompt that is compared. Candidates are the answers of the rows. Sets, lists, records
and texts are then improved part by part: an item in or out, another value of a field, words of another text. The work
is bounded by a number of scores, so that the same rows give the same answer.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from statistics import median
from typing import Any

from agent.metrics.calls import one_answer
from agent.metrics.comparison import key, labels_in
from agent.metrics.metric_registry import METRICS
from agent.metrics.text_match import SetOptions
from agent.prompt.template import label_text
from agent.types import Example, Field, Prediction, Task


@dataclass(frozen=True, slots=True)
class Effort:
    """The most `rows` with different labels that answers are scored on, answers of rows that are tried, and scores."""

    rows: int
    values: int
    scores: int


EFFORT = Effort(200, 40, 20_000)
OF_TEXTS = Effort(60, 40, 8_000)
"""Texts take longer to compare."""
OF_OWN_METRICS = Effort(50, 6, 400)
"""Code of the user may take longer still."""
MOST_PARTS, PART_VALUES, MERGED = 40, 8, 16
"""Items of a set, fields of a record and words of a text that are varied; values of such a field, and texts that are
merged with another."""

Scorer = Callable[[Example, Prediction], Awaitable[float | None]]
"""The score of an answer to a row, in [0, 1]; None where it cannot be scored."""
Fields = Mapping[str, Any]
Step = Callable[[Fields], Iterable[Fields]]
"""From an answer to those that differ from it in one part."""
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Constant:
    """An answer for every row: what it is called, and its fields."""

    name: str
    fields: Fields

    @property
    def prediction(self) -> Prediction:
        return predicted(self.fields)


def predicted(fields: Fields) -> Prediction:
    """An answer as a program returns it."""
    return Prediction(fields, "\n".join(label_text(value) for value in fields.values()))


def is_own(task: Task) -> bool:
    """Whether a metric of the task is code of the user."""
    return any(spec.name == "python" or spec.name not in METRICS for spec in task.metrics)


def reads_labels(task: Task) -> bool:
    """Whether a metric compares with a label or may do so; one that does not accepts the same answer on every row."""
    return is_own(task) or any(METRICS.get(spec.name).needs_label for spec in task.metrics)


def answers(task: Task, rows: Iterable[Example]) -> list[tuple[Example, dict[str, Any]]]:
    """The rows that have an answer for each output, with it."""
    names = [field.name for field in task.signature.outputs]
    found = [(row, _answer(task, row)) for row in rows]
    return [(row, answer) for row, answer in found if all(answer.get(name) is not None for name in names)]


def _answer(task: Task, row: Example) -> dict[str, Any]:
    """The labels of a row as an answer. A list as the label of a text is a set, or means that each item is right."""
    answer = one_answer(row.labels, task.accepted)
    for field in task.signature.outputs:
        label = answer.get(field.name)
        if field.type == "text" and isinstance(label, list):
            separator = separator_of(task, field)
            answer[field.name] = joined(label, separator) if separator else next(iter(label), None)
    return {field.name: answer.get(field.name) for field in task.signature.outputs}


async def best_constant(task: Task, score: Scorer) -> Constant:
    """Find the best constant answer of a task whose train has `answers`."""
    known = answers(task, (*task.train, *task.dev))
    search = _Search(task, score, [row for row, _ in known])
    given = {field.name: [answer[field.name] for _, answer in known] for field in task.signature.outputs}
    wholes: list[Step] = []
    parts: list[Step] = []
    start: dict[str, Any] = {}
    full: dict[str, Any] = {}
    for field in task.signature.outputs:
        values = given[field.name]
        pool = _pool(field, values)[: search.most_values]
        start[field.name] = full[field.name] = pool[0]
        wholes.append(_values(field.name, pool))
        separator = separator_of(task, field)
        if separator or all(isinstance(value, list) for value in values):
            items = _Items(field.name, separator)
            vocabulary = _most_frequent(item for value in values for item in items.of(value))[:MOST_PARTS]
            full[field.name] = items.joined(vocabulary)
            parts += [items.toggled(item) for item in vocabulary]
        elif all(isinstance(value, Mapping) for value in values):
            parts += _record_steps(field.name, values)
        elif field.type == "text":
            parts += _text_steps(field.name, pool)
    best = await search.climb(await search.climb(start, wholes), [*parts, *wholes])
    if parts and full != start:
        best = max(best, await search.climb(full, parts), key=search.known)
    return Constant(_name(task, given, best), best)


def separator_of(task: Task, field: Field) -> str:
    """What stands between the labels of a text that is scored as a set; "" for other fields."""
    named = [spec for spec in task.metrics if spec.name == "set_f1" and spec.field in ("", field.name)]
    if field.type != "text" or not named:
        return ""
    return SetOptions.model_validate(dict(named[0].options)).separator


def joined(items: Sequence[Any], separator: str) -> str:
    """The labels of a set as a text."""
    return f"{separator} ".join(map(str, items))


class _Search:
    """Scores answers on rows, each answer once, until the scores that may be made are spent."""

    def __init__(self, task: Task, score: Scorer, rows: Sequence[Example]) -> None:
        texts = any(field.type == "text" and not separator_of(task, field) for field in task.signature.outputs)
        effort = OF_OWN_METRICS if is_own(task) else OF_TEXTS if texts else EFFORT
        self.most_values, self._left = effort.values, effort.scores
        self._score = score
        self._rows = [(row, 1) for row in _spread(rows, effort.rows)] if is_own(task) else _grouped(rows, effort.rows)
        self._known: dict[str, float] = {}

    def known(self, fields: Fields) -> float:
        """The mean score of an answer that was scored."""
        return self._known[_key(fields)]

    async def climb(self, fields: Fields, steps: Sequence[Step]) -> Fields:
        """Take the best of each step where it improves the answer, until none does."""
        best, reached, moved = fields, await self._mean(fields), True
        while moved and self._left > 0:
            moved = False
            for step in steps:
                for other in step(best):
                    if self._left <= 0:
                        return best
                    if (mean := await self._mean(other)) > reached + 1e-9:
                        best, reached, moved = other, mean, True
        return best

    async def _mean(self, fields: Fields) -> float:
        known = self._known.get(_key(fields))
        if known is not None:
            return known
        prediction = predicted(fields)
        scored = [(await self._score(row, prediction), weight) for row, weight in self._rows]
        self._left -= len(self._rows)
        await asyncio.sleep(0)  # lets the display and a Ctrl-C have their turn
        weights = sum(weight for value, weight in scored if value is not None)
        total = math.fsum(value * weight for value, weight in scored if value is not None)
        self._known[_key(fields)] = total / weights if weights else 0.0
        return self._known[_key(fields)]


def _grouped(rows: Sequence[Example], most: int) -> list[tuple[Example, int]]:
    """Rows with different labels, and how many rows each stands for: rows with the same labels get the same score,
    unless the metric is the user's code, which may look at the inputs."""
    first: dict[str, Example] = {}
    for row in rows:
        first.setdefault(_key(row.labels), row)
    counted = Counter(_key(row.labels) for row in (rows if len(first) <= most else _spread(rows, most)))
    return [(first[label], count) for label, count in counted.items()]


def _spread(rows: Sequence[Example], most: int) -> list[Example]:
    """Up to that many rows, spread evenly."""
    return [rows[at * len(rows) // most] for at in range(most)] if len(rows) > most else list(rows)


def _key(value: Any) -> str:
    return key(value, str)


# -- values and steps -------------------------------------------------------------------------------------------------


def _pool(field: Field, values: Sequence[Any]) -> list[Any]:
    """Different values, the most frequent first; numbers begin with their mean and median."""
    if field.type == "choice":
        counted = Counter(map(str, values))
        return sorted(counted, key=lambda value: (-counted[value], value))
    if field.type == "number":
        return [*_middles(values).values(), *_most_frequent(values)]
    return _most_frequent(values)


def _middles(numbers: Sequence[float]) -> dict[str, float]:
    """Mean and median, whole where all numbers are."""
    middles = {"mean": math.fsum(numbers) / len(numbers), "median": median(numbers)}
    whole = all(float(number).is_integer() for number in numbers)
    return {name: round(value) if whole else float(value) for name, value in middles.items()}


def _most_frequent(values: Iterable[Any]) -> list[Any]:
    """Different values, the most frequent first, of equally frequent ones the first."""
    counted, first = Counter[str](), dict[str, Any]()
    for value in values:
        counted[_key(value)] += 1
        first.setdefault(_key(value), value)
    return [first[name] for name, _ in counted.most_common()]


def _values(name: str, pool: Sequence[Any]) -> Step:
    return lambda fields: ({**fields, name: value} for value in pool)


@dataclass(frozen=True, slots=True)
class _Items:
    """The items of a list, or of a text with a `separator`, in the output `name`."""

    name: str
    separator: str = ""

    def of(self, value: Any) -> list[Any]:
        return labels_in(value, self.separator) if self.separator else list(value)

    def joined(self, items: Sequence[Any]) -> Any:
        return joined(items, self.separator) if self.separator else list(items)

    def toggled(self, item: Any) -> Step:
        """The answer with the item, or without it."""

        def step(fields: Fields) -> Iterator[Fields]:
            yield {**fields, self.name: self.joined(_toggled(self.of(fields[self.name]), item))}

        return step


def _toggled(items: list[Any], item: Any) -> list[Any]:
    left = [each for each in items if _key(each) != _key(item)]
    return left if len(left) < len(items) else [*items, item]


def _record_steps(name: str, records: Sequence[Mapping[str, Any]]) -> list[Step]:
    """A step for each field of a record, and for each item of a field that is a list."""
    steps: list[Step] = []
    for part in _most_frequent(part for record in records for part in record)[:MOST_PARTS]:
        values = [record.get(part, _ABSENT) for record in records]
        present = [value for value in values if value is not _ABSENT]
        pool = _most_frequent(present)[:PART_VALUES]
        steps.append(_part_values(name, part, [*pool, *[_ABSENT] * (len(present) < len(values))]))
        if all(isinstance(value, list) for value in present):
            items = _most_frequent(item for value in present for item in value)[:PART_VALUES]
            steps += [_part_toggled(name, part, item) for item in items]
    return steps


def _part_values(name: str, part: str, values: Sequence[Any]) -> Step:
    def step(fields: Fields) -> Iterator[Fields]:
        rest = {other: value for other, value in fields[name].items() if other != part}
        for value in values:
            yield {**fields, name: rest if value is _ABSENT else {**rest, part: value}}

    return step


def _part_toggled(name: str, part: str, item: Any) -> Step:
    def step(fields: Fields) -> Iterator[Fields]:
        items = fields[name].get(part, [])
        yield {**fields, name: {**fields[name], part: _toggled(items, item)}}

    return step


def _text_steps(name: str, texts: Sequence[str]) -> list[Step]:
    """A step that adds the words of other texts in their places, and one for each word that may be left out."""

    def merged(fields: Fields) -> Iterator[Fields]:
        for text in texts[:MERGED]:
            yield {**fields, name: _merged(fields[name].split(), text.split())}

    return [merged, *(_word_dropped(name, at) for at in range(MOST_PARTS))]


def _merged(words: Sequence[str], others: Sequence[str]) -> str:
    """The shared words once, the others of both in their order."""
    found: list[str] = []
    for what, start, end, from_, to in SequenceMatcher(None, words, others, autojunk=False).get_opcodes():
        found += words[start:end]
        found += others[from_:to] if what != "equal" else []
    return " ".join(found)


def _word_dropped(name: str, at: int) -> Step:
    def step(fields: Fields) -> Iterator[Fields]:
        words = fields[name].split()
        if at < len(words) > 1:
            yield {**fields, name: " ".join([*words[:at], *words[at + 1 :]])}

    return step


def _name(task: Task, given: Mapping[str, Sequence[Any]], best: Fields) -> str:
    """What the answer is called in tables."""
    if len(task.signature.outputs) > 1:
        return "constant record"
    (field,) = task.signature.outputs
    (values,), (value,) = given.values(), best.values()
    if field.type == "choice":
        return "largest class" if value == _pool(field, values)[0] else "constant class"
    if field.type == "number":
        return next((name for name, middle in _middles(values).items() if middle == value), "constant number")
    if task.tools:
        return "constant calls"
    if separator_of(task, field):
        return "constant set"
    kinds = {Mapping: "record", list: "list"}
    kind = next((kind for of, kind in kinds.items() if all(isinstance(each, of) for each in values)), "answer")
    return f"constant {kind}"
