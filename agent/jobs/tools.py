"""`optimize tools`: import tools as the tools.json of a task."""

from __future__ import annotations

from pathlib import Path

from agent.errors import InputError
from agent.jobs.registry import job
from agent.jobs.tool_sources import tools_in_file, tools_of_server, write_tools
from agent.options.kinds import File, Texts
from agent.options.option import option
from agent.results.rows import ListedTool, ToolsResult


@job("tools", typed=("env",))
def tools(
    file: Path | None = None,
    *,
    mcp: str | None = option(
        None, "An MCP server that speaks over stdio, as it is started in a shell.", metavar="COMMAND"
    ),
    env: Texts = option(
        (), "A variable of the environment that the server gets, too; may be given several times.", metavar="NAME"
    ),
    output: File = option(None, "Write the tools there, as OpenAI takes them.", short="-o"),
) -> ToolsResult:
    """List the tools in FILE, or of an MCP server, and write them for a task.

    FILE is JSON: a list of tools in the format of OpenAI or Anthropic, the result of MCP's tools/list, or an OpenAPI 3
    document, whose operations become tools. FILE.py:NAME,... names functions of a Python file, which is run: their
    types and docstrings become schemas and descriptions. With --mcp the command is run, asked for its tools, and ended
    within a minute; use only a server that you trust. It gets PATH, HOME, LANG and TMPDIR of the environment, and what
    --env names. A task names the written file: tools = "tools.json".
    """
    if (file is None) == (mcp is None):
        raise InputError("give a FILE, or --mcp with the command of a server")
    if env and mcp is None:
        raise InputError("--env is for the server of --mcp; leave it out")
    found = tools_in_file(file) if file is not None else tools_of_server(mcp or "", names=env)
    if output is not None:
        write_tools(found, output)
    listed = tuple(ListedTool(**tool.as_dict()) for tool in found)
    return ToolsResult(tools=listed, file=str(output) if output else None)
