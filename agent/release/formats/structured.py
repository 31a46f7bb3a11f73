"""The format for JSON answers: a module with a class of Pydantic."""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agent.errors import ReleaseError
from agent.prompt.parts.shape import alternatives, answer_schema, fields_of
from agent.release.formats.export_format import Material, Opened, export_format
from agent.release.formats.module_proof import load_module, opened_module
from agent.release.formats.python_module import module_source
from agent.release.prompt_file import PromptRelease
from agent.task.openapi import OpenApi, as_object

MODEL_FILE = "answer_model.py"
_TAKEN = re.compile(r"_.*|model_.*|field_\d+|Answer\d*|pydantic|Any|Literal|str|int|float|bool|dict|list")
"""Names that Pydantic refuses, and those that the class itself uses."""
_HEAD = """

# Pydantic: `client.chat.completions.parse(model=..., messages=render(...), response_format=Answer)`.
import pydantic
"""
_KINDS = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
_OBJECT = "dict[str, Any]"


def _load_model(folder: Path, release: PromptRelease) -> Opened:
    module = load_module(folder / MODEL_FILE, "exported_answer_model")
    found, wanted = module.Answer.model_json_schema(by_alias=True), whole_schema(release)
    if _named(found, found) != _named(wanted, wanted):
        raise ReleaseError("pydantic: the class does not have the fields of the answer")
    return opened_module("pydantic", module, release)


@export_format(
    "pydantic",
    about="answer_model.py: `Answer`, a class of Pydantic for the reply, with `render` and `parse` as in python",
    load=_load_model,
    library="pydantic",
    carries=("schema", "picks", "conversation", "more"),
)
def model_files(material: Material) -> dict[str, str]:
    classes = _classes("Answer", whole_schema(material.release))
    return {MODEL_FILE: module_source(material.release, "\n\n".join([_HEAD, *classes]))}


def whole_schema(release: PromptRelease) -> dict[str, Any]:
    """Return the JSON schema of a reply, with references in place. Raises ReleaseError if it is no JSON object."""
    text = next((part.reply_schema for part in release.parts if part.reply_schema), "")
    found = json.loads(text) if text else answer_schema(release.outputs)
    if found is None:
        raise ReleaseError(f"{release.name!r}: its answer is no JSON object of a schema; leave --format pydantic out")
    try:
        resolved: dict[str, Any] = OpenApi(found).resolved(found)
    except ValueError as error:
        raise ReleaseError(f"{release.name!r}: its schema cannot be written as classes: {error}") from None
    return resolved


def _named(schema: Mapping[str, Any], root: Mapping[str, Any]) -> list[Any]:
    # names and descriptions of fields, then those inside of each; `root` has the classes that are referred to
    found: list[Any] = []
    for name, about in schema["properties"].items():
        refers = [one["$ref"] for one in alternatives(about) if "$ref" in one]
        own = root["$defs"][refers[0].rpartition("/")[2]] if refers else about
        found.append((name, as_object(about).get("description"), _named(own, root) if fields_of(own) else []))
    return found


def _classes(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    from pydantic import BaseModel

    fields = list[str]()
    for at, (field, about) in enumerate(schema["properties"].items(), 1):
        inner, described = f"{name}{at}" if fields_of(about) else _OBJECT, as_object(about).get("description")
        if fields_of(about):
            yield from _classes(inner, about)
        kind, more = _annotation({"type": "object", **about} if fields_of(about) else about, inner), list[str]()
        if field not in schema.get("required", ()):
            kind, more = f"{kind} | None", ["default=None"]
        clear = field.isidentifier() and not keyword.iskeyword(field) and not _TAKEN.fullmatch(field)
        is_own = clear and not hasattr(BaseModel, field)
        more += [] if is_own else [f"alias={field!a}"]
        more += [f"description={described!a}"] if described is not None else []
        fields.append(f"    {field if is_own else f'field_{at}'}: {kind} = pydantic.Field({', '.join(more)})\n")
    extra = "allow" if schema.get("additionalProperties", True) else "forbid"
    config = f'    model_config = pydantic.ConfigDict(extra="{extra}", populate_by_name=True)\n\n'
    yield f"class {name}(pydantic.BaseModel):\n{config}{''.join(fields)}"


def _annotation(schema: Any, fields: str = _OBJECT) -> str:
    # `fields` is the type of an object
    values = [one["const"] for one in alternatives(schema) if "const" in one]
    is_plain = all(value is None or isinstance(value, str | int) for value in values)
    words = [f"Literal[{', '.join(map(ascii, values))}]" if is_plain else "Any"] if values else []
    for one in alternatives(schema):
        if one["type"] == "array":
            words.append(f"list[{_annotation(one.get('items'))}]")
        elif "const" not in one:
            words.append({**_KINDS, "object": fields}.get(one["type"], "Any"))
    return " | ".join(dict.fromkeys(words))
