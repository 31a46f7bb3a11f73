"""Agents that are functions of the running program, by name; a run in another process needs them given again."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import FunctionType
from typing import Any

from agent.errors import InputError
from agent.scoring.task_metrics import RegisteredFunction, digest_of
from agent.types import Task

AgentFunction = Callable[..., Any]
"""(texts, row, model) -> answer, sync or async."""
_NAME = re.compile(r"[A-Za-z_]\w{0,79}")


_REGISTERED: dict[str, RegisteredFunction] = {}


def register_agent(function: AgentFunction, name: str = "") -> RegisteredFunction:
    """Register a function as an agent of this process. Raises InputError."""
    if not isinstance(function, FunctionType):
        raise InputError(f"agent {function!r:.80}: write a function, def run(texts, row, model), sync or async")
    name = name or ("agent" if function.__name__ == "<lambda>" else function.__name__)
    taken, least = function.__code__.co_argcount, function.__code__.co_argcount - len(function.__defaults__ or ())
    if not _NAME.fullmatch(name) or not least <= 3 <= taken:
        raise InputError(f"agent {name}: takes {taken} arguments; write def {name}(texts, row, model)")
    _REGISTERED[name] = RegisteredFunction(name, function, digest_of(function))
    return _REGISTERED[name]


def require_agent(task: Task, otherwise: str) -> RegisteredFunction:
    """Return the function that is a task's agent. Raises InputError, which says to do `otherwise`."""
    name = task.rollouts.function if task.rollouts is not None else ""
    if (known := _REGISTERED.get(name)) is None:
        raise InputError(f"{task.name}: its agent {name} is a Python function, which this program lacks; {otherwise}")
    return known


def registered_agent(name: str) -> RegisteredFunction | None:
    """Return the agent of that name, if this process has it."""
    return _REGISTERED.get(name)
