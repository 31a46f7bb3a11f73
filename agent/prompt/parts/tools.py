"""Tools that a prompt may call: what runs, and the order and texts that a search gives them.

Names and schemas stay those of the task. Only what differs from the task's own texts is kept, so that equal texts are
equal values.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from agent.prompt.parts.kinds import FileHead, PartKind, TaskParts, WrongPart, part
from agent.prompt.parts.part import Count, PromptPart, Row
from agent.safe_data import parse_json, read_as
from agent.shipped import Tool

if TYPE_CHECKING:
    from agent.prompt.prompt_candidate import PromptCandidate
    from agent.types import Request, Task


@dataclass(frozen=True, slots=True)
class ToolTexts:
    """Texts that replace those of a task's tools.

    `order`: the names of all tools; () for the order of the task. `texts`: tool, argument ("" for the description of
    the tool) and text ("" for an argument without one).
    """

    part: ClassVar[str] = "tool_texts"

    order: tuple[str, ...] = ()
    texts: tuple[tuple[str, str, str], ...] = ()

    @staticmethod
    def between(own: Sequence[Tool], new: Sequence[Tool]) -> ToolTexts | None:
        """Return the difference between two sets of tools; None if equal."""
        before = {tool.name: _texts_of(tool) for tool in own}
        ordered = tuple(tool.name for tool in new)
        made = ToolTexts(
            () if ordered == tuple(before) else ordered,
            tuple(
                (tool.name, name, text)
                for tool in sorted(new, key=lambda tool: tool.name)
                for name, text in sorted(_texts_of(tool).items())
                if text != before[tool.name][name]
            ),
        )
        return None if made == ToolTexts() else made

    @staticmethod
    def of(data: Mapping[str, Any]) -> ToolTexts:
        """Parse the output of `as_dict`."""
        texts = [(tool, "", text) for tool, text in data["descriptions"].items()]
        texts += [(tool, name, text) for tool, named in data["arguments"].items() for name, text in named.items()]
        return ToolTexts(tuple(data["order"]), tuple(sorted(texts)))

    def as_dict(self) -> dict[str, Any]:
        """Return the parts, JSON-ready."""
        arguments: dict[str, dict[str, str]] = {}
        for tool, name, text in self.texts:
            if name:
                arguments.setdefault(tool, {})[name] = text
        descriptions = {tool: text for tool, name, text in self.texts if not name}
        return {"order": list(self.order), "descriptions": descriptions, "arguments": arguments}

    def why_other(self, tools: Sequence[Tool]) -> str:
        """Return why these texts do not fit the tools, or ""."""
        known = {tool.name: _texts_of(tool) for tool in tools}
        if self.order and sorted(self.order) != sorted(known):
            return "orders other tools than the task has"
        if others := [tool for tool, _, _ in self.texts if tool not in known]:
            return f"describes a tool that the task does not have: {others[0]}"
        if lost := [name for tool, name, _ in self.texts if name not in known[tool]]:
            return f"describes an argument that no tool of the task has: {lost[0]}"
        return ""


@lru_cache(1024)
def with_texts(tools: tuple[Tool, ...], texts: ToolTexts | None) -> tuple[Tool, ...]:
    """Return the task's own tools with these texts, in this order."""
    if texts is None:
        return tools
    named = {tool.name: tool for tool in tools}
    for tool, name, text in texts.texts:
        named[tool] = with_argument(named[tool], name, text) if name else replace(named[tool], description=text)
    return tuple(named[name] for name in texts.order or named)


def _texts_of(tool: Tool) -> dict[str, str]:
    return {"": tool.description, **argument_texts(tool)}


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


def tool_changes(shown: Mapping[str, Any] | None) -> list[TextChange]:
    """Return the changes to the task's own texts, tool by tool. `shown`: from `shown_texts`, None without tools."""
    if not shown:
        return []
    own, new = ToolTexts.of(shown["own"]), ToolTexts.of(shown)
    before = {(tool, name): text for tool, name, text in own.texts}
    found = [TextChange(f"{tool}.{name}" if name else tool, before[tool, name], text) for tool, name, text in new.texts]
    return [*found, TextChange(ORDER, ", ".join(own.order), ", ".join(new.order))] if new.order else found


def as_text(shown: Mapping[str, Any]) -> str:
    """Serialize the output of `shown_texts` for the ledger, which stores equal texts once."""
    return json.dumps(shown, ensure_ascii=False)


def shown_texts(texts: ToolTexts, tools: Sequence[Tool]) -> dict[str, Any]:
    """Return the texts, JSON-ready, with the replaced ones under "own"."""
    named = {tool.name: _texts_of(tool) for tool in tools}
    own = ToolTexts(
        tuple(named) if texts.order else (),
        tuple((tool, name, named[tool].get(name, "")) for tool, name, _ in texts.texts if tool in named),
    )
    return {**texts.as_dict(), "own": own.as_dict()}


@dataclass(frozen=True, slots=True)
class ReleasedTools(PromptPart):
    """The tools that go with every request."""

    name = "tools"

    tools: tuple[Tool, ...] = ()

    def request(self, request: Request, row: Row) -> Request:
        return replace(request, tools=self.tools)

    def size(self, count: Count, rows: Sequence[Row], most: bool) -> int:
        return sum(count(text) for tool in self.tools for text in tool.as_dict().values())

    def data(self) -> dict[str, Any]:
        return {self.name: [tool.as_dict() for tool in self.tools]}


@part
class Calling(PartKind):
    name, words, settings = "tool_texts", "tool texts", ToolTexts

    def shown(self, settings: ToolTexts, tools: Sequence[Tool]) -> dict[str, Any]:
        return {self.name: shown_texts(settings, tools)}

    def texts(self, settings: ToolTexts) -> Iterable[str]:
        return (text for *_, text in settings.texts)

    def features(self, settings: ToolTexts) -> dict[tuple[str, str], float]:
        texts = {("tool text", text): 1.0 for *_, text in settings.texts}
        return {("tool order", " ".join(settings.order)): 1.0, **texts}

    def why_rejected(self, settings: ToolTexts, prompt: PromptCandidate, task: Task) -> str:
        most = task.space.descriptions_only
        if most is not None and settings.order:
            return "orders the tools, and only their descriptions may change"
        if most is not None and (long := [name for name, _, text in settings.texts if len(text) > most]):
            return f"describes {long[0]} with more than {most} characters"
        return settings.why_other(task.tools)

    def bind(self, settings: ToolTexts | None, prompt: PromptCandidate, shared: TaskParts) -> ReleasedTools:
        return ReleasedTools(with_texts(shared.task.tools, settings))

    def load(self, head: FileHead) -> ReleasedTools:
        tools: tuple[Tool, ...] = read_as(tuple[Tool, ...], head.data["tools"], "tools")
        for at, tool in enumerate(tools):
            with contextlib.suppress(ValueError):
                if isinstance(parse_json(tool.parameters), dict):
                    continue
            raise WrongPart("tools", f"tools[{at}].parameters must be a JSON object, not {tool.parameters!r:.60}")
        return ReleasedTools(tools)
