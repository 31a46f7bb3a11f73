"""What a system hands back: a prompt that can be scored through the system's own rendering, and how it came there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from agent.prompt.template import fill_messages
from agent.types import Example, Message, Request, Task
from tests.bench.arena.client import ask
from tests.bench.arena.data import TEXT_TOKENS, scorer

REPLY_TOKENS = 32
"""Room for a reply to a prompt that names no cap of its own: about three times the longest label."""


def most_examples(task: Task, default: int) -> int:
    """How many demos a peer may show that shows `default` at most; a set NAME:N allows N."""
    limit = task.constraints.max_examples
    return default if limit is None else min(default, limit)


def reply_tokens(task: Task, label_tokens: int) -> int:
    """Room for a reply through a peer's own layout: `label_tokens` for a label, else enough for reasons or a text."""
    return label_tokens if scorer(task).answers == "label" else TEXT_TOKENS


class Prompt(Protocol):
    """Whatever can be scored. Equal keys mean equal prompts, which are scored once."""

    @property
    def key(self) -> str: ...

    def replies(self, url: str, role: str, rows: Sequence[Example]) -> list[str]:
        """The reply on each row, bought at `url` under `role`; "" where none came or it could not be read."""
        ...


@dataclass(frozen=True, slots=True)
class Step:
    """The incumbent after `calls` calls of search."""

    calls: int
    prompt: Prompt


@dataclass(frozen=True, slots=True)
class Found:
    """What a search ended with. `sealed` counts what went into its own test, not the search: calls and tokens
    by the names that the server gives them."""

    prompt: Prompt
    steps: tuple[Step, ...] = ()
    note: str = ""
    sealed: dict[str, int] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TemplatePrompt:
    """Chat messages with `{{field}}` marks. `known` holds replies that were bought before, by row id."""

    key: str
    messages: tuple[Message, ...]
    max_tokens: int = REPLY_TOKENS
    known: dict[str, str] = field(default_factory=dict, compare=False)

    def replies(self, url: str, role: str, rows: Sequence[Example]) -> list[str]:
        new = [row for row in rows if row.id not in self.known]
        requests = [Request(fill_messages(self.messages, row.inputs), self.max_tokens) for row in new]
        bought = dict(zip((row.id for row in new), ask(url, role, requests), strict=True))
        return [self.known.get(row.id, bought.get(row.id, "")) for row in rows]
