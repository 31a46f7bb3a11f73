"""The answers of a data file with tools: each a list of calls in one form, or a problem at its line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.errors import ProblemsError
from agent.metrics.calls import calls_in
from agent.task.answers import text_of
from agent.task.examples import listed_problems
from agent.task.input_files import parse_json
from agent.task.label_calls import calls_checker
from agent.task.words import quoted, shown
from agent.types import Tool

TOOLS_FILE = "tools.json"


def with_calls(
    table: Sequence[Mapping[str, Any]],
    lines: Sequence[int],
    path: Path,
    target: str,
    tools: Sequence[Tool],
    accepted: bool = False,
) -> list[dict[str, Any]]:
    """The rows with their answers as lists of calls, [] where no tool fits; a blank answer stays blank.

    Args:
        table: the rows.
        lines: the line of each row in its file.
        path: the file.
        target: the column of the answers: calls in a form that `calls_in` reads, or such JSON as a text.
        tools: those that may be called.
        accepted: each argument is the list of its right values.

    Raises:
        ProblemsError: answers that are no calls of these tools.
    """
    check = calls_checker(tools, accepted)
    made: list[dict[str, Any]] = []
    wrong: dict[tuple[str, str], list[int]] = {}
    for row, line in zip(table, lines, strict=True):
        value = row.get(target)
        if text_of(value).strip():
            try:
                calls = calls_in(parse_json(value) if isinstance(value, str) else value)
                value = [{"name": call.name, "arguments": dict(call.arguments)} for call in calls]
                if fault := check(value):
                    raise ValueError(f"{quoted(value)} {fault}")
            except json.JSONDecodeError as error:
                what = f"{target}: {quoted(value)} is not JSON: {error.msg}; write the list of its calls"
                wrong.setdefault((target, what), []).append(line)
            except ValueError as error:
                wrong.setdefault((target, f"{target}: {error}"), []).append(line)
        made.append({**row, target: value} if target in row else dict(row))
    if wrong:
        raise ProblemsError(tuple(listed_problems(wrong, shown(path))))
    return made


def tools_json(tools: Sequence[Tool]) -> str:
    """Tools as the tools.json of a task, one a line."""
    each = [{**tool.as_dict(), "parameters": json.loads(tool.parameters)} for tool in tools]
    return "[\n" + ",\n".join(json.dumps(tool, ensure_ascii=False) for tool in each) + "\n]\n"
