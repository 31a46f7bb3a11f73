"""The tools of an MCP server, an OpenAPI document or another tool's file, as the tools.json of a task."""

from __future__ import annotations

import json
import os
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from agent.errors import InputError
from agent.models.tool_calling import openai_tools
from agent.safe_data import MOST_TOOLS, parse_json
from agent.safe_file import decoded, disk_errors, new_file, read_bytes
from agent.safe_text import shown
from agent.task.tool_functions import tool_of_function
from agent.task.tools import FUNCTIONS, read_tools, tools_of_functions
from agent.types import Tool

SECONDS = 60.0
"""Time limit for all answers of a server together."""
LEAVE_SECONDS = 2.0
"""Time for a server to end once its input is closed."""
PASSED = ("PATH", "HOME", "LANG", "TMPDIR")
"""Environment variables that a server gets: where programs are, and where it may store files."""
MOST_PAGES = 50
MOST_LINE = 4_000_000
MOST_BYTES = 20_000_000
"""Limit of a server's output."""
MOST_CURSOR = 1_000
"""Characters: a request fits into the pipe, so that a server that reads nothing blocks nobody."""
READ_BYTES = 1 << 16
OTHERS = {
    ".py": "which functions? write FILE.py:NAME,...",
    ".yaml": "YAML is not read; convert it to JSON",
    ".yml": "YAML is not read; convert it to JSON",
}
"""What to do with a file that is not JSON, by file extension."""
VERSION = "2025-06-18"
"""Of the protocol; a server with an older one says so, and lists its tools all the same."""


def tools_in_file(path: Path) -> tuple[Tool, ...]:
    """Return the tools in a JSON file, or functions of FILE.py:NAME,... as tools. Raises InputError."""
    if functions := FUNCTIONS.fullmatch(str(path)):
        where = Path(functions["file"])
        read_bytes(where)
        return _whole(tools_of_functions(where, functions["names"]), shown(where))
    if fix := OTHERS.get(path.suffix.lower()):
        raise InputError(f"{shown(path)}: {fix}")
    try:
        value = parse_json(decoded(read_bytes(path), shown(path)))
    except ValueError as error:
        raise InputError(f"{shown(path)}:1: is not JSON: {error}") from None
    return _whole(value, shown(path))


GivenTool = Tool | Callable[..., Any] | Mapping[str, Any]
"""A tool, a Python function, or a tool in the JSON of OpenAI, Anthropic or MCP."""


def given_tools(given: Sequence[GivenTool]) -> tuple[tuple[Tool, ...], list[str]]:
    """Return the tools that a Python program gives, and all their problems. Calls no function."""
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


def tools_of_server(command: str, seconds: float = SECONDS, names: Sequence[str] = ()) -> tuple[Tool, ...]:
    """Start an MCP server by `command` (without a shell), list its tools and end it. Raises InputError.

    `names` are environment variables that it gets in addition to `PASSED`.
    Source: Model Context Protocol, revision 2025-06-18 ("Lifecycle", "Tools").
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(f"--mcp {command!r}: {error}") from None
    if not words:
        raise InputError("--mcp: no command; write how the server is started, such as 'python server.py'")
    with _Server(words, seconds, names) as server:
        client = {"name": "promptassay", "version": "0"}
        server.ask("initialize", {"protocolVersion": VERSION, "capabilities": {}, "clientInfo": client})
        server.tell("notifications/initialized")
        tools: list[Any] = []
        cursor: dict[str, str] = {}
        for _ in range(MOST_PAGES):
            page = server.ask("tools/list", cursor)
            found = page.get("tools")
            tools += found if isinstance(found, list) else []
            if not isinstance(page.get("nextCursor"), str) or len(tools) > MOST_TOOLS:
                break
            if len(page["nextCursor"]) > MOST_CURSOR:
                raise InputError(f"{words[0]}: nextCursor has more than {MOST_CURSOR:,} characters")
            cursor = {"cursor": page["nextCursor"]}
    return _whole(tools, words[0])


def write_tools(tools: Sequence[GivenTool], path: str | Path) -> Path:
    """Write tools in OpenAI's format, one per line: the `tools.json` of a task.

    Args:
        tools: Python functions, or tools as JSON. The types of a function's parameters become the schema of its
            arguments, its docstring their descriptions; it is not called.
        path: of the file, such as "tasks/house/tools.json".

    Returns:
        The path.

    Raises:
        InputError: a function has a parameter whose type JSON lacks, or the disk refuses.
    """
    found, wrong = given_tools(tools)
    if wrong:
        raise InputError("\n".join(f"tools: {what}" for what in wrong))
    lines = ",\n".join(f"  {json.dumps(each, ensure_ascii=False)}" for each in openai_tools(found))
    with disk_errors(f"{shown(Path(path))}: cannot be written", kind=InputError), new_file(Path(path)) as file:
        file.write(f"[\n{lines}\n]\n".encode("utf-8", "replace"))
    return Path(path)


def _whole(value: Any, where: str) -> tuple[Tool, ...]:
    tools, wrong = read_tools(value)
    if wrong:
        raise InputError("\n".join(f"{where}: {what}" for what in wrong))
    return tools


class _Server:
    def __init__(self, words: Sequence[str], seconds: float, names: Sequence[str]) -> None:
        if missing := [name for name in names if name not in os.environ]:
            raise InputError(f"--env {missing[0]}: is not set; set it, or leave it out")
        passed = {name: os.environ[name] for name in (*PASSED, *names) if name in os.environ}
        self._name, self._seconds, self._until = words[0], seconds, time.monotonic() + seconds
        try:
            self._process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=passed, start_new_session=True
            )
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise InputError(f"{words[0]}: cannot be started ({why})") from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._read, self._total, self._number = bytearray(), 0, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # what could not be sent to a server that is gone is sent again when it is closed
            self._stdin.close()
        until = time.monotonic() + LEAVE_SECONDS
        while not self._has_ended() and time.monotonic() < until:
            time.sleep(0.02)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._stdout.close()

    def tell(self, method: str, params: Mapping[str, Any] | None = None, **more: int) -> None:
        given = {} if params is None else {"params": params}
        try:
            self._stdin.write(json.dumps({"jsonrpc": "2.0", **more, "method": method, **given}).encode() + b"\n")
            self._stdin.flush()
        except OSError:
            raise self._fault(method, f"ended before it was asked for {method}") from None

    def ask(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        self._number += 1
        self.tell(method, params, id=self._number)
        while True:
            answer = _object(self._message(method))
            # a notification, or the server's own request, whose id may be like ours, has a method
            if "method" not in answer and answer.get("id") == self._number:
                break
        if "result" not in answer:
            raise InputError(f"{self._name}: refuses {method}: {str(answer.get('error'))[:300]}")
        return _object(answer["result"])

    def _message(self, method: str) -> Any:
        while (end := self._read.find(b"\n", 0, MOST_LINE)) < 0:
            if len(self._read) >= MOST_LINE:
                raise self._fault(method, f"wrote a line of more than {MOST_LINE:,} bytes before it answered {method}")
            ready, _, _ = select.select([self._stdout], [], [], max(0.0, self._until - time.monotonic()))
            data = os.read(self._stdout.fileno(), READ_BYTES) if ready else b""
            if not data:
                raise self._fault(method, f"ended before it answered {method}")
            self._read += data
            self._total += len(data)
            if self._total > MOST_BYTES:
                raise self._fault(method, f"wrote more than {MOST_BYTES:,} bytes before it answered {method}")
        if time.monotonic() >= self._until:
            raise self._fault(method, "")
        line = bytes(self._read[:end])
        del self._read[: end + 1]
        try:
            return parse_json(line)
        except ValueError:
            raise InputError(f"{self._name}: wrote a line that is no JSON-RPC message: {line[:100]!r}") from None

    def _fault(self, method: str, what: str) -> InputError:
        if time.monotonic() >= self._until:
            what = f"no answer to {method} in {self._seconds:g} s; is it an MCP server over stdio?"
        return InputError(f"{self._name}: {what}")

    def _has_ended(self) -> bool:
        # not yet reaped, so its id stays that of its group
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
