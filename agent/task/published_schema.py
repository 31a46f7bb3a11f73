"""The published JSON schema of task.toml, which editors read: every key with its type, default and description."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agent.metrics.metric_registry import METRICS
from agent.options.jobs import TASK_RUN, RunOptions
from agent.safe_file import new_file
from agent.task.task_file import TaskFile

SCHEMA_FILE = "task.schema.json"


def has_schema(folder: Path) -> bool:
    """Write the schema for editors where it is missing; return whether `folder` has it now."""
    path = folder / SCHEMA_FILE
    if not (path.is_file() or path.is_symlink()):
        try:
            with new_file(path) as file:
                file.write(f"{json.dumps(json_schema(), indent=2)}\n".encode())
        except OSError:
            return False
    return True


def json_schema() -> dict[str, Any]:
    """Return the published JSON schema of task.toml: every key with its type, default and description."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **TaskFile.model_json_schema(by_alias=True)}
    _add_metrics(schema)
    schema["properties"]["run"] = {"$ref": "#/$defs/RunTable"}
    schema["$defs"]["RunTable"] = _run_table()
    tidy: dict[str, Any] = _tidy(schema)
    return tidy | {"title": "task.toml"}


def _run_table() -> dict[str, Any]:
    kinds = {bool: "boolean", int: "integer", float: "number"}
    properties: dict[str, Any] = {}
    for name in TASK_RUN:
        each = RunOptions.declared()[name]
        kind: dict[str, Any] = {"enum": list(each.choices)} if each.choices else {}
        if each.reading is None and not each.is_repeatable and not each.choices:
            kind = {"type": kinds.get(each.kind, "string")}
        bounds = {"minimum": each.bound("ge"), "exclusiveMinimum": each.bound("gt"), "maximum": each.bound("le")}
        properties[name] = {
            "description": each.about,
            **kind,
            **{key: at for key, at in bounds.items() if at is not None},
        }
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
        told = [option | {"description": _about(names, option)} for names, option in alike.values()]
        both = {"anyOf": told, "description": " ".join(form["description"] for form in told)}
        table["properties"][key] = told[0] if len(told) == 1 else both
    table["properties"]["name"]["enum"] = list(rules)
    table["additionalProperties"] = False


def _about(names: list[str], option: dict[str, Any]) -> str:
    text = option.get("description", "an option.")
    return f"{', '.join(names)}: {text[:1].lower()}{text[1:]}"


def _tidy(part: Any) -> Any:
    if isinstance(part, list):
        return [_tidy(item) for item in part]
    if not isinstance(part, dict):
        return part
    noise = {
        key
        for key, value in part.items()
        if (key == "title" and isinstance(value, str)) or (key == "default" and value is None)
    }
    return {key: _tidy(value) for key, value in part.items() if key not in noise}
