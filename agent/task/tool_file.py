"""Functions of the user's own Python file as tools, by running it in a child process without the environment.

For the command that names the file; a task is only read (`tool_source.py`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from agent.errors import Problem
from agent.task import tool_functions
from agent.task.tool_source import names_of
from agent.task.words import problem, shown
from agent.worker import LOAD, Worker

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


def tools_of_functions(path: Path, names: str) -> tuple[list[dict[str, Any]], list[Problem]]:
    """The functions of a file as tools, JSON-ready, and what is wrong with it.

    Args:
        path: of the file.
        names: of functions, set apart by commas.
    """
    source = Path(tool_functions.__file__).read_text("utf-8")
    worker = Worker(path.name, _SCRIPT, [str(path.resolve()), source], SECONDS, folder=path.resolve().parent)
    try:
        found, why = worker.now(names_of(names))
    finally:
        worker.close()
    if not isinstance(found, dict):
        found = {"tools": [], "wrong": [why.removeprefix(f"{path.name} cannot be loaded: ")]}
    problems = []
    for what in found["wrong"]:
        line = re.match(r"(\d+): ", what)
        problems.append(problem(shown(path), int(line[1]) if line else 1, what[line.end() :] if line else what))
    return found["tools"], problems
