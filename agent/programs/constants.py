"""The best constant answer: chosen on train and dev by the task's own metrics, without a call.

Dev takes part, as it chose the prompt that is compared. Sets, lists, records and texts are improved part by part. The
work is bounded by a number of scores, so that the same rows give the same answer.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from statistics import median
from typing import Any

from agent.metrics.calls import one_answer
from agent.metrics.comparison import key, labels_in
from agent.metrics.metric_registry import METRICS
from agent.metrics.text_match import SetOptions
from agent.prompt.template import label_text
from agent.types import Example, Field, Prediction, Task

# each: rows with different labels, tried values of a field, and scores
EFFORT = (200, 40, 20_000)
OF_TEXTS = (60, 40, 8_000)  # comparing texts is slower
OF_OWN_METRICS = (50, 6, 400)  # user code may be slower still
MOST_PARTS, PART_VALUES, MERGED = 40, 8, 16  # items, fields and words; values of a field; texts to merge

Scorer = Callable[[Example, Prediction], Awaitable[float | None]]
"""The score of an answer to a row, in [0, 1]; None if it cannot be scored."""
Fields = Mapping[str, Any]
Step = Callable[[Fields], Iterable[Fields]]  # the answers that differ from an answer in one part
Change = Callable[[Any], Iterable[Any]]  # the same for one output
_ABSENT = object()


def predicted(fields: Fields) -> Prediction:
    return Prediction(fields, "\n".join(label_text(value) for value in fields.values()))


def is_own(task: Task) -> bool:
    return any(spec.name == "python" or spec.name not in METRICS for spec in task.metrics)


def reads_labels(task: Task) -> bool:
    """Tell whether a metric may compare with a label. Others accept the same answer on every row."""
    return is_own(task) or any(METRICS.get(spec.name).needs_label for spec in task.metrics)


def answers(task: Task, rows: Iterable[Example]) -> list[tuple[Example, dict[str, Any]]]:
    """Return the rows with an answer for each output, and the answers."""
    names = [field.name for field in task.signature.outputs]
    found = [(row, _answer(task, row)) for row in rows]
    return [(row, answer) for row, answer in found if all(answer.get(name) is not None for name in names)]


def _answer(task: Task, row: Example) -> dict[str, Any]:
    """Read a list as a set's label, or as right items."""
    answer = one_answer(row.labels, task.accepted)
    for field in task.signature.outputs:
        label = answer.get(field.name)
        if field.type == "text" and isinstance(label, list):
            separator = separator_of(task, field)
            answer[field.name] = joined(label, separator) if separator else next(iter(label), None)
    return {field.name: answer.get(field.name) for field in task.signature.outputs}


async def best_constant(task: Task, score: Scorer) -> tuple[str, Fields]:
    """Return the answer with its name."""
    known = answers(task, (*task.train, *task.dev))
    search = _Search(task, score, [row for row, _ in known])
    given = {field.name: [answer[field.name] for _, answer in known] for field in task.signature.outputs}
    wholes: list[Step] = []
    parts: list[Step] = []
    start: dict[str, Any] = {}
    full: dict[str, Any] = {}
    for field in task.signature.outputs:
        values, name, changes = given[field.name], field.name, list[Change]()
        pool = _pool(field, values)[: search.most_values]
        start[name] = full[name] = pool[0]
        wholes.append(_step(name, _any_of(pool)))
        kind = shape(task, field, values)
        if kind in ("set", "list"):
            changes, full[name] = _item_changes(values, separator_of(task, field))
        elif kind == "record":
            changes = _record_changes(values)
        elif field.type == "text":
            changes = _text_changes(pool)
        parts += [_step(name, change) for change in changes]
    best = await search.climb(await search.climb(start, wholes), [*parts, *wholes])
    if parts and full != start:
        best = max(best, await search.climb(full, parts), key=search.known)
    return _name(task, given, best), best


def shape(task: Task, field: Field, values: Sequence[Any]) -> str:
    """Return what the answers of an output are: choice, number, set, list, record or other."""
    if field.type in ("choice", "number"):
        return field.type
    if separator_of(task, field):
        return "set"
    kinds = {"list": list, "record": Mapping}
    return next((kind for kind, of in kinds.items() if all(isinstance(value, of) for value in values)), "other")


def separator_of(task: Task, field: Field) -> str:
    """Return the label separator of a text that is scored as a set. "" for other fields."""
    named = [spec for spec in task.metrics if spec.name == "set_f1" and spec.field in ("", field.name)]
    if field.type != "text" or not named:
        return ""
    return SetOptions.model_validate(dict(named[0].options)).separator


def joined(items: Sequence[Any], separator: str) -> str:
    return f"{separator} ".join(map(str, items))


class _Search:
    def __init__(self, task: Task, score: Scorer, rows: Sequence[Example]) -> None:
        texts = any(field.type == "text" and not separator_of(task, field) for field in task.signature.outputs)
        effort = OF_OWN_METRICS if is_own(task) else OF_TEXTS if texts else EFFORT
        most, self.most_values, self._left = effort
        self._score = score
        self._rows = [(row, 1) for row in _spread(rows, most)] if is_own(task) else _grouped(rows, most)
        self._known: dict[str, float] = {}

    def known(self, fields: Fields) -> float:
        return self._known[_key(fields)]

    async def climb(self, fields: Fields, steps: Sequence[Step]) -> Fields:
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
        if _key(fields) in self._known:
            return self.known(fields)
        prediction = predicted(fields)
        scored = [(await self._score(row, prediction), weight) for row, weight in self._rows]
        self._left -= len(self._rows)
        await asyncio.sleep(0)  # lets the display and a Ctrl-C have their turn
        weights = sum(weight for value, weight in scored if value is not None)
        total = math.fsum(value * weight for value, weight in scored if value is not None)
        self._known[_key(fields)] = total / weights if weights else 0.0
        return self._known[_key(fields)]


def _grouped(rows: Sequence[Example], most: int) -> list[tuple[Example, int]]:
    """Merge rows with equal labels, which get equal scores."""
    first: dict[str, Example] = {}
    for row in rows:
        first.setdefault(_key(row.labels), row)
    counted = Counter(_key(row.labels) for row in (rows if len(first) <= most else _spread(rows, most)))
    return [(first[label], count) for label, count in counted.items()]


def _spread(rows: Sequence[Example], most: int) -> list[Example]:
    return [rows[at * len(rows) // most] for at in range(most)] if len(rows) > most else list(rows)


def _key(value: Any) -> str:
    return key(value, str)


# -- values and steps -------------------------------------------------------------------------------------------------


def _pool(field: Field, values: Sequence[Any]) -> list[Any]:
    if field.type == "choice":
        counted = Counter(map(str, values))
        return sorted(counted, key=lambda value: (-counted[value], value))
    if field.type == "number":
        return [*_middles(values).values(), *_most_frequent(values)]
    return _most_frequent(values)


def _middles(numbers: Sequence[float]) -> dict[str, float]:
    middles = {"mean": math.fsum(numbers) / len(numbers), "median": median(numbers)}
    whole = all(float(number).is_integer() for number in numbers)
    return {name: round(value) if whole else float(value) for name, value in middles.items()}


def _most_frequent(values: Iterable[Any]) -> list[Any]:
    counted, first = Counter[str](), dict[str, Any]()
    for value in values:
        counted[_key(value)] += 1
        first.setdefault(_key(value), value)
    return [first[name] for name, _ in counted.most_common()]


def _step(name: str, change: Change) -> Step:
    return lambda fields: ({**fields, name: value} for value in change(fields[name]))


def _any_of(pool: Sequence[Any]) -> Change:
    return lambda value: pool


def _item_changes(values: Sequence[Any], separator: str) -> tuple[list[Change], Any]:
    def items_of(value: Any) -> list[Any]:
        return labels_in(value, separator) if separator else list(value)

    def whole(items: Sequence[Any]) -> Any:
        return joined(items, separator) if separator else list(items)

    def toggled(item: Any) -> Change:
        return lambda value: [whole(_toggled(items_of(value), item))]

    vocabulary = _most_frequent(item for value in values for item in items_of(value))[:MOST_PARTS]
    return [toggled(item) for item in vocabulary], whole(vocabulary)


def _toggled(items: list[Any], item: Any) -> list[Any]:
    left = [each for each in items if _key(each) != _key(item)]
    return left if len(left) < len(items) else [*items, item]


def _record_changes(records: Sequence[Mapping[str, Any]]) -> list[Change]:

    def valued(part: str, values: Sequence[Any]) -> Change:
        def change(record: Mapping[str, Any]) -> Iterator[Any]:
            rest = {other: value for other, value in record.items() if other != part}
            yield from (rest if value is _ABSENT else {**rest, part: value} for value in values)

        return change

    def toggled(part: str, item: Any) -> Change:
        return lambda record: [{**record, part: _toggled(record.get(part, []), item)}]

    changes: list[Change] = []
    for part in _most_frequent(part for record in records for part in record)[:MOST_PARTS]:
        present = [record[part] for record in records if part in record]
        pool = _most_frequent(present)[:PART_VALUES]
        changes.append(valued(part, [*pool, *[_ABSENT] * (len(present) < len(records))]))
        if all(isinstance(value, list) for value in present):
            items = _most_frequent(item for value in present for item in value)[:PART_VALUES]
            changes += [toggled(part, item) for item in items]
    return changes


def _text_changes(texts: Sequence[str]) -> list[Change]:
    def merged(text: str) -> Iterator[str]:
        for other in texts[:MERGED]:
            words, others, found = text.split(), other.split(), list[str]()
            for what, start, end, from_, to in SequenceMatcher(None, words, others, autojunk=False).get_opcodes():
                found += words[start:end]
                found += others[from_:to] if what != "equal" else []
            yield " ".join(found)

    def dropped(at: int) -> Change:
        def change(text: str) -> Iterator[str]:
            words = text.split()
            if at < len(words) > 1:
                yield " ".join([*words[:at], *words[at + 1 :]])

        return change

    return [merged, *(dropped(at) for at in range(MOST_PARTS))]


def _name(task: Task, given: Mapping[str, Sequence[Any]], best: Fields) -> str:
    if len(task.signature.outputs) > 1:
        return "constant record"
    (field,) = task.signature.outputs
    (values,), (value,) = given.values(), best.values()
    kind = shape(task, field, values)
    if kind == "choice":
        return "largest class" if value == _pool(field, values)[0] else "constant class"
    if kind == "number":
        return next((name for name, middle in _middles(values).items() if middle == value), "constant number")
    return "constant calls" if task.tools else f"constant {'answer' if kind == 'other' else kind}"
