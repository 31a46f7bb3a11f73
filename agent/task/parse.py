"""A parsed task.toml against the model: what is right as a `TaskFile`, every wrong key as a `Fault`.

Knows how pydantic names its errors and says them in this project's words; knows no files and no rows.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from agent.errors import InputError
from agent.metrics.catalog import METRICS
from agent.task.checks import Fault
from agent.task.task_file import FieldTable, MetricTable, Table, TaskFile
from agent.task.words import listed, near, quoted
from agent.types import FieldType, FormatName, TechniqueName

if TYPE_CHECKING:
    from agent.metrics.base import Options

_SECTIONS: dict[str, type[Table]] = {"fields": FieldTable, "metrics": MetricTable}
_SECTIONS |= {
    name: info.annotation
    for name, info in TaskFile.model_fields.items()
    if isinstance(info.annotation, type) and issubclass(info.annotation, Table)
}
_REQUIRED = {"name": "x", "description": "x", "signature": "x -> y", "instruction": "x"}


@dataclass(frozen=True, slots=True)
class Parsed:
    """task.toml as far as it is right. `options`: those of each metric, whole. `broken`: the paths that were not right,
    which hold their default."""

    file: TaskFile
    options: tuple[Options, ...]
    faults: tuple[Fault, ...]
    broken: frozenset[tuple[str | int, ...]] = frozenset()

    def doubts(self, *path: str | int) -> bool:
        """Whether the file was wrong at `path`, below it, or in a part around it."""
        return any(bad[: len(path)] == path or path[: len(bad)] == bad for bad in self.broken)


@dataclass(frozen=True, slots=True)
class Wrong:
    """One error as pydantic tells it."""

    loc: tuple[str | int, ...]
    kind: str
    message: str
    value: Any


def parse(raw: dict[str, Any]) -> Parsed:
    """The model of `raw`, with every key that is wrong reported and replaced by its default, so that checks go on."""
    from pydantic import ValidationError

    data = copy.deepcopy(raw)
    faults: dict[tuple[str | int, ...], Fault] = {}
    while True:
        try:
            file = TaskFile.model_validate(data)
            found, options = _options(file)
            if not found:
                return Parsed(file, tuple(options), tuple(faults.values()), frozenset(faults))
        except ValidationError as error:
            found = [Wrong(item["loc"], item["type"], item["msg"], item.get("input")) for item in error.errors()]
        for wrong in found:
            path = _path(wrong.loc)
            faults.setdefault(path, Fault(path, _say(path, wrong, raw)))
            _repair(data, path)


def _options(file: TaskFile) -> tuple[list[Wrong], list[Options]]:
    """The options of each metric, checked by the metric's own model, and what is wrong with them."""
    from pydantic import ValidationError

    found: list[Wrong] = []
    options: list[Options] = []
    for index, metric in enumerate(file.metrics):
        place: tuple[str | int, ...] = ("metrics", index)
        try:
            options.append(METRICS.get(metric.name).options.model_validate(metric.given))
        except InputError as error:
            found.append(Wrong((*place, "name"), "", str(error), metric.name))
        except ValidationError as error:
            found += [Wrong((*place, *w["loc"]), w["type"], w["msg"], w.get("input")) for w in error.errors()]
    return found, options


def _path(loc: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Where an error stands in the file: the key, and the index inside a list; without names of union arms."""
    deep = {"fields": 3, "metrics": 3}.get(str(loc[0]), 2)
    return loc[:deep] + tuple(part for part in loc[deep : deep + 1] if isinstance(part, int))


def _repair(data: dict[str, Any], path: tuple[str | int, ...]) -> None:
    """Take the wrong key out of `data` (required keys and metrics get a stand-in), so each call makes progress."""
    head = str(path[0])
    if head in _REQUIRED:
        data[head] = _REQUIRED[head]
    elif len(path) == 1 or head == "slices" or not isinstance(data.get(head), dict | list):
        data.pop(head, None)
    elif head == "metrics":
        index = int(path[1])
        if len(path) == 2 or path[2] == "name":
            data[head][index] = {"name": "python"}
        else:
            data[head][index].pop(path[2], None)
    elif head == "fields" and len(path) > 2:
        data[head][path[1]].pop(path[2], None)
    else:
        data[head].pop(path[1], None)


def _known(path: tuple[str | int, ...], raw: dict[str, Any]) -> list[str]:
    """The keys that may stand beside the one at `path`."""
    model = TaskFile if len(path) == 1 else _SECTIONS[str(path[0])]
    keys = [info.alias or name for name, info in model.model_fields.items()]
    if model is MetricTable:
        metric = METRICS.get(raw["metrics"][int(path[1])]["name"])
        return [*keys, *metric.options.model_fields]
    return keys


def _say(path: tuple[str | int, ...], wrong: Wrong, raw: dict[str, Any]) -> str:
    """One error of pydantic in this project's words."""
    kind, message, value = wrong.kind, wrong.message, wrong.value
    key = ".".join(str(part) for part in path if isinstance(part, str))
    if kind == "extra_forbidden":
        if path[0] == "metrics" and any(path[-1] in rule.options.model_fields for rule in METRICS.usable().values()):
            rule = METRICS.get(raw["metrics"][int(path[1])]["name"])
            options = listed(rule.options.model_fields) or "none"
            return f"the metric {rule.name} has no option {quoted(path[-1])}; its options: {options}"
        return f"unknown key {quoted(path[-1])}{near(str(path[-1]), _known(path, raw))}"
    if kind == "missing":
        return f"the key {quoted(path[-1])} is missing; write it"
    if kind == "literal_error":
        words = _words(path)
        if isinstance(value, str):
            return f"{key} = {quoted(value)} is unknown{near(value, words)}"
        return f"{key} = {quoted(value)} is not a text; write one of {listed(words)}"
    if kind == "string_pattern_mismatch" and isinstance(value, str):
        what = "is empty; write it" if not value.strip() else "has a form that is not allowed; write "
        return f"{key} = {quoted(value)} {what}" + ("" if not value.strip() else _form(path))
    if kind in ("model_type", "dict_type"):
        return f"{key} = {quoted(value)} is not a table; write [{key}] and its keys below"
    said = message.removeprefix("Value error, ").removeprefix("Input ")
    return f"{key} = {quoted(value)}: {said[:1].lower()}{said[1:]}"


def _form(path: tuple[str | int, ...]) -> str:
    forms: dict[tuple[str | int, ...], str] = {
        ("name",): "letters, digits, dot, dash and underscore, at most 80",
        ("program",): "module:factory, such as program:build for build() in program.py",
    }
    return forms.get(path, "it on one line")


def _words(path: tuple[str | int, ...]) -> tuple[str, ...]:
    if path[0] == "metrics" and path[-1] == "name":
        return METRICS.names()
    types = {"type": FieldType, "techniques": TechniqueName, "formats": FormatName}
    return tuple(word for part in path for word in get_args(types.get(str(part))) if part != path[0])
