"""The operations of an OpenAPI document as tools. External references are not read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from agent.safe_data import MOST_LEVELS, MOST_PARTS, MOST_STEPS
from agent.safe_text import quoted

METHODS = ("get", "post", "put", "patch", "delete")


class OpenApi:
    """An OpenAPI document or schema with resolved references. All methods raise ValueError."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document, self._copied = document, 0
        self._read: dict[int, tuple[dict[str, Any], list[str]]] = {}
        """Fields of schemas by `id`, so that a shared part is read once."""

    def tools(self) -> tuple[list[dict[str, Any]], list[str]]:
        tools, wrong = list[dict[str, Any]](), list[str]()
        for path, given in as_object(self._document.get("paths")).items():
            try:
                methods = self._followed(given)
            except ValueError as error:
                wrong.append(f"{path}: {error}")
                continue
            for method in METHODS:
                operation = methods.get(method)
                if isinstance(operation, Mapping):
                    name = operation.get("operationId") or re.sub(r"\W+", "_", f"{method} {path}").strip("_")
                    about = operation.get("description") or operation.get("summary") or ""
                    try:
                        arguments = self._arguments(operation, methods.get("parameters"))
                    except ValueError as error:
                        if self._copied > MOST_PARTS:
                            raise
                        wrong.append(f"{method} {path}: {error}; or remove the operation")
                    else:
                        tools.append({"name": name, "description": about, "parameters": arguments})
        return tools, wrong

    def _arguments(self, operation: Mapping[str, Any], shared: Any) -> dict[str, Any]:
        properties: dict[str, Any] = {}
        required: list[str] = []
        for given in [*_items(shared), *_items(operation.get("parameters"))]:
            parameter = self._followed(given)
            if isinstance(parameter.get("name"), str):
                about = {"description": parameter["description"]} if parameter.get("description") else {}
                schema = parameter.get("schema") or _first_schema(parameter)
                properties[parameter["name"]] = {**as_object(self.resolved(schema)), **about}
                required += [parameter["name"]] if parameter.get("required") else []
        fields, needed = self._fields(_first_schema(self._followed(operation.get("requestBody"))), frozenset())
        properties |= {name: self.resolved(schema) for name, schema in fields.items()}
        return {"type": "object", "properties": properties, "required": list(dict.fromkeys(required + needed))}

    def _fields(self, given: Any, inside: frozenset[int]) -> tuple[dict[str, Any], list[str]]:
        schema = self._followed(given)
        if id(schema) in self._read:
            return self._read[id(schema)]
        if len(inside) > MOST_LEVELS:
            raise ValueError(f"its body is nested more than {MOST_LEVELS} levels deep (allOf); write its fields out")
        if id(schema) in inside:
            raise ValueError("its body contains itself (allOf); write its fields out")
        kind = schema.get("type", "object")
        other = next((word for word in ("oneOf", "anyOf") if word in schema), "")
        if other or (kind != "object" and kind != ["object", "null"]):
            what = f"is one of several ({other})" if other else f"is of type {quoted(kind, 40)}"
            raise ValueError(f"its body {what}; describe it as an object with named fields")
        fields = dict(as_object(schema.get("properties")))
        required = [name for name in _items(schema.get("required")) if isinstance(name, str)]
        for part in _items(schema.get("allOf")):
            more, needed = self._fields(part, inside | {id(schema)})
            fields, required = fields | more, list(dict.fromkeys(required + needed))
            self._count(len(more) + len(needed))
        if schema:  # `as_object` creates empty ones, and their ids may be reused
            self._read[id(schema)] = fields, required
        return fields, required

    def _followed(self, value: Any) -> Mapping[str, Any]:
        for _ in range(MOST_STEPS):
            reference = as_object(value).get("$ref")
            if not isinstance(reference, str):
                return as_object(value)
            value = self._at(reference)
        raise ValueError(f"a chain of more than {MOST_STEPS} references; correct it")

    def _at(self, reference: str) -> Any:
        if not reference.startswith("#/"):
            raise ValueError(f"{quoted(reference)} is in another document, which is not read; copy it into this one")
        found: Any = self._document
        for part in reference[2:].split("/"):
            found = as_object(found).get(part.replace("~1", "/").replace("~0", "~"))
        if found is None:
            raise ValueError(f"{quoted(reference)} points to nothing; correct it")
        return found

    def resolved(self, value: Any, inside: frozenset[str] = frozenset(), depth: int = 0) -> Any:
        """Copy a value with its references resolved; {} for a cycle."""
        self._count(1)
        if depth > MOST_LEVELS:
            raise ValueError(f"is nested more than {MOST_LEVELS} levels deep with its references resolved; flatten it")
        if isinstance(value, list):
            return [self.resolved(each, inside, depth + 1) for each in value]
        if not isinstance(value, Mapping):
            return value
        reference = value.get("$ref")
        if not isinstance(reference, str):
            return _with_bounds({key: self.resolved(each, inside, depth + 1) for key, each in value.items()})
        if reference == "#" or reference in inside:
            return {}
        return self.resolved(self._at(reference), inside | {reference}, depth + 1)

    def _count(self, parts: int) -> None:
        self._copied += parts
        if self._copied > MOST_PARTS:
            raise ValueError(f"has more than {MOST_PARTS:,} parts with its references resolved; take fewer operations")


def _with_bounds(schema: dict[str, Any]) -> dict[str, Any]:
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(schema.get(exclusive), bool) and schema.pop(exclusive) and bound in schema:
            schema[exclusive] = schema.pop(bound)
    return schema


def _first_schema(described: Mapping[str, Any]) -> Any:
    content = as_object(described.get("content"))
    return as_object(content.get("application/json", next(iter(content.values()), None))).get("schema")


def as_object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
