"""A user's agent: the functions of this process by name, the model that one may ask, its answer, and how it failed.

`main` is the child process that runs a function of a Python file. It loads the file once, then answers a row a line.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

from agent.errors import InputError, one_line
from agent.programs.own_file import module_of, plain, why_broken
from agent.safe_data import parse_data
from agent.safe_text import quoted
from agent.scoring.task_metrics import RegisteredFunction, digest_of, line_in
from agent.types import Task

MOST_ANSWER = 1_000_000
"""Characters of an answer as JSON, and bytes that a command may print."""
MOST_NOTES = 20_000
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


def registered_agent(name: str) -> RegisteredFunction | None:
    """Return the agent of that name, if this process has it."""
    return _REGISTERED.get(name)


def require_agent(task: Task, otherwise: str) -> RegisteredFunction:
    """Return the function that is a task's agent. Raises InputError, which says to do `otherwise`."""
    name = task.rollouts.function if task.rollouts is not None else ""
    if (known := registered_agent(name)) is None:
        raise InputError(f"{task.name}: its agent {name} is a Python function, which this program lacks; {otherwise}")
    return known


@dataclass(frozen=True, slots=True)
class AgentModel:
    """The model that an agent asks: the base `url` of OpenAI clients, its `key`, and the model's `name`."""

    url: str
    key: str
    name: str

    @property
    def anthropic_url(self) -> str:
        """The base URL of Anthropic clients."""
        return self.url.removesuffix("/v1")

    @property
    def environment(self) -> dict[str, str]:
        """Variables from which the SDKs read address and key."""
        urls = {"OPENAI_BASE_URL": self.url, "ANTHROPIC_BASE_URL": self.anthropic_url}
        return {**urls, "OPENAI_API_KEY": self.key, "ANTHROPIC_API_KEY": self.key}


class AgentFault(Exception):
    """What an agent did wrong, in words that follow "the agent"; `is_late`: it passed its time limit."""

    def __init__(self, what: str, is_late: bool = False) -> None:
        super().__init__(what)
        self.is_late = is_late

    @staticmethod
    def late(seconds: float) -> AgentFault:
        return AgentFault(f"took longer than {seconds:g} s", is_late=True)


@dataclass(frozen=True, slots=True)
class Rollout:
    """Return an answer with notes for the optimizer, and a score of your own.

    Args:
        answer: The outputs of the task, as a bare return value.
        notes: What happened, for the model that improves the texts.
        score: From 0 to 1.
    """

    answer: Any
    notes: str = ""
    score: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.notes, str):
            raise ValueError(f"notes {quoted(self.notes)} are not a text")
        try:
            score = None if self.score is None else float(self.score)
        except (TypeError, ValueError):
            score = -1.0
        if score is not None and not 0 <= score <= 1:
            raise ValueError(f"score {quoted(self.score)} is not a number from 0 to 1")
        object.__setattr__(self, "score", score)


def written(value: Any) -> str:
    """Return what an agent returned as JSON on one line. Raises AgentFault."""
    made = value if isinstance(value, Rollout) else Rollout(value)
    try:
        data = {"answer": plain(made.answer), "notes": made.notes[:MOST_NOTES], "score": made.score}
        text = json.dumps(data, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as problem:
        raise AgentFault(f"gave an answer that is not JSON: {one_line(problem)}") from problem
    if len(text) > MOST_ANSWER + MOST_NOTES:
        raise AgentFault(f"gave an answer of {len(text):,} characters; at most {MOST_ANSWER:,} are read")
    return text


def read(text: str) -> Rollout:
    """Read `{"answer": ..., "notes": ..., "score": ...}`, alone or as the last line. Raises AgentFault."""
    try:
        data = parse_data(text)
        if isinstance(data, dict) and "answer" in data:
            return Rollout(data["answer"], data.get("notes", ""), data.get("score"))
        reason = 'it is not {"answer": ...}'
    except ValueError as problem:
        reason = str(problem)
    if "\n" in text:
        return read(text.rpartition("\n")[2])
    raise AgentFault(f"gave an answer that cannot be read ({reason}): {quoted(text)}")


def raised(problem: BaseException, file: str) -> str:
    """Describe an exception of the agent, with the last line of its file."""
    while isinstance(problem, BaseExceptionGroup):
        problem = problem.exceptions[0]
    line = line_in(file, problem)
    return f"raised {one_line(problem)}" + (f" ({Path(file).name}:{line})" if line else "")


# -- the child process -------------------------------------------------------------------------------------------------


def main() -> None:
    """Write lines of JSON, `[kind, text]`: `ready` or `broken`, then `answer` or `fault` by row."""
    pipe_in, pipe_out = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)

    def tell(kind: str, text: str) -> None:
        pipe_out.write(json.dumps([kind, text]) + "\n")
        pipe_out.flush()

    path, name = json.loads(pipe_in.readline())
    sys.path.insert(0, str(Path(path).parent))
    try:
        function = getattr(module_of(Path(path)), name)
    except Exception as problem:
        tell("broken", why_broken(Path(path), problem))
        return
    tell("ready", "")
    with asyncio.Runner() as runner:
        for line in pipe_in:
            texts, row, model = json.loads(line)
            os.environ.update(AgentModel(*model).environment)
            try:
                value = function(texts, row, AgentModel(*model))  # outside of the loop, as it may run one
                tell("answer", written(runner.run(_awaited(value)) if inspect.isawaitable(value) else value))
            except AgentFault as fault:
                tell("fault", str(fault))
            except (Exception, asyncio.CancelledError) as problem:  # SystemExit ends the process
                tell("fault", raised(problem, path))


async def _awaited(value: Any) -> Any:
    return await value
