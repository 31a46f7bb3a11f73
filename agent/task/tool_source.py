"""Functions of a Python file as tools: read and not run, as loading a task runs none of its code; or by running it.

Read, a type is one of Python's own or of `typing`. The command that names a file runs it, in a child process.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Union

from agent.errors import Problem, refuse_all
from agent.task import tool_functions
from agent.task.input_files import refused
from agent.task.tool_functions import tool_of_function
from agent.task.words import problem, shown
from agent.worker import LOAD, Worker

FUNCTIONS = re.compile(r"(?P<file>[^:]+\.py):\s*(?P<names>\w+(?:\s*,\s*\w+)*)")
"""FILE.py:NAME, or several names separated by commas."""
TYPES: dict[str, Any] = {
    **{kind.__name__: kind for kind in (str, int, float, bool, list, dict)},
    "List": list,
    "Dict": dict,
    "Sequence": list,
    "Iterable": list,
    "Mapping": dict,
    "Optional": Optional,
    "Union": Union,
    "Literal": Literal,
    "Annotated": Annotated,
    "Any": Any,
}
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def tools_in_source(path: Path, names: str, data: bytes) -> list[dict[str, Any]]:
    """Read functions at the top of a file as tools, without running it. Raises ProblemsError."""
    try:
        tree = ast.parse(data)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        what = getattr(error, "msg", None) or str(error) or type(error).__name__
        raise refused(shown(path), getattr(error, "lineno", None) or 1, f"is no Python: {what}") from None
    functions = {node.name: node for node in tree.body if isinstance(node, _Function)}
    found, wrong = list[dict[str, Any]](), list[Problem]()
    for name in _names(names):
        node = functions.get(name)
        try:
            if node is None:
                raise ValueError(f"no function {name} at the top of the file; write def {name}(...)")
            found.append(tool_of_function(_stand_in(node)))
        except ValueError as error:
            wrong.append(problem(shown(path), node.lineno if node else 1, str(error)))
    refuse_all(wrong)
    return found


def _names(names: str) -> list[str]:
    return [name.strip() for name in names.split(",")]


def _stand_in(node: _Function) -> Callable[..., None]:
    given, named = [*node.args.posonlyargs, *node.args.args], node.args.kwonlyargs
    lacks = len(given) - len(node.args.defaults)
    defaults = [*[None] * lacks, *node.args.defaults, *node.args.kw_defaults]
    if node.args.vararg or node.args.kwarg or node.args.posonlyargs:
        raise ValueError(f"{node.name}: takes arguments that have no name; name each argument")
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
        raise ValueError(
            f"{node.name}: the type or default of {given.arg} is none that can be read without running the file; write "
            f"one of {', '.join(TYPES)}, or `optimize tools FILE.py:{node.name} -o tools.json`, which runs it"
        ) from None
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
    """Return the `Field` of an `Annotated`; other notes say nothing of the schema."""
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
    """Run a file in a child process and return functions of it as tools. Raises ProblemsError."""
    source = Path(tool_functions.__file__).read_text("utf-8")
    worker = Worker(path.name, _SCRIPT, [str(path.resolve()), source], SECONDS, folder=path.resolve().parent)
    try:
        found, why = worker.now(_names(names))
    finally:
        worker.close()
    if not isinstance(found, dict):
        found = {"tools": [], "wrong": [why.removeprefix(f"{path.name} cannot be loaded: ")]}
    problems = []
    for what in found["wrong"]:
        line = re.match(r"(\d+): ", what)
        problems.append(problem(shown(path), int(line[1]) if line else 1, what[line.end() :] if line else what))
    refuse_all(problems)
    tools: list[dict[str, Any]] = found["tools"]
    return tools
