"""What passes between a run and a user's agent: the model that it may ask, its answer, and how it failed."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from agent.errors import one_line
from agent.safe_data import parse_data
from agent.safe_text import quoted
from agent.scoring.task_metrics import line_in
from agent.types import canonical

MOST_ANSWER = 1_000_000
"""Characters of an answer as JSON, and bytes that a command may print."""
MOST_NOTES = 20_000
MOST_STDERR = 2_000
"""Bytes of the end of stderr that a message shows."""
MOST_FAULT = 2_500
START_SECONDS = 60.0
"""Time limit of loading a Python file with its imports."""
GRACE_SECONDS = 2.0
"""How long an ended agent may take to clean up."""
MOST_LEFT = 8
"""Calls of a function of this process that passed their time limit and still run."""


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
        return {
            "OPENAI_BASE_URL": self.url,
            "OPENAI_API_KEY": self.key,
            "ANTHROPIC_BASE_URL": self.anthropic_url,
            "ANTHROPIC_API_KEY": self.key,
        }


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
    """Read `{"answer": ..., "notes": ..., "score": ...}`. Raises AgentFault."""
    try:
        data = parse_data(text)
        if isinstance(data, dict) and "answer" in data:
            return Rollout(data["answer"], data.get("notes", ""), data.get("score"))
        reason = 'it is not {"answer": ...}'
    except ValueError as problem:
        reason = str(problem)
    raise AgentFault(f"gave an answer that cannot be read ({reason}): {quoted(text)}")


def raised(problem: BaseException, file: str) -> str:
    """Describe an exception of the agent, with the last line of its file."""
    while isinstance(problem, BaseExceptionGroup):
        problem = problem.exceptions[0]
    line = line_in(file, problem)
    return f"raised {one_line(problem)}" + (f" ({Path(file).name}:{line})" if line else "")


def plain(value: Any) -> Any:
    """Convert a typed output to JSON: models and dataclasses to objects, Enum members to values.

    >>> plain({"b", "a"})
    ['a', 'b']
    """
    models: Any = getattr(sys.modules.get("pydantic"), "BaseModel", ())  # not loaded: no value is such a model
    if isinstance(value, models):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(plain, value), key=canonical)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
