"""Validation of task.toml against its schema, each wrong key as a `Fault`; and the schema as JSON for editors.

Rules between keys are in `checks`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from agent.errors import InputError
from agent.metrics.metric_registry import METRICS
from agent.options.run import TASK_DEFAULTS, TASK_RUN, RunOptions
from agent.safe_data import KeyPath, parse_toml
from agent.safe_file import decoded, new_file, read_bytes
from agent.safe_text import listed, near, quoted, shown
from agent.task.checks import Fault
from agent.task.schema import FieldTable, MetricTable, ProgramTable, TaskFile, TomlTable

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from agent.metrics.metric_rule import Options

_SECTIONS = {
    name: info.annotation
    for name, info in TaskFile.model_fields.items()
    if isinstance(info.annotation, type) and issubclass(info.annotation, TomlTable)
}
_FORMS = {
    "name": "letters, digits, dot, dash and underscore, at most 80",
    "program": "module:factory, such as program:build for build() in program.py; or agent.py:run, or a table with it",
    "texts": "a name of at most 80 letters and digits, and its text",
    "tools": "the name of a JSON file, FILE.py:FUNCTION,..., or each tool as a table [[tools]]",
    "schema": "the name of a file, or the JSON schema as a table",
}
_REQUIRED = {"name": "x", "description": "x", "signature": "x -> y"}
_STAND_IN = MetricTable.model_validate({"name": "python"})


@dataclass(frozen=True, slots=True)
class Parsed:
    """The valid part of task.toml; `broken` paths hold their default."""

    file: TaskFile
    options: tuple[Options, ...]
    faults: tuple[Fault, ...]
    broken: frozenset[KeyPath] = frozenset()

    @property
    def defaults(self) -> dict[str, Any]:
        """The options that a run takes from other tables than `[run]`."""
        return {name: getattr(getattr(self.file, table), name) for name, table in TASK_DEFAULTS.items()}

    def doubts(self, *path: str | int) -> bool:
        """Whether there is a fault at `path`, below it or around it."""
        return any(bad[: len(path)] == path or path[: len(bad)] == bad for bad in self.broken)


def parse_folder(folder: Path) -> Parsed:
    """Read the task.toml of a folder. Raises ProblemsError if it is not TOML."""
    path = folder / "task.toml"
    return parse(parse_toml(decoded(read_bytes(path, folder), shown(path)), shown(path)))


def parse(raw: dict[str, Any]) -> Parsed:
    """Validate a task.toml; wrong keys become faults and get their default."""
    data, faults, options = dict(raw), dict[KeyPath, Fault](), list[Any]()
    for name, model in _SECTIONS.items():
        if isinstance(raw.get(name), dict):
            data[name] = _read(model, raw[name], (name,), faults)
    if isinstance(raw.get("program"), dict):
        data["program"] = _read(ProgramTable, raw["program"], ("program",), faults)
    if isinstance(raw.get("fields"), dict):
        found = {name: _read(FieldTable, table, ("fields", name), faults) for name, table in raw["fields"].items()}
        data["fields"] = {name: table for name, table in found.items() if table is not None}
    if isinstance(raw.get("metrics"), list):
        data["metrics"] = []
        for at, given in enumerate(raw["metrics"]):
            metric, place = _read(MetricTable, given, ("metrics", at), faults) or _STAND_IN, ("metrics", at)
            try:
                rule = METRICS.get(metric.name)
            except InputError as error:  # a package that cannot be loaded
                what = f"metrics.name = {quoted(metric.name)}: {str(error)[:1].lower()}{str(error)[1:]}"
                faults[*place, "name"] = Fault((*place, "name"), what)
                metric, rule = _STAND_IN, METRICS.get(_STAND_IN.name)
            options.append(_read(rule.options, metric.given, place, faults, metric.name))
            data["metrics"].append(metric)
    file = _read(TaskFile, data, (), faults)
    wrong = {name: f"unknown key {quoted(name)}{near(name, TASK_RUN)}" for name in file.run if name not in TASK_RUN}
    known = {name: value for name, value in file.run.items() if name in TASK_RUN}
    wrong |= {name: f"{name} = {what}" for name, what in RunOptions.problems(known).items()}
    faults |= {("run", name): Fault(("run", name), what) for name, what in wrong.items()}
    return Parsed(file, tuple(options), tuple(faults.values()), frozenset(faults))


def _read(model: type[Any], raw: Any, place: KeyPath, faults: dict[KeyPath, Fault], metric: str = "") -> Any:
    while True:
        try:
            return model.model_validate(raw)
        except ValidationError as error:
            for wrong in error.errors():
                loc = wrong["loc"]
                path = (*place, *loc[:1], *(part for part in loc[1:2] if isinstance(part, int)))
                faults.setdefault(path, Fault(path, _say(path, wrong, model, metric)))
                if not loc:
                    return None
                stand_in = {name: text for name, text in _REQUIRED.items() if model is TaskFile and name == loc[0]}
                raw = {name: value for name, value in raw.items() if name != loc[0]} | stand_in
            if model is MetricTable and (*place, "name") in faults:
                return None


def _say(path: KeyPath, wrong: ErrorDetails, model: type[Any], metric: str) -> str:
    kind, message, value = wrong["type"], wrong["msg"], wrong.get("input")
    key, last = ".".join(str(part) for part in path if isinstance(part, str)), str(path[-1]) if path else ""
    if path == ("texts",) and len(wrong["loc"]) == 2:
        key += f".{wrong['loc'][1]}"
    if kind == "extra_forbidden":
        known = [info.alias or name for name, info in model.model_fields.items()]
        if metric and any(last in rule.options.model_fields for rule in METRICS.usable().values()):
            return f"the metric {metric} has no option {quoted(last)}; its options: {listed(known) or 'none'}"
        known = [*MetricTable.model_fields, *known] if metric else known
        return f"unknown key {quoted(last)}{near(last, known)}"
    if kind == "missing":
        return f"the key {quoted(last)} is missing; write it"
    if kind == "literal_error":
        words = re.findall("'([^']+)'", wrong["ctx"]["expected"])
        if isinstance(value, str):
            return f"{key} = {quoted(value)} is unknown{near(value, words)}"
        return f"{key} = {quoted(value)} is not a text; write one of {listed(words)}"
    if kind == "string_pattern_mismatch" and isinstance(value, str):
        what = f"has a form that is not allowed; write {_FORMS.get(last, 'it on one line')}"
        return f"{key} = {quoted(value)} {what if value.strip() else 'is empty; write it'}"
    if kind in ("model_type", "dict_type"):
        return f"{key} = {quoted(value)} is not a table; write [{key}] and its keys below"
    said = f"write {_FORMS[last]}" if last in _FORMS else message.removeprefix("Value error, ")
    said = said.removeprefix("Input ")
    return f"{key} = {quoted(value)}: {said[:1].lower()}{said[1:]}"


# -- the published schema ----------------------------------------------------------------------------------------------


def has_schema(folder: Path) -> bool:
    """Write the schema for editors if it is missing; return whether the folder has it."""
    path = folder / "task.schema.json"
    if not (path.is_file() or path.is_symlink()):
        try:
            with new_file(path) as file:
                file.write(f"{json.dumps(json_schema(), indent=2)}\n".encode())
        except OSError:
            return False
    return True


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of task.toml."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **TaskFile.model_json_schema(by_alias=True)}
    _add_metrics(schema)
    schema["properties"]["run"] = {"$ref": "#/$defs/RunTable"}
    schema["$defs"]["RunTable"] = _run_table()
    return {**_tidy(schema), "title": "task.toml"}


def _run_table() -> dict[str, Any]:
    kinds = {bool: "boolean", int: "integer", float: "number"}
    properties: dict[str, Any] = {}
    for name in TASK_RUN:
        each = RunOptions.declared()[name]
        kind: dict[str, Any] = {"enum": list(each.choices)} if each.choices else {}
        if each.reading is None and not each.is_repeatable and not each.choices:
            kind = {"type": kinds.get(each.kind, "string")}
        bounds = {"minimum": each.bound("ge"), "exclusiveMinimum": each.bound("gt"), "maximum": each.bound("le")}
        given = {key: at for key, at in bounds.items() if at is not None}
        properties[name] = {"description": each.about, **kind, **given}
    return {
        "type": "object",
        "additionalProperties": False,
        "description": TaskFile.model_fields["run"].description,
        "properties": properties,
    }


def _add_metrics(schema: dict[str, Any]) -> None:
    table, rules = schema["$defs"]["MetricTable"], METRICS.usable()
    forms: dict[str, dict[str, tuple[list[str], dict[str, Any]]]] = {}
    for name, rule in rules.items():
        home = f"{rule.options.__module__}.{rule.options.__qualname__}"
        made = rule.options.model_json_schema(ref_template=f"#/$defs/{home}.{{model}}")
        schema["$defs"] |= {f"{home}.{key}": part for key, part in made.get("$defs", {}).items()}
        for key, option in made.get("properties", {}).items():
            alike = forms.setdefault(key, {})
            alike.setdefault(json.dumps(option, sort_keys=True), ([], option))[0].append(name)
    for key, alike in forms.items():
        told = []
        for names, option in alike.values():
            text = option.get("description", "an option.")
            told.append(option | {"description": f"{', '.join(names)}: {text[:1].lower()}{text[1:]}"})
        both = {"anyOf": told, "description": " ".join(form["description"] for form in told)}
        table["properties"][key] = told[0] if len(told) == 1 else both
    table["properties"]["name"]["enum"] = list(rules)
    table["additionalProperties"] = False


def _tidy(part: Any) -> Any:
    if isinstance(part, list):
        return [_tidy(item) for item in part]
    if not isinstance(part, dict):
        return part
    is_noise = {"title": isinstance(part.get("title"), str), "default": part.get("default") is None}
    return {key: _tidy(value) for key, value in part.items() if not is_noise.get(key)}
