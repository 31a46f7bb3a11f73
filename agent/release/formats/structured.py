"""Formats for JSON answers: the body of a request to OpenAI, and a module with a model class of Pydantic."""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agent.errors import ReleaseError
from agent.models.openai import response_format
from agent.models.strict_schema import fixed_values
from agent.prompt.parts.shape import answer_schema
from agent.release.formats.export_format import (
    Material,
    Opened,
    as_sent,
    chosen,
    export_format,
    hosted_name,
    json_text,
    opened_request,
    renamed,
    sent_schema,
)
from agent.release.formats.python_module import load_module, module_source, opened_module
from agent.release.prompt_file import PromptRelease

# -- OpenAI's Chat Completions: `{{input}}` where the row's values go --------------------------------------------------

OPENAI_REQUEST = "openai.json"
_OPENAI = {"max_tokens": "max_completion_tokens", "temperature": "temperature", "stop": "stop", "seed": "seed"}


def _load_request(folder: Path, release: PromptRelease) -> Opened:
    body = json.loads((folder / OPENAI_REQUEST).read_bytes())
    messages, form = as_sent(body.pop("messages")), body.pop("response_format", None)
    settings = renamed(body, {theirs: ours for ours, theirs in _OPENAI.items()})
    return opened_request("openai", messages, settings, form and form["json_schema"]["schema"])


@export_format(
    "openai",
    about="openai.json: the body of a Chat Completions request with its JSON schema, with {{input}} marks",
    load=_load_request,
    carries=("schema",),
)
def openai_request(material: Material) -> dict[str, str]:
    release, schema = material.release, sent_schema(material.release)
    model = hosted_name(release.model, "openai")
    body: dict[str, Any] = {**({"model": model} if model else {}), **chosen(release, _OPENAI)}
    body |= {"response_format": response_format(schema)} if schema else {}
    return {OPENAI_REQUEST: json_text({**body, "messages": [message.as_dict() for message in release.messages]})}


# -- Pydantic ----------------------------------------------------------------------------------------------------------

MODEL_FILE = "answer_model.py"
_TYPES = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
_OBJECT = _TYPES["object"] = "dict[str, Any]"
_TAKEN = re.compile(r"_.*|model_.*|field_\d+|Answer\d*|pydantic|Any|Literal|str|int|float|bool|dict|list")
"""Names that Pydantic refuses, and those that the class itself uses."""
_HEAD = """

# Pydantic: `client.chat.completions.parse(model=..., messages=render(...), response_format=Answer)`.
import pydantic

"""


def _load_model(folder: Path, release: PromptRelease) -> Opened:
    module = load_module(folder / MODEL_FILE, "exported_answer_model")
    found, wanted = module.Answer.model_json_schema(by_alias=True), whole_schema(release)
    if _plain(found, found) != _plain(wanted, wanted):
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
    classes = "\n\n".join(_classes("Answer", whole_schema(material.release)))
    return {MODEL_FILE: module_source(material.release, f"{_HEAD}\n{classes}")}


def whole_schema(release: PromptRelease) -> dict[str, Any]:
    """Return the JSON schema of a reply. Raises ReleaseError if it is no JSON object."""
    text = next((part.reply_schema for part in release.parts if part.reply_schema), "")
    found: dict[str, Any] | None = json.loads(text) if text else answer_schema(release.outputs)
    if found is None:
        raise ReleaseError(f"{release.name!r}: its answer is no JSON object of a schema; leave --format pydantic out")
    if '"$ref"' in json.dumps(found):
        raise ReleaseError(f"{release.name!r}: its schema refers to others ($ref); leave --format pydantic out")
    return found


def _plain(schema: Mapping[str, Any], root: Mapping[str, Any]) -> list[Any]:
    found: list[Any] = []
    for name, own in schema["properties"].items():
        about = own if isinstance(own, Mapping) else {}
        parts = [part for part in (about, *about.get("anyOf", ())) if isinstance(part, Mapping)]
        inner = next((part for part in parts if "$ref" in part), about)
        inner = root["$defs"][inner["$ref"].rpartition("/")[2]] if "$ref" in inner else inner
        found.append((name, about.get("description"), _plain(inner, root) if inner.get("properties") else []))
    return found


def _classes(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    from pydantic import BaseModel

    required, fields = schema.get("required", ()), list[str]()
    for at, (field, own) in enumerate(schema["properties"].items()):
        about, inner = (own if isinstance(own, Mapping) else {}), f"{name}{at + 1}"
        if about.get("properties"):
            yield from _classes(inner, about)
        kind, more = _annotation(about, inner), list[str]()
        if field not in required:
            kind, more = f"{kind} | None", ["default=None"]
        clear = field.isidentifier() and not keyword.iskeyword(field) and not _TAKEN.fullmatch(field)
        is_own = clear and not hasattr(BaseModel, field)
        more += [] if is_own else [f"alias={field!a}"]
        more += [f"description={about['description']!a}"] if "description" in about else []
        fields.append(f"    {field if is_own else f'field_{at + 1}'}: {kind} = pydantic.Field({', '.join(more)})\n")
    extra = "allow" if schema.get("additionalProperties", True) else "forbid"
    config = f'    model_config = pydantic.ConfigDict(extra="{extra}", populate_by_name=True)\n\n'
    yield f"class {name}(pydantic.BaseModel):\n{config}{''.join(fields)}"


def _annotation(schema: Any, inner: str) -> str:
    if not isinstance(schema, Mapping):
        return "Any"
    if values := fixed_values(schema):
        plain = all(value is None or isinstance(value, str | int) for value in values)
        return f"Literal[{', '.join(map(ascii, values))}]" if plain else "Any"
    if isinstance(parts := schema.get("anyOf"), list) and parts:
        return " | ".join(dict.fromkeys(_annotation(part, _OBJECT) for part in parts))
    if isinstance(kind := schema.get("type"), list):
        return " | ".join(_annotation({**schema, "type": one}, inner) for one in kind)
    if schema.get("properties"):
        return inner
    if kind == "array":
        return f"list[{_annotation(schema.get('items'), _OBJECT)}]"
    return _TYPES.get(str(kind), "Any")
