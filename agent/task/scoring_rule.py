"""The type of the answers of a data file and their metric, inferred or as the user asks, with the reason."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

from agent.errors import InputError
from agent.metrics.comparison import labels_in, quantity_of, units_in
from agent.metrics.metric_registry import METRICS
from agent.safe_text import counted, listed, near, quoted
from agent.shipped import fold
from agent.task.answers import can, known_scale, label_reader, lost_as_number, parse_number, target_type, text_of
from agent.task.checks import DEFAULTS
from agent.types import Field, FieldType, MetricSpec

if TYPE_CHECKING:
    from agent.options.shared import Asked

SEPARATORS = (";", "|", ",")
MOST_UNITS = 30
MOST_STEPS = 10  # between both ends of a scale
SPAN_WORDS = 5  # a longer median means sentences
_MOST = 0.6  # answers are copied from the text from this share of rows
_ABOVE_CHANCE = 0.3  # how far that share must exceed the one with shuffled answers
_NUMBER = re.compile(r"(?<![\w.,])[+-]?\d+(?:[.,]\d+)*")
_UNSPACED = re.compile("[\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")


@dataclass(frozen=True, slots=True)
class ScoringRule:
    """How answers are scored, and why; `labels` are the parts of multi-label answers."""

    type: FieldType
    metric: MetricSpec
    because: str = ""
    labels: tuple[str, ...] = ()

    @property
    def is_scale(self) -> bool:
        return self.metric.name == "ordinal"

    @property
    def order(self) -> list[str]:
        return list(self.metric.options.get("order", ()))


def usual_rule(values: Sequence[Any], field: str, metric: MetricSpec | None = None) -> ScoringRule:
    """Return the default rule, or that of `metric`, which may read answers as text."""
    kind = target_type(values)
    kind = "text" if metric and kind not in METRICS.get(metric.name).types else kind
    return ScoringRule(kind, metric or MetricSpec(DEFAULTS[kind][-1][0], field))


def scoring_rule(values: Sequence[Any], field: str, asked: Asked, texts: Sequence[str] = ()) -> ScoringRule:
    """Return the rule that the user asks for, else an inferred one. Raises InputError."""
    if asked.tools:
        calls = f"the answers are calls of {counted(len(asked.tools), 'tool')}"
        proposed = found = ScoringRule("json", MetricSpec("tool_calls", field), calls)
    else:
        proposed = found = _proposed(values, field, texts)
    if asked.tools and asked.type not in (None, "json"):
        raise InputError(f"--type {asked.type}: the answers are calls of tools, which are json; leave --type out")
    if asked.type and not asked.tools:
        _require_type(values, asked.type)
        found = found if found.type == asked.type else _of_type(values, field, asked.type)
    if not asked.metric:
        return found
    spec = metric_asked(asked.metric, [field])
    if spec.name == proposed.metric.name and not spec.options:
        spec = replace(spec, options=proposed.metric.options)
    _require_no_folder(spec, asked)
    labels = proposed.labels if spec == proposed.metric else ()
    kind = _fitting(values, spec, found.type, asked)
    rule = METRICS.get(spec.name)
    choices = tuple(sorted({*map(label_reader("choice", values), values)})) if kind == "choice" else ()
    for _, what in rule.faults(rule.options.model_validate(spec.options), Field(field, kind, choices=choices)):
        raise InputError(f"--metric {asked.metric}: {what}")
    return ScoringRule(kind, spec, "--metric names it", labels)


def _require_no_folder(spec: MetricSpec, asked: Asked) -> None:
    if spec.name == "python":
        raise InputError("--metric python: needs metric.py in a task folder; `optimize init` makes one")
    if spec.name == "judge" and spec.options.get("mode", "rubric") == "rubric":
        raise InputError("--metric judge: needs rubric.md in a task folder; or take --metric judge,mode=reference")
    if spec.options.get("mode") == "faithfulness" and not asked.knowledge:
        raise InputError("--metric judge,mode=faithfulness: needs documents; name their folder with --knowledge")


def _fitting(values: Sequence[Any], spec: MetricSpec, kind: FieldType, asked: Asked) -> FieldType:
    types = METRICS.get(spec.name).types
    if kind in types:
        return kind
    if not asked.type and not asked.tools:
        for other in ("number", "json", "text"):
            if other in types and not _unlike(values, other):
                return other
    what = f"--type says {kind}" if asked.type else f"the answers, such as {quoted(text_of(values[0]), 40)}, are {kind}"
    raise InputError(f"--metric {spec.name}: scores {listed(types)}, and {what}; `optimize metrics list` has others")


def _require_type(values: Sequence[Any], kind: FieldType) -> None:
    if kind == "choice":
        if 2 <= len(different := {fold(text_of(value)) for value in values}) <= 1000:
            return
        raise InputError(f"--type choice: the target has {len(different)} different values; take text")
    if odd := _unlike(values, kind):
        raise InputError(f"--type {kind}: {odd[0]} of {len(values)} answers are not, such as {odd[1]}; correct them")


def _unlike(values: Sequence[Any], kind: FieldType | str) -> tuple[int, str] | None:
    if kind in ("text", "choice"):
        return None
    read = label_reader(kind, values)  # type: ignore[arg-type]
    odd = [value for value in values if not can(read, value)]
    return (len(odd), quoted(text_of(odd[0]), 40)) if odd else None


def _proposed(values: Sequence[Any], field: str, sources: Sequence[str]) -> ScoringRule:
    texts = [text_of(value).strip() for value in values]
    kind = target_type(values)
    found = _several(texts, field) if kind in ("choice", "text") else None
    if kind in ("choice", "number"):
        found = found or _copied(texts, field, sources) or _scale(texts, field)
    if kind == "choice":
        found = found or _scale_of_words(values, field)
    return found or _of_type(values, field, kind)


def _copied(texts: Sequence[str], field: str, sources: Sequence[str]) -> ScoringRule | None:
    rows = rows_with_number(texts, sources)
    if not rows:
        return None
    where = f"stand in the text in {rows} of {counted(len(texts), 'row')}; where they are labels: --type choice"
    if not any(lost_as_number(text) for text in texts):
        return ScoringRule("number", MetricSpec("numeric", field), f"the answers are numbers that {where}")
    if units := _units(texts):
        why = f"the answers are numbers with a unit ({listed(units, 8)}) that {where}"
        return ScoringRule("text", MetricSpec("quantity", field), why)
    return None


def _of_type(values: Sequence[Any], field: str, kind: FieldType) -> ScoringRule:
    spec = MetricSpec(DEFAULTS[kind][-1][0], field)
    if kind == "choice":
        count = len({fold(text_of(value)) for value in values})
        return ScoringRule(kind, spec, f"the answers are {count} labels")
    if kind == "number":
        why = "the answers are numbers; --metric numeric,tolerance=N lets near ones count"
        return ScoringRule(kind, spec, why)
    if kind == "json":
        return ScoringRule(kind, spec, "the answers are JSON objects")
    name, why = _of_text([text_of(value).strip() for value in values])
    return ScoringRule(kind, MetricSpec(name, field), why)


def _of_text(texts: Sequence[str]) -> tuple[str, str]:
    if units := _units(texts):
        return "quantity", f"the answers are numbers with a unit ({listed(units, 8)}), which is compared, not converted"
    different = len({fold(text) for text in texts})
    if different <= len(texts) / 2:
        return "exact_match", f"the answers repeat: {different} different ones in {len(texts)} rows"
    words = median(map(_words, texts))
    if sum(" " not in text and _words(text) == 1 for text in texts) >= 0.9 * len(texts):
        return "exact_match", "the answers are one word or code each; --metric token_f1 overlooks case and punctuation"
    if words <= SPAN_WORDS and not any(map(_UNSPACED.search, texts)):
        return "token_f1", f"the answers are a few words (median {words:g}), and words in common count"
    about = f"the answers are sentences (median {words:g} words)"
    return "rougeL", f"{about}; a judge reads what is meant: --metric judge,mode=reference"


def _units(texts: Sequence[str]) -> list[str]:
    units = units_in(texts)
    is_rule = sum(units.values()) == len(texts) and len(units) <= max(1, min(MOST_UNITS, len(texts) / 5))
    return list(units) if is_rule else []


def _words(text: str) -> int:
    return max(len(text.split()), len(_UNSPACED.findall(text)) // 2)


def _scale(texts: Sequence[str], field: str) -> ScoringRule | None:
    if any(lost_as_number(text) for text in texts):
        return None
    read = {parse_number(text) for text in texts}
    numbers = {int(number) if number == int(number) else number for number in read}
    low, high = min(numbers), max(numbers)
    if len(numbers) < 3 or high - low > MOST_STEPS or len(numbers) > 2 * MOST_STEPS + 1:
        return None
    if any(number * 2 != int(number * 2) for number in numbers):
        return None
    spec = MetricSpec("ordinal", field, options={"low": low, "high": high})
    why = f"the answers are a scale from {low:g} to {high:g}, and near ones count; where they are codes: --type choice"
    return ScoringRule("number", spec, why)


def _scale_of_words(values: Sequence[Any], field: str) -> ScoringRule | None:
    order = known_scale({*map(label_reader("choice", values), values)})
    if not order:
        return None
    ends = f"{quoted(order[0], 40)} to {quoted(order[-1], 40)}"
    why = f"the answers are a scale from {ends}, and near ones count; where only the label itself is right: "
    spec = MetricSpec("ordinal", field, options={"order": order})
    return ScoringRule("choice", spec, f"{why}--metric choice")


def _several(texts: Sequence[str], field: str) -> ScoringRule | None:
    for separator in SEPARATORS:
        cells = [labels_in(text, separator) for text in texts]
        multiple = {frozenset(map(fold, cell)) for cell in cells if len(cell) > 1}
        if sum(len(cell) > 1 for cell in cells) < 0.2 * len(cells) or len(multiple) < 2:
            continue
        spelled = Counter(part for cell in cells for part in cell)
        parts = {fold(part) for part in spelled}
        sets = {frozenset(map(fold, cell)) for cell in cells}
        is_list = all(text.startswith("[") and text.endswith("]") for text in texts)
        is_short = all(len(part) <= 40 and _words(part) <= 4 for part in spelled)
        if not is_short or len(parts) > min(200, spelled.total() / 3):
            continue
        joined = {part for cell in multiple for part in cell}
        apart = sum(sum(part in cell for cell in sets) > 1 for part in joined)
        if apart < 0.7 * len(joined) and not is_list:
            continue
        labels: dict[str, str] = {}
        for part, _ in spelled.most_common():
            labels.setdefault(fold(part), part)
        spec = MetricSpec("set_f1", field, options={"separator": separator})
        why = f"cells hold several of {len(labels)} labels, apart by {quoted(separator)}"
        return ScoringRule("text", spec, why, tuple(sorted(labels.values())))
    return None


# -- numbers that the texts hold, such as the quantities of orders -----------------------------------------------------


def rows_with_number(answers: Sequence[str], texts: Sequence[str]) -> int:
    """Count the rows whose text holds their number; 0 unless clearly above chance.

    >>> rows_with_number(["2", "12", "7 kg"], ["2 boxes", "Send 12, please", "7 of the blue ones"])
    3
    """
    numbers = [_number(answer) for answer in answers]
    if len(answers) != len(texts) or None in numbers or len(set(numbers)) < 3:
        return 0
    found = [_numbers(text) for text in texts]
    own = sum(number in seen for number, seen in zip(numbers, found, strict=True))
    shifts = range(1, min(len(numbers), 20))
    by_chance = sum(
        number in seen
        for shift in shifts
        for number, seen in zip([*numbers[shift:], *numbers[:shift]], found, strict=True)
    ) / len(shifts)
    return own if own >= _MOST * len(numbers) and own - by_chance >= _ABOVE_CHANCE * len(numbers) else 0


def _number(answer: str) -> float | None:
    if quantity := quantity_of(answer):
        return quantity[0]
    with suppress(ValueError):
        return float(parse_number(answer))
    return None


def _numbers(text: str) -> set[float | None]:
    return {_number(each.replace(",", point)) for each in _NUMBER.findall(text) for point in (".", "")} - {None}


def metric_asked(text: str, outputs: Sequence[str]) -> MetricSpec:
    """Parse `NAME[:FIELD][,k=v]` as a metric with typed options. Raises InputError."""
    head, *pairs = re.split(r",(?=[^=,]*=)", text)  # other commas are within a value
    head, *odd = head.split(",")
    name, _, field = head.strip().partition(":")
    try:
        rule = METRICS.get(name)
    except InputError as error:
        raise InputError(f"--metric {text}: {error}") from None
    if field and field not in outputs:
        raise InputError(f"--metric {text}: {quoted(field)} is not an output{near(field, outputs)}")
    if not field and len(outputs) > 1:
        raise InputError(f"--metric {text}: which output? write {name}:FIELD with one of {listed(outputs)}")
    if odd:
        raise InputError(f"--metric {text}: {quoted(odd[0])} is no option; write NAME,option=value")
    options: dict[str, Any] = {}
    for pair in pairs:
        key, value = pair.lstrip().split("=", 1)
        key = key.rstrip()
        if key not in rule.options.model_fields:
            known = listed(rule.options.model_fields) or "none"
            raise InputError(f"--metric {text}: the metric {name} has no option {quoted(key)}; its options: {known}")
        options[key] = _value(rule.options, key, value, text)
    checked = rule.options.model_validate(options)
    if rule.needs and not any(need in options for need in rule.needs):
        raise InputError(f"--metric {text}: {name} needs {' or '.join(rule.needs)}; write {name},OPTION=VALUE")
    if fault := next(iter(rule.faults(checked, None)), None):
        raise InputError(f"--metric {text}: {fault[1]}")
    return MetricSpec(name, field or outputs[0], options=options)


def _value(options: Any, key: str, text: str, whole: str) -> Any:
    from pydantic import ValidationError

    said = ""
    for read in (json.loads, str, lambda text: [part.strip() for part in text.split(",")]):
        try:
            value = read(text)
            options.model_validate({key: value})
        except ValidationError as error:
            said = said or error.errors()[0]["msg"].removeprefix("Value error, ").removeprefix("Input ")
        except ValueError:
            continue
        else:
            return value
    raise InputError(f"--metric {whole}: {key} = {quoted(text)}: {said[:1].lower()}{said[1:]}")
