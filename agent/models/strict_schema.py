"""JSON schemas as the strict modes of OpenAI and Anthropic take them. Pure.

Both want every object closed, with all of its properties required, and take few keywords.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KEPT = ("type", "enum", "const", "description", "$ref")
LIMITS = (
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "pattern"),
    *("format", "minItems", "maxItems", "uniqueItems", "title", "default", "examples", "$schema", "$id", "$comment"),
)
"""Keywords that one of both refuses, and without which a schema accepts no less."""
KNOWN = {*KEPT, *LIMITS, "properties", "required", "additionalProperties", "items", "anyOf", "$defs"}
_NAMES = {bool: "boolean", str: "string", int: "integer", float: "number", type(None): "null"}


def strict_schema(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the schema for a strict mode; None if its meaning would change."""
    try:
        found = _strict(schema)
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError):
        return None
    return found if found.get("type") == "object" and "properties" in found else None


def fixed_values(schema: Mapping[str, Any]) -> list[Any]:
    """Return the only values that `enum` and `const` accept; [] without these."""
    return [*schema.get("enum", ()), *([schema["const"]] if "const" in schema else [])]


def _strict(schema: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {name: value for name, value in schema.items() if name in KEPT}
    if "type" not in made and (values := fixed_values(schema)):
        kinds = list(dict.fromkeys(_NAMES[type(value)] for value in values))
        made = {"type": kinds[0] if len(kinds) == 1 else kinds, **made}
    if "properties" in schema or "object" in made.get("type", ()):
        made |= {"type": made.get("type", "object"), "properties": _each(schema.get("properties", {}))}
        made |= {"required": [*made["properties"]], "additionalProperties": False}
    if "items" in schema or made.get("type") == "array":
        made["items"] = _strict(schema["items"])
    if "anyOf" in schema:
        made["anyOf"] = [_strict(part) for part in schema["anyOf"]]
    if "$defs" in schema:
        made["$defs"] = _each(schema["$defs"])
    is_closed = {*made.get("required", ())} == {*schema.get("required", ())} and not schema.get("additionalProperties")
    if not is_closed or not schema.keys() <= KNOWN or not made.keys() & {"type", "anyOf", "$ref"}:
        raise ValueError("takes optional or other fields, has an unknown keyword, or no type")
    return made


def _each(schemas: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _strict(schema) for name, schema in schemas.items()}
