"""Tools that a prompt may call: what runs, and the order and texts that a search gives them.

Names and schemas stay those of the task. Only what differs from the task's own texts is kept, so that equal texts are
equal values.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from agent.prompt.parts.kind import FileHead, PartKind, TaskParts, WrongPart
from agent.prompt.parts.kinds import part
from agent.prompt.parts.part import Count, PromptPart, Row
from agent.safe_data import parse_json, read_as
from agent.shipped import Tool

if TYPE_CHECKING:
    from agent.prompt.bound import BoundPrompt
    from agent.prompt.prompt_candidate import PromptCandidate
    from agent.types import Request, Task


@dataclass(frozen=True, slots=True)
class ToolTexts:
    """Texts that replace those of a task's tools.

    Args:
        order: the names of all tools; () for the order of the task.
        descriptions: tool and description, by the names of tools.
        arguments: tool, argument and description, by their names; "" for an argument without one.
    """

    order: tuple[str, ...] = ()
    descriptions: tuple[tuple[str, str], ...] = ()
    arguments: tuple[tuple[str, str, str], ...] = ()

    @staticmethod
    def between(own: Sequence[Tool], new: Sequence[Tool]) -> ToolTexts | None:
        """Return the difference between two sets of tools with the same names; None if they are equal."""
        before = {tool.name: tool for tool in own}
        ordered = tuple(tool.name for tool in new)
        order = () if ordered == tuple(before) else ordered
        named = sorted(new, key=lambda tool: tool.name)
        descriptions = [(t.name, t.description) for t in named if t.description != before[t.name].description]
        arguments = [
            (tool.name, name, text)
            for tool in named
            for name, text in sorted(argument_texts(tool).items())
            if text != argument_texts(before[tool.name])[name]
        ]
        made = ToolTexts(order, tuple(descriptions), tuple(arguments))
        return None if made == ToolTexts() else made

    @staticmethod
    def of(data: Mapping[str, Any]) -> ToolTexts:
        """Parse the output of `as_dict`."""
        return ToolTexts(
            tuple(data["order"]),
            tuple(data["descriptions"].items()),
            tuple((tool, name, text) for tool, texts in data["arguments"].items() for name, text in texts.items()),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the parts, JSON-ready."""
        arguments: dict[str, dict[str, str]] = {}
        for tool, name, text in self.arguments:
            arguments.setdefault(tool, {})[name] = text
        return {"order": list(self.order), "descriptions": dict(self.descriptions), "arguments": arguments}

    @property
    def texts(self) -> Iterator[str]:
        """Every text that is no name."""
        yield from (text for _, text in self.descriptions)
        yield from (text for _, _, text in self.arguments)

    def why_other(self, tools: Sequence[Tool]) -> str:
        """Return why these texts do not fit the tools, or ""."""
        known = {tool.name: argument_texts(tool) for tool in tools}
        if self.order and sorted(self.order) != sorted(known):
            return "orders other tools than the task has"
        if others := [name for name, _ in self.descriptions if name not in known]:
            return f"describes a tool that the task does not have: {others[0]}"
        if lost := [name for tool, name, _ in self.arguments if name not in known.get(tool, {})]:
            return f"describes an argument that no tool of the task has: {lost[0]}"
        return ""


@lru_cache(1024)
def with_texts(tools: tuple[Tool, ...], texts: ToolTexts | None) -> tuple[Tool, ...]:
    """Return the task's own tools with these texts, in this order."""
    if texts is None:
        return tools
    named = {tool.name: tool for tool in tools}
    for name, text in texts.descriptions:
        named[name] = replace(named[name], description=text)
    for name, argument, text in texts.arguments:
        named[name] = with_argument(named[name], argument, text)
    return tuple(named[name] for name in texts.order or named)


def argument_texts(tool: Tool) -> dict[str, str]:
    """Return the description of each argument that can have one, or ""."""
    properties = json.loads(tool.parameters).get("properties")
    return {
        name: about if isinstance(about := schema.get("description", ""), str) else ""
        for name, schema in (properties.items() if isinstance(properties, dict) else ())
        if isinstance(schema, dict)
    }


def optional_arguments(tool: Tool) -> list[str]:
    """Return the names of the arguments that a call may leave out."""
    required = json.loads(tool.parameters).get("required") or ()
    return [name for name in argument_texts(tool) if name not in required]


def with_argument(tool: Tool, name: str, text: str) -> Tool:
    """Return the tool with another description of one of its arguments; "" removes it."""
    schema = json.loads(tool.parameters)
    schema["properties"][name].pop("description", None)
    if text:
        schema["properties"][name]["description"] = text
    return replace(tool, parameters=json.dumps(schema, ensure_ascii=False))


@dataclass(frozen=True, slots=True)
class TextChange:
    """One text of the tools that differs. `what`: TOOL, TOOL.ARGUMENT, or "order", whose text are the names."""

    what: str
    before: str
    after: str


ORDER = "order of the tools"


def tool_changes(shown: Mapping[str, Any]) -> list[TextChange]:
    """Return the changes to the task's own texts, tool by tool; `shown`: from `shown_texts`."""
    own, found = shown["own"], list[TextChange]()
    for tool in sorted({*shown["descriptions"], *shown["arguments"]}):
        if tool in shown["descriptions"]:
            found.append(TextChange(tool, own["descriptions"][tool], shown["descriptions"][tool]))
        for name, text in shown["arguments"].get(tool, {}).items():
            found.append(TextChange(f"{tool}.{name}", own["arguments"][tool][name], text))
    if shown["order"]:
        found.append(TextChange(ORDER, ", ".join(own["order"]), ", ".join(shown["order"])))
    return found


def as_text(shown: Mapping[str, Any]) -> str:
    """Serialize the output of `shown_texts` for the ledger, which stores equal texts once."""
    return json.dumps(shown, ensure_ascii=False)


def shown_texts(texts: ToolTexts, tools: Sequence[Tool]) -> dict[str, Any]:
    """Return the texts, JSON-ready, with the replaced ones under "own"."""
    named = {tool.name: tool for tool in tools}
    own = ToolTexts(
        tuple(named) if texts.order else (),
        tuple((name, named[name].description) for name, _ in texts.descriptions if name in named),
        tuple((t, name, argument_texts(named[t]).get(name, "")) for t, name, _ in texts.arguments if t in named),
    )
    return {**texts.as_dict(), "own": own.as_dict()}


@dataclass(frozen=True, slots=True)
class ReleasedTools(PromptPart):
    """The tools that go with every request."""

    name = "tools"

    tools: tuple[Tool, ...]

    def request(self, request: Request, row: Row) -> Request:
        return replace(request, tools=self.tools)

    def size(self, count: Count, rows: Sequence[Row], most: bool) -> int:
        return sum(count(text) for tool in self.tools for text in tool.as_dict().values())

    def data(self) -> dict[str, Any]:
        return {self.name: [tool.as_dict() for tool in self.tools]}


@part
class Calling(PartKind):
    name, words = "tool_texts", "tool texts"

    def shown(self, settings: ToolTexts, tools: Sequence[Tool]) -> dict[str, Any]:
        return {self.name: shown_texts(settings, tools)}

    def texts(self, settings: ToolTexts) -> Iterable[str]:
        return settings.texts

    def features(self, settings: ToolTexts) -> dict[tuple[str, str], float]:
        return {("tool order", " ".join(settings.order)): 1.0, **{("tool text", text): 1.0 for text in settings.texts}}

    def why_rejected(self, prompt: PromptCandidate, task: Task) -> str:
        return prompt.tool_texts.why_other(task.tools) if prompt.tool_texts else ""

    def bind(self, prompt: PromptCandidate, shared: TaskParts) -> dict[str, Any]:
        return {"tools": with_texts(shared.task.tools, prompt.tool_texts)}

    def load(self, head: FileHead) -> dict[str, Any]:
        tools: tuple[Tool, ...] = read_as(tuple[Tool, ...], head.data["tools"], "tools")
        for at, tool in enumerate(tools):
            if not _is_object(tool.parameters):
                what = f"tools[{at}].parameters must be a JSON object, not {tool.parameters!r:.60}"
                raise WrongPart("tools", what)
        return {"tools": tools}

    def parts(self, prompt: BoundPrompt) -> Iterable[PromptPart]:
        return (ReleasedTools(prompt.tools),)


def _is_object(text: str) -> bool:
    try:
        return isinstance(parse_json(text), dict)
    except ValueError:
        return False
