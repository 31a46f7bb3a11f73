"""The part `today`: the date of today after the last message."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.prompt.parts.kinds import part
from agent.prompt.parts.part import Count, PromptPart, Row
from agent.shipped import Message
from agent.types import Task


def today(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """The messages with the date of today after the last one."""
    from datetime import date

    last = messages[-1]
    return [*messages[:-1], {**last, "content": f"{last['content']}\n\nToday is {date.today():%d %B %Y}."}]


@part
@dataclass(frozen=True, slots=True)
class Today(PromptPart):
    name = "today"

    def messages(self, messages: tuple[Message, ...], row: Row) -> tuple[Message, ...]:
        return tuple(Message(**each) for each in today([message.as_dict() for message in messages]))

    def size(self, count: Count, rows: Sequence[Row], most: bool) -> int:
        return count("Today is 30 September 2026.")

    def source(self) -> str:
        return inspect.getsource(today)

    def data(self) -> dict[str, Any]:
        return {self.name: {}}

    @staticmethod
    def choices(task: Task) -> Mapping[str, PromptPart]:
        return {"yes": Today()} if "today" in task.instruction else {}

    def __str__(self) -> str:
        return "with the date of today"
