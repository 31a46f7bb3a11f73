"""The tools of a task, from JSON as OpenAI, Anthropic and MCP write them, or from an OpenAPI document.

Names and schemas stay as they are; what a tool and its arguments are for, in words, a search may rewrite.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from agent.task.words import listed, quoted
from agent.types import Tool

MOST_TOOLS = 128
"""As many as OpenAI takes."""
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
SCHEMAS = ("parameters", "input_schema", "inputSchema")
"""The key of the schema of the arguments: OpenAI's, Anthropic's, and that of MCP."""
METHODS = ("get", "post", "put", "patch", "delete")
MOST_PARTS = 100_000
"""Of an OpenAPI document: one that refers to itself twice at each of 30 levels would fill the memory."""


def read_tools(value: Any) -> tuple[tuple[Tool, ...], list[str]]:
    """The tools in a JSON value, and all that is wrong with them.

    Args:
        value: A list of tools, the result of MCP's `tools/list`, or an OpenAPI document of version 3.
    """
    if isinstance(value, Mapping) and "openapi" in value:
        try:
            value = list(_Document(value).operations())
        except ValueError as error:
            return (), [str(error)]
    if isinstance(value, Mapping):
        inner = value.get("result", value)
        value = inner.get("tools") if isinstance(inner, Mapping) else None
    if not isinstance(value, list) or not value:
        return (), ["holds no list of tools; write one, or the result of MCP's tools/list, or an OpenAPI document"]
    if len(value) > MOST_TOOLS:
        return (), [f"holds {len(value)} tools; {MOST_TOOLS} at most"]
    tools: dict[str, Tool] = {}
    wrong: list[str] = []
    for number, each in enumerate(value, start=1):
        try:
            tool = _tool(each)
            if tool.name in tools:
                raise ValueError(f"there is a tool {quoted(tool.name)} before it; give each its own name")
            tools[tool.name] = tool
        except ValueError as error:
            wrong.append(f"tool {number}: {error}")
    return tuple(tools.values()), wrong


def _tool(value: Any) -> Tool:
    """One tool. Raises ValueError with what is wrong."""
    if isinstance(value, Mapping) and isinstance(value.get("function"), Mapping):
        value = value["function"]
    if not isinstance(value, Mapping):
        raise ValueError(f"{quoted(value)} is no object with name, description and {listed(SCHEMAS)}")
    name, about = value.get("name"), value.get("description", "")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"the name {quoted(name)} is not of letters, digits, _, . and -, at most 64")
    if not isinstance(about, str):
        raise ValueError(f"the description of {quoted(name)} is no text")
    schema = next((value[key] for key in SCHEMAS if key in value), {"type": "object", "properties": {}})
    if not isinstance(schema, Mapping) or schema.get("type", "object") != "object":
        raise ValueError(f"the schema of the arguments of {quoted(name)} is not of type object")
    from agent.task.examples import json_checker

    try:
        if "$ref" in json.dumps(schema):  # it stands inside another schema, where its references would lead nowhere
            found = _Document(schema)._resolved(schema)
            schema = {key: part for key, part in found.items() if key not in ("$defs", "definitions")}
        text = json.dumps({"type": "object", **schema}, ensure_ascii=False, allow_nan=False)
        json_checker(text)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the schema of the arguments of {quoted(name)} is wrong: {error}") from error
    return Tool(name, about.strip(), text)


class _Document:
    """An OpenAPI document whose parts are read with their references in place."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document, self._copied = document, 0

    def operations(self) -> Iterator[dict[str, Any]]:
        """The operations as tools; what is no operation is left out."""
        paths = self._document.get("paths")
        for path, methods in paths.items() if isinstance(paths, Mapping) else ():
            for method in METHODS:
                operation = methods.get(method) if isinstance(methods, Mapping) else None
                if isinstance(operation, Mapping):
                    name = operation.get("operationId") or re.sub(r"\W+", "_", f"{method} {path}").strip("_")
                    about = operation.get("description") or operation.get("summary") or ""
                    arguments = self._arguments(operation, methods.get("parameters"))
                    yield {"name": name, "description": about, "parameters": arguments}

    def _arguments(self, operation: Mapping[str, Any], shared: Any) -> dict[str, Any]:
        """The schema of the arguments of an operation: its parameters, and the fields of its JSON body."""
        properties: dict[str, Any] = {}
        required: list[str] = []
        for given in [*_items(shared), *_items(operation.get("parameters"))]:
            parameter = self._resolved(given)
            if isinstance(parameter, Mapping) and isinstance(parameter.get("name"), str):
                about = {"description": parameter["description"]} if parameter.get("description") else {}
                properties[parameter["name"]] = {**_object(parameter.get("schema")), **about}
                required += [parameter["name"]] if parameter.get("required") else []
        body = _object(self._resolved(operation.get("requestBody")))
        schema = _object(_object(_object(body.get("content")).get("application/json")).get("schema"))
        properties |= _object(schema.get("properties"))
        required += [name for name in _items(schema.get("required")) if isinstance(name, str)]
        return {"type": "object", "properties": properties, "required": list(dict.fromkeys(required))}

    def _resolved(self, value: Any, inside: frozenset[str] = frozenset()) -> Any:
        """A copy of the value with references to other parts of the document replaced by these; {} for one that leads
        nowhere, elsewhere, or back to what it stands in. Raises ValueError where that grows beyond MOST_PARTS."""
        self._copied += 1
        if self._copied > MOST_PARTS:
            raise ValueError(f"has more than {MOST_PARTS:,} parts with its references in place; take fewer operations")
        if isinstance(value, list):
            return [self._resolved(each, inside) for each in value]
        if not isinstance(value, Mapping):
            return value
        reference = value.get("$ref")
        if not isinstance(reference, str):
            return {key: self._resolved(each, inside) for key, each in value.items()}
        if not reference.startswith("#/") or reference in inside:
            return {}
        found: Any = self._document
        for part in reference[2:].split("/"):
            found = _object(found).get(part.replace("~1", "/").replace("~0", "~"))
        return {} if found is None else self._resolved(found, inside | {reference})


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
