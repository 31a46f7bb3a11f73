"""The tools of a task (OpenAI, Anthropic, MCP, OpenAPI or Python functions), and labels that call them.

A search may rewrite the descriptions of tools and arguments, never names and schemas.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from agent.errors import Problem, refuse_all
from agent.metrics.calls import ABSENT, calls_in, excluded_in, has_accepted, require_accepted
from agent.safe_data import MOST_SCHEMA, MOST_TOOLS, parse_cell
from agent.safe_text import listed, near, problem, quoted, shown
from agent.task import tool_functions
from agent.task.answers import text_of
from agent.task.checks import statements_of
from agent.task.examples import json_checker, listed_problems
from agent.task.openapi import OpenApi, as_object
from agent.task.tool_functions import tool_of_function
from agent.types import Tool
from agent.worker import LOAD, Worker

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
SCHEMAS = ("parameters", "input_schema", "inputSchema")
"""Keys of the argument schema: OpenAI, Anthropic, MCP."""
KEYS = ("name", "description", "type", "strict", *SCHEMAS)
"""Keys of a tool in task.toml."""


def read_tools(value: Any, own: bool = False) -> tuple[tuple[Tool, ...], list[str]]:
    """Read tools and problems from JSON; `own` tables of task.toml allow known keys only."""
    if isinstance(value, Mapping) and "swagger" in value:
        return (), ["is a Swagger 2 document; convert it to OpenAPI 3"]
    if isinstance(value, Mapping) and "openapi" in value:
        try:
            value, wrong = OpenApi(value).tools()
        except ValueError as error:
            return (), [str(error)]
        if wrong:
            return (), wrong
    if isinstance(value, Mapping):
        inner = value.get("result", value)
        value = inner.get("tools") if isinstance(inner, Mapping) else None
    if not isinstance(value, list) or not value:
        return (), ["holds no tools; write a list, the result of MCP's tools/list, or an OpenAPI document"]
    if len(value) > MOST_TOOLS:
        return (), [f"holds {len(value)} tools; {MOST_TOOLS} at most"]
    tools: dict[str, Tool] = {}
    wrong = []
    for number, each in enumerate(value, start=1):
        try:
            tool = _tool(each, own)
            if tool.name in tools:
                raise ValueError(f"the name {quoted(tool.name)} is used before; rename one")
            tools[tool.name] = tool
        except ValueError as error:
            wrong.append(f"tool {number}: {error}")
    return tuple(tools.values()), wrong


def _tool(value: Any, own: bool) -> Tool:
    if isinstance(value, Mapping) and isinstance(value.get("function"), Mapping):
        value = value["function"]
    if own and (unknown := [key for key in as_object(value) if key not in KEYS]):
        raise ValueError(f"unknown key {quoted(unknown[0])}{near(unknown[0], KEYS)}")
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
    try:
        if "$ref" in json.dumps(schema):  # its references would break inside another schema
            found = OpenApi(schema).resolved(schema)
            schema = {key: part for key, part in found.items() if key not in ("$defs", "definitions")}
        text = json.dumps({"type": "object", **schema}, ensure_ascii=False, allow_nan=False)
        if len(text) > MOST_SCHEMA:
            raise ValueError(f"it has {len(text):,} characters with its references resolved; {MOST_SCHEMA:,} at most")
        json_checker(text)
    except (TypeError, ValueError, RecursionError) as error:
        why = "nested too deep; flatten it" if isinstance(error, RecursionError) else error
        raise ValueError(f"the schema of the arguments of {quoted(name)} is wrong: {why}") from error
    return Tool(name, about.strip(), text)


# -- labels that are calls ---------------------------------------------------------------------------------------------


TOOLS_FILE = "tools.json"
_CALLS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "arguments": {"type": "object"}},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    },
}


def calls_checker(tools: Sequence[Tool], accepted: bool = False, excludes: bool = False) -> Callable[[Any], str]:
    """Return a function from a label to its problem, or "".

    `accepted` arguments are lists; with `excludes` a label may also exclude tools.
    """
    form = json_checker(json.dumps(_CALLS))
    by_name = {tool.name: json_checker(tool.parameters) for tool in tools}

    def check(label: Any) -> str:
        if excludes and (names := excluded_in(label)):
            unknown = next((name for name in names if name not in by_name), "")
            return f"excludes {quoted(unknown)}, which is not a tool{near(unknown, by_name)}" if unknown else ""
        fault = form(label) or (_no_lists(label) if accepted else "")
        return fault or next((why for call in label if (why := _fault(call, by_name, accepted))), "")

    return check


def accepted_checker(schema: str | None) -> Callable[[Any], str]:
    """Return a checker of labels with accepted values under the schema of their field."""
    check = json_checker(schema) if schema else None
    return lambda label: (check(label) if check else "") or _no_lists(label)


def _no_lists(label: Any) -> str:
    try:
        require_accepted(calls_in(label))
    except ValueError as error:
        return f"cannot be used with accepted = true: {error}; write [VALUE, ...]"
    return ""


def _fault(call: Mapping[str, Any], by_name: Mapping[str, Callable[[Any], str]], accepted: bool) -> str:
    name, arguments = call["name"], call["arguments"]
    if name not in by_name:
        return f"calls {quoted(name)}, which is not a tool{near(name, by_name)}"
    given = _single(arguments) if accepted else [arguments]
    faults = ((each, by_name[name](each)) for each in given)
    return next((f"calls {name} with {quoted(each)}, which {fault}" for each, fault in faults if fault), "")


def _single(accepted: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    choices = {name: [one for value in values for one in _values(value)] for name, values in accepted.items()}
    first = {name: values[0] for name, values in choices.items() if values}
    yield first
    for name, values in choices.items():
        yield from ({**first, name: value} for value in values[1:])


def _values(value: Any) -> list[Any]:
    if value == ABSENT:
        return []
    return [*_single(value)] if has_accepted(value) else [value]


# -- a data file -------------------------------------------------------------------------------------------------------


def with_calls(
    table: Sequence[Mapping[str, Any]],
    lines: Sequence[int],
    path: Path,
    target: str,
    tools: Sequence[Tool],
    accepted: bool = False,
) -> list[dict[str, Any]]:
    """Convert the answers of rows to lists of calls. Raises ProblemsError."""
    check = calls_checker(tools, accepted)
    made: list[dict[str, Any]] = []
    wrong: dict[tuple[str, str], list[int]] = {}
    for row, line in zip(table, lines, strict=True):
        value = row.get(target)
        if text_of(value).strip():
            try:
                given = parse_cell(value, "write the list of its calls") if isinstance(value, str) else value
                calls = calls_in(given)
                value = [{"name": call.name, "arguments": dict(call.arguments)} for call in calls]
                if fault := check(value):
                    raise ValueError(f"{quoted(value)} {fault}")
            except ValueError as error:
                wrong.setdefault((target, f"{target}: {error}"), []).append(line)
        made.append({**row, target: value} if target in row else dict(row))
    refuse_all(listed_problems(wrong, shown(path)))
    return made


def tools_json(tools: Sequence[Tool]) -> str:
    each = [{**tool.as_dict(), "parameters": json.loads(tool.parameters)} for tool in tools]
    return "[\n" + ",\n".join(json.dumps(tool, ensure_ascii=False) for tool in each) + "\n]\n"


FUNCTIONS = re.compile(r"(?P<file>[^:]+\.py):\s*(?P<names>\w+(?:\s*,\s*\w+)*)")
"""FILE.py:NAME or FILE.py:NAME,NAME."""
TYPES: dict[str, Any] = {kind.__name__: kind for kind in (str, int, float, bool, list, dict)}
TYPES |= {name: getattr(typing, name) for name in ("List", "Dict", "Sequence", "Iterable", "Mapping", "Optional")}
TYPES |= {name: getattr(typing, name) for name in ("Union", "Literal", "Annotated", "Any")}
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def tools_in_source(path: Path, names: str, data: bytes) -> list[dict[str, Any]]:
    """Read the functions of a file as tools, without running it. Raises ProblemsError."""
    functions = {node.name: node for node in statements_of(data, shown(path)) if isinstance(node, _Function)}
    found, wrong = list[dict[str, Any]](), list[Problem]()
    for name in re.findall(r"\w+", names):
        node = functions.get(name)
        try:
            if node is None:
                raise ValueError(f"no function {name} at the top of the file; write def {name}(...)")
            found.append(tool_of_function(_stand_in(node)))
        except ValueError as error:
            wrong.append(problem(shown(path), node.lineno if node else 1, str(error)))
    refuse_all(wrong)
    return found


def _stand_in(node: _Function) -> Callable[..., None]:
    given, named = [*node.args.posonlyargs, *node.args.args], node.args.kwonlyargs
    lacks = len(given) - len(node.args.defaults)
    defaults = [*[None] * lacks, *node.args.defaults, *node.args.kw_defaults]
    if node.args.vararg or node.args.kwarg or node.args.posonlyargs:
        raise ValueError(f"{node.name}: takes arguments without a name; name each argument")
    parameters = [_parameter(node, each, default) for each, default in zip([*given, *named], defaults, strict=True)]

    def stand_in() -> None: ...

    stand_in.__name__, stand_in.__doc__ = node.name, ast.get_docstring(node)
    stand_in.__annotations__ = {each.name: each.annotation for each in parameters if each.annotation is not each.empty}
    stand_in.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return stand_in


def _parameter(node: _Function, given: ast.arg, default: ast.expr | None) -> inspect.Parameter:
    empty = inspect.Parameter.empty
    try:
        kind = empty if given.annotation is None else _type(given.annotation)
        value = empty if default is None else ast.literal_eval(default)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        what = f"the type or default of {given.arg} cannot be read without running the file"
        fix = f"run it: `optimize tools FILE.py:{node.name} -o tools.json`, or write one of {', '.join(TYPES)}"
        raise ValueError(f"{node.name}: {what}; {fix}") from None
    return inspect.Parameter(given.arg, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=value)


def _type(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=None):
            return None
        case ast.Constant(value=str(text)):
            return _type(ast.parse(text, mode="eval").body)
        case ast.Name(id=name) | ast.Attribute(value=ast.Name(), attr=name) if name in TYPES:
            return TYPES[name]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return Union[_type(left), _type(right)]  # noqa: UP007
        case ast.Subscript(value=value, slice=index):
            return _filled(_type(value), index.elts if isinstance(index, ast.Tuple) else [index])
    raise ValueError(ast.dump(node)[:80])


def _filled(of: Any, nodes: Sequence[ast.expr]) -> Any:
    if of is Literal:
        return Literal[tuple(ast.literal_eval(node) for node in nodes)]
    if of is Annotated:
        about = [note for node in nodes[1:] if (note := _note(node)) is not None]
        return Annotated[(_type(nodes[0]), *about)] if about else _type(nodes[0])
    kinds = tuple(_type(node) for node in nodes)
    return of[kinds if len(kinds) > 1 else kinds[0]]


def _note(node: ast.expr) -> Any:
    from pydantic import Field

    match node:
        case ast.Call(func=ast.Name(id="Field") | ast.Attribute(attr="Field"), args=[], keywords=keywords):
            options: dict[str, Any] = {str(each.arg): ast.literal_eval(each.value) for each in keywords}
            return Field(**options)
    return None


# -- by running the file -----------------------------------------------------------------------------------------------

SECONDS = 60.0
_SCRIPT = (
    LOAD
    + r"""
path, source = opening
tools = sys.modules["tools_of_functions"] = types.ModuleType("tools_of_functions")
exec(compile(source, "tools_of_functions", "exec"), tools.__dict__)
try:
    sys.path.insert(0, os.path.dirname(path))
    module = load("tools_file", path)
except BaseException as problem:
    answer(None, blame(problem, path, 1))
    sys.exit(1)
answer(1, "ready")
for line in pipe_in:
    found, wrong = [], []
    for name in json.loads(line):
        function = getattr(module, name, None)
        if function is None:
            wrong.append(f"1: no function {name}; write def {name}(...)")
            continue
        try:
            found.append(tools.tool_of_function(function))
        except Exception as problem:
            wrong.append(f"{getattr(getattr(function, '__code__', None), 'co_firstlineno', 1)}: {problem}")
    answer({"tools": found, "wrong": wrong}, "")
"""
)


def tools_of_functions(path: Path, names: str) -> list[dict[str, Any]]:
    """Read the functions of a file as tools in a child process. Raises ProblemsError."""
    source = Path(tool_functions.__file__).read_text("utf-8")
    worker = Worker(path.name, _SCRIPT, [str(path.resolve()), source], SECONDS, folder=path.resolve().parent)
    try:
        found, why = worker.now(re.findall(r"\w+", names))
    finally:
        worker.close()
    if not isinstance(found, dict):
        found = {"tools": [], "wrong": [why.removeprefix(f"{path.name} cannot be loaded: ")]}
    placed = [re.fullmatch(r"(?:(\d+): )?(.*)", what, re.DOTALL) for what in found["wrong"]]
    refuse_all(problem(shown(path), int(each[1] or 1), each[2]) for each in placed if each)
    tools: list[dict[str, Any]] = found["tools"]
    return tools
