"""A Python function as a tool: the schema from its signature, the descriptions from its docstring.

Imports only the standard library and pydantic: this source also runs in the process that imports a user's file.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

_SECTION = re.compile(r"^(Args|Arguments|Parameters|Returns|Return|Yields|Raises|Examples?|Notes?|Source):\s*$")
_ARGUMENTS = ("Args", "Arguments", "Parameters")
_ARGUMENT = re.compile(r"\*{0,2}(\w+)\s*+(?:\([^)]*\)\s*+)?:\s*+(.*)")
_FIELD = re.compile(r":param\s++(?:[^\s:]++\s++)*?(\w+)\s*+:\s*+(.*)")


def tool_of_function(function: Callable[..., Any]) -> dict[str, Any]:
    """Describe a function as a JSON tool, without calling it. Raises ValueError."""
    from pydantic import TypeAdapter

    name = getattr(function, "__name__", "")
    if not callable(function) or inspect.isclass(function) or not name.isidentifier():
        raise ValueError(f"{name or repr(function)} is no function with a name")
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise ValueError(f"{name}: the parameter {parameter} cannot be given by name; name each argument")
        if parameter.annotation is parameter.empty:
            raise ValueError(f"{name}: the parameter {parameter.name} has no type; write it, such as str")
    form: Any = function
    try:
        schema = TypeAdapter[Any](form).json_schema()
    except Exception as error:  # pydantic's own, and those of the user's types
        says = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{name}: its types have no JSON form ({says})") from error
    about, arguments = docstring_parts(inspect.getdoc(function) or "")
    schema = {key: value for key, value in _untitled(schema).items() if key != "description"}
    for argument, words in arguments.items():
        here = schema.get("properties", {}).get(argument)
        if isinstance(here, dict) and words:
            here.setdefault("description", words)
    return {"name": name, "description": about, "parameters": schema}


def docstring_parts(text: str) -> tuple[str, dict[str, str]]:
    """Split a docstring (Google or `:param` style) into its description and those of arguments."""
    about, arguments = list[str](), dict[str, str]()
    section = last = ""
    indent = 0
    for line in text.splitlines():
        stripped = line.strip()
        if found := _SECTION.match(line):
            section, last = found[1], ""
        elif field := _FIELD.fullmatch(stripped):
            section, last = "Args", field[1]
            arguments[last] = field[2]
        elif stripped.startswith(":"):
            section, last = "Returns", ""
        elif section in _ARGUMENTS and stripped:
            depth = len(line) - len(line.lstrip())
            entry = _ARGUMENT.fullmatch(stripped)
            if entry and (not last or depth <= indent):
                last, indent = entry[1], depth
                arguments[last] = entry[2]
            elif last:
                arguments[last] = f"{arguments[last]} {stripped}".strip()
        elif not section:
            about.append(stripped)
    return " ".join(" ".join(about).split()), arguments


def _untitled(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_untitled(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    named = ("properties", "$defs")
    return {
        key: {name: _untitled(inner) for name, inner in value.items()} if key in named else _untitled(value)
        for key, value in schema.items()
        if key != "title" or not isinstance(value, str)
    }
