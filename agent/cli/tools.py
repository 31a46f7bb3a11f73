"""`optimize tools`: tools from elsewhere as the tools.json of a task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.common import PATH, SETTINGS, json_option, print_result

if TYPE_CHECKING:
    pass


@click.command(context_settings=SETTINGS)
@click.argument("file", type=PATH, required=False)
@click.option("--mcp", metavar="COMMAND", help="An MCP server that speaks over stdio, as it is started in a shell.")
@click.option(
    "--env",
    "names",
    multiple=True,
    metavar="NAME",
    allow_from_autoenv=False,
    help="A variable of the environment that the server gets, too; may be given several times.",
)
@click.option("-o", "--output", type=PATH, help="Write the tools there, as OpenAI takes them.")
@json_option
def tools_command(
    file: Path | None, mcp: str | None, names: tuple[str, ...], output: Path | None, as_json: bool
) -> None:
    """List the tools in FILE, or of an MCP server, and write them for a task.

    FILE is JSON: a list of tools as OpenAI or Anthropic take it, the result of MCP's tools/list, or an OpenAPI document
    of version 3, whose operations become tools. FILE.py:NAME,... names functions of a Python file, which is run: types
    and docstring of each become its schema and descriptions. With --mcp the command is run, asked for its tools, and
    ended within a minute; give only a server that you would run yourself. It gets PATH, HOME, LANG and TMPDIR of the
    environment, and what --env names. A task names the file that is written: tools = "tools.json".
    """
    from agent.results.listings import ListedTool, ToolsResult
    from agent.run.tool_sources import tools_in_file, tools_of_server, write_tools

    if (file is None) == (mcp is None):
        raise click.UsageError("give a FILE, or --mcp with the command of a server")
    if names and mcp is None:
        raise click.UsageError("--env is for the server of --mcp; leave it out")
    tools = tools_in_file(file) if file is not None else tools_of_server(mcp or "", names=names)
    if output is not None:
        write_tools(tools, output)
    listed = tuple(ListedTool(**tool.as_dict()) for tool in tools)
    print_result(ToolsResult(tools=listed, file=str(output) if output else None), as_json)
