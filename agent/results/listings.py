"""The results of commands that list what there is."""

from __future__ import annotations

from agent.results.base import Result


class ListedTool(Result):
    """A tool that a model may call. `parameters`: the JSON Schema of its arguments, as a text."""

    name: str
    description: str
    parameters: str


class ToolsResult(Result):
    """The tools of a file or a server, and the file that they were written to."""

    tools: tuple[ListedTool, ...]
    file: str | None
