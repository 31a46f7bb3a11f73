"""Tools that a prompt may call, with the texts that a search gives them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from agent.prompt.parts.kind import FileHead, PartKind, TaskParts, WrongPart
from agent.prompt.parts.kinds import part_kind
from agent.prompt.parts.part import Count, PromptPart, Row
from agent.safe_file import parse_json
from agent.shipped import Tool
from agent.strict import read_as

if TYPE_CHECKING:
    from agent.prompt.bound import BoundPrompt
    from agent.prompt.prompt_candidate import PromptCandidate
    from agent.prompt.tool_texts import ToolTexts
    from agent.types import Request, Task


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


@part_kind
class Calling(PartKind):
    name, words = "tool_texts", "tool texts"

    def shown(self, settings: ToolTexts, tools: Sequence[Tool]) -> dict[str, Any]:
        from agent.prompt.tool_texts import shown_texts

        return {self.name: shown_texts(settings, tools)}

    def texts(self, settings: ToolTexts) -> Iterable[str]:
        return settings.texts

    def features(self, settings: ToolTexts) -> dict[tuple[str, str], float]:
        return {("tool order", " ".join(settings.order)): 1.0, **{("tool text", text): 1.0 for text in settings.texts}}

    def why_rejected(self, prompt: PromptCandidate, task: Task) -> str:
        return prompt.tool_texts.why_other(task.tools) if prompt.tool_texts else ""

    def bind(self, prompt: PromptCandidate, shared: TaskParts) -> dict[str, Any]:
        from agent.prompt.tool_texts import with_texts

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
