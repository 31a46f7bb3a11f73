"""The tools of an MCP server, of an OpenAPI document or of another tool's file, as the tools.json of a task."""

from __future__ import annotations

import json
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, Queue
from typing import IO, Any

from agent.errors import InputError, ProblemsError
from agent.files import new_file
from agent.models.tool_calling import openai_tools
from agent.strict import parse_json
from agent.task.input_files import decode, read_bytes
from agent.task.tool_file import tools_of_functions
from agent.task.tool_functions import tool_of_function
from agent.task.tool_source import FUNCTIONS
from agent.task.tools import read_tools
from agent.task.words import shown
from agent.types import Tool

SECONDS = 30.0
"""For each answer of a server."""
MOST_PAGES = 100
MOST_LINE = 4_000_000
OTHERS = {
    ".py": "which functions? write FILE.py:NAME,...",
    ".yaml": "YAML is not read; convert it to JSON",
    ".yml": "YAML is not read; convert it to JSON",
}
"""What to do with a file that is no JSON, by the end of its name."""
VERSION = "2025-06-18"
"""Of the protocol; a server that speaks an older one says so, and lists its tools all the same."""


def tools_in_file(path: Path) -> tuple[Tool, ...]:
    """The tools in a JSON file, or those of FILE.py:NAME,...: functions of a Python file. Raises InputError with all
    that is wrong with it."""
    if functions := FUNCTIONS.fullmatch(str(path)):
        where = Path(functions["file"])
        read_bytes(where)
        found, wrong = tools_of_functions(where, functions["names"])
        if wrong:
            raise ProblemsError(tuple(wrong))
        return _whole(found, shown(where))
    if fix := OTHERS.get(path.suffix.lower()):
        raise InputError(f"{shown(path)}: {fix}")
    try:
        lines, problems = decode(read_bytes(path), shown(path))
        if problems:
            raise ProblemsError(tuple(problems))
        value = parse_json("\n".join(line or "" for line in lines))
    except ValueError as error:
        raise InputError(f"{shown(path)}:1: is not JSON: {error}") from None
    return _whole(value, shown(path))


GivenTool = Tool | Callable[..., Any] | Mapping[str, Any]
"""A tool, a function of Python, or a tool in JSON as OpenAI, Anthropic or MCP write it."""


def given_tools(given: Sequence[GivenTool]) -> tuple[tuple[Tool, ...], list[str]]:
    """The tools that a Python program gives, and all that is wrong with them. No function is called."""
    found, wrong = list[Any](), list[str]()
    for each in given:
        if isinstance(each, Tool):
            each = {**each.as_dict(), "parameters": json.loads(each.parameters)}
        elif callable(each):
            try:
                each = tool_of_function(each)
            except ValueError as error:
                wrong.append(str(error))
                continue
        found.append(each)
    if not found:
        return (), wrong or ["no tools; give at least one"]
    tools, more = read_tools(found)
    return tools, wrong + more


def tools_of_server(command: str, seconds: float = SECONDS) -> tuple[Tool, ...]:
    """The tools of an MCP server that is started by `command`, speaks over its standard input and output, and is ended
    again. Its own words on standard error are shown.

    Args:
        command: As typed in a shell; no shell runs it.
        seconds: The longest wait for an answer.

    Raises:
        InputError: It cannot be started, does not answer, or its tools cannot be used.

    Source: Model Context Protocol, revision 2025-06-18 ("Lifecycle", "Tools").
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(f"--mcp {command!r}: {error}") from None
    if not words:
        raise InputError("--mcp: no command; write how the server is started, such as 'python server.py'")
    with _server(words, seconds) as ask:
        client = {"name": "promptassay", "version": "0"}
        ask("initialize", {"protocolVersion": VERSION, "capabilities": {}, "clientInfo": client})
        ask("notifications/initialized", None)
        tools: list[Any] = []
        cursor: dict[str, str] = {}
        for _ in range(MOST_PAGES):
            page = ask("tools/list", cursor)
            found = page.get("tools")
            tools += found if isinstance(found, list) else []
            if not isinstance(page.get("nextCursor"), str):
                break
            cursor = {"cursor": page["nextCursor"]}
    return _whole(tools, words[0])


def write_tools(tools: Sequence[GivenTool], path: str | Path) -> Path:
    """Writes tools as OpenAI takes them, one a line: the `tools.json` of a task.

    Args:
        tools: functions of Python, or tools as JSON. The types of a function's parameters become the schema of its
            arguments, its docstring their descriptions; it is not called.
        path: of the file, such as "tasks/house/tools.json".

    Returns:
        The path.

    Raises:
        InputError: a function has a parameter without a type that JSON has, or the disk refuses.
    """
    found, wrong = given_tools(tools)
    if wrong:
        raise InputError("\n".join(f"tools: {what}" for what in wrong))
    lines = ",\n".join(f"  {json.dumps(each, ensure_ascii=False)}" for each in openai_tools(found))
    try:
        with new_file(Path(path)) as file:
            file.write(f"[\n{lines}\n]\n".encode("utf-8", "replace"))
    except OSError as error:
        raise InputError(f"{shown(Path(path))}: cannot be written ({error.strerror or error})") from error
    return Path(path)


def _whole(value: Any, where: str) -> tuple[Tool, ...]:
    tools, wrong = read_tools(value)
    if wrong:
        raise InputError("\n".join(f"{where}: {what}" for what in wrong))
    return tools


@contextmanager
def _server(words: Sequence[str], seconds: float) -> Iterator[Any]:
    """A running server, as a function that sends a message and gives the result; a notification gets none."""
    try:
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    except OSError as error:
        raise InputError(f"{words[0]}: cannot be started ({error.strerror or error})") from error
    stdin, stdout = process.stdin, process.stdout
    assert stdin is not None
    assert stdout is not None
    lines: Queue[bytes] = Queue()
    threading.Thread(target=_read, args=(stdout, lines), daemon=True).start()
    number = 0

    def ask(method: str, params: dict[str, Any] | None) -> dict[str, Any]:
        nonlocal number
        is_call = not method.startswith("notifications/")
        number += is_call
        ids = {"id": number} if is_call else {}
        message = {"jsonrpc": "2.0", **ids, "method": method, **({} if params is None else {"params": params})}
        try:
            stdin.write(json.dumps(message).encode() + b"\n")
            stdin.flush()
        except OSError:
            raise InputError(f"{words[0]}: ended before it was asked for {method}") from None
        until = time.monotonic() + seconds
        while is_call:
            answer = _object(_next(lines, words[0], method, (seconds, until)))
            if "method" in answer:  # a notification, or the server's own request, whose id may be like ours
                continue
            if answer.get("id") == number:
                if "result" not in answer:
                    raise InputError(f"{words[0]}: refuses {method}: {str(answer.get('error'))[:300]}")
                return _object(answer["result"])
        return {}

    try:
        yield ask
    finally:
        with suppress(OSError):  # what could not be sent to a server that is gone is sent again when it is closed
            stdin.close()
        try:
            process.wait(2.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _read(stream: IO[bytes], lines: Queue[bytes]) -> None:
    """Puts each line into the queue; the last one is the one without an end, b"" or too long."""
    while (line := stream.readline(MOST_LINE)).endswith(b"\n"):
        lines.put(line)
    lines.put(line)


def _next(lines: Queue[bytes], name: str, method: str, patience: tuple[float, float]) -> Any:
    """The next message of the server. `patience`: seconds in all, and the moment of the monotonic clock at which they
    are over."""
    seconds, until = patience
    try:
        line = lines.get(timeout=max(0.0, until - time.monotonic()))
    except Empty:
        raise InputError(f"{name}: no answer to {method} in {seconds:g} s; is it an MCP server over stdio?") from None
    if not line.endswith(b"\n"):
        why = f"wrote a line of more than {MOST_LINE:,} bytes" if len(line) == MOST_LINE else "ended"
        raise InputError(f"{name}: {why} before it answered {method}")
    try:
        return parse_json(line)
    except ValueError:
        raise InputError(f"{name}: wrote a line that is no JSON-RPC message: {line[:100]!r}") from None


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
