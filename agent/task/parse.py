"""A parsed task.toml against the model: what is right as a `TaskFile`, every wrong key as a `Fault`.

Knows how pydantic names its errors and says them in this project's words; knows no files and no rows.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, get_args

from agent.task.checks import METRICS, Fault
from agent.task.schema import FieldTable, MetricName, MetricTable, Table, TaskFile
from agent.task.words import listed, near, quoted
from agent.types import FieldType, FormatName, TechniqueName

_SECTIONS: dict[str, type[Table]] = {"fields": FieldTable, "metrics": MetricTable}
_SECTIONS |= {
    name: info.annotation
    for name, info in TaskFile.model_fields.items()
    if isinstance(info.annotation, type) and issubclass(info.annotation, Table)
}
_REQUIRED = {"name": "x", "description": "x", "signature": "x -> y", "instruction": "x"}


@dataclass(frozen=True, slots=True)
class Parsed:
    """task.toml as far as it is right. `broken`: the paths that were not, which hold their default in `file`."""

    file: TaskFile
    faults: tuple[Fault, ...]
    broken: frozenset[tuple[str | int, ...]] = frozenset()

    def doubts(self, *path: str | int) -> bool:
        """Whether the file was wrong at `path`, below it, or in a part around it."""
        return any(bad[: len(path)] == path or path[: len(bad)] == bad for bad in self.broken)


def parse(raw: dict[str, Any]) -> Parsed:
    """The model of `raw`, with every key that is wrong reported and replaced by its default, so that checks go on."""
    from pydantic import ValidationError

    data = copy.deepcopy(raw)
    faults: dict[tuple[str | int, ...], Fault] = {}
    while True:
        try:
            return Parsed(TaskFile.model_validate(data), tuple(faults.values()), frozenset(faults))
        except ValidationError as error:
            found = error.errors(include_url=False)
        for item in found:
            path = _path(item["loc"])
            faults.setdefault(path, Fault(path, _say(path, item["type"], item["msg"], item.get("input"), raw)))
            _repair(data, path)


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
        metric = raw["metrics"][int(path[1])].get("name")
        if isinstance(metric, str) and metric in METRICS:
            return ["name", "field", "weight", *METRICS[metric].options]
    return keys


def _say(path: tuple[str | int, ...], kind: str, message: str, value: Any, raw: dict[str, Any]) -> str:
    """One error of pydantic in this project's words."""
    key = ".".join(str(part) for part in path if isinstance(part, str))
    if kind == "extra_forbidden":
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
    types = {"type": FieldType, "name": MetricName, "techniques": TechniqueName, "formats": FormatName}
    return tuple(word for part in path for word in get_args(types.get(str(part))) if part != path[0])
