"""Tools from elsewhere: a real server of the Model Context Protocol in its own process, and files."""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path

import pytest

from agent.errors import InputError
from agent.jobs import tool_sources
from agent.jobs.tool_sources import MOST_LINE, tools_of_server
from agent.task.tools import read_tools
from tests.cli.world import good, good_json, refused

SERVER = """\
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    if asked["method"] == "initialize":
        assert asked["params"]["protocolVersion"]
        print(json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info"}}))
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "method": "roots/list"}))
        result = {"protocolVersion": "2024-11-05", "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}
    elif asked["method"] == "tools/list":
        second = asked["params"].get("cursor") == "two"
        name = "lamp_off" if second else "lamp_on"
        about = "A lamp.\\nwritten: x.json"
        tool = {"name": name, "description": about, "inputSchema": {"type": "object", "properties": {}}}
        result = {"tools": [tool], **({} if second else {"nextCursor": "two"})}
    else:
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"""


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not end by itself is not waited for."""
    monkeypatch.setattr(tool_sources, "LEAVE_SECONDS", 0.1)


def command(source: str) -> str:
    Path("server.py").write_text(source)
    return shlex.join([sys.executable, "server.py"])


def test_the_tools_of_a_server_become_a_file_that_a_task_reads() -> None:
    said = good("tools", "--mcp", command(SERVER), "-o", "tools.json")
    assert said.splitlines() == [
        "lamp_on: A lamp. written: x.json",
        "lamp_off: A lamp. written: x.json",
        'written: tools.json; in task.toml: tools = "tools.json"',
    ]
    tools, wrong = read_tools(json.loads(Path("tools.json").read_text()))
    assert ([tool.name for tool in tools], wrong) == (["lamp_on", "lamp_off"], [])
    assert [tool["name"] for tool in good_json("tools", "tools.json")["tools"]] == ["lamp_on", "lamp_off"]


CHATTY = """
import json, time
while True:
    print(json.dumps({"jsonrpc": "2.0", "method": "notifications/message"}), flush=True)
    time.sleep(0.05)
"""


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("", "ended before it answered initialize"),
        ("print('hello', flush=True); input(); input()", "wrote a line that is no JSON-RPC message: b'hello"),
        ("input(); import time; time.sleep(60)", "no answer to initialize in 0.5 s; is it an MCP server over stdio?"),
        (
            'input(); print(\'{"jsonrpc": "2.0", "id": 1, "error": {"code": -1}}\', flush=True); input()',
            "refuses initialize: {'code': -1}",
        ),
        (f"input(); print('x' * {MOST_LINE})", f"wrote a line of more than {MOST_LINE:,} bytes before it answered"),
        ("input(); print('" + json.dumps({"id": 1, "result": {}}) + "', flush=True)", "before it"),
        (CHATTY, "no answer to initialize in 0.5 s"),
        (SERVER.replace('"lamp_on"', '"two words"'), "tool 1: the name 'two words' is not of letters"),
    ],
)
def test_what_is_no_server_is_told_in_a_line(source: str, what: str) -> None:
    with pytest.raises(InputError) as error:
        tools_of_server(command(source), seconds=0.5 if "sleep" in source else 20.0)
    assert what in str(error.value)


FLOOD = """
import sys
while True:
    sys.stdout.write('{"jsonrpc": "2.0", "method": "notifications/message"}\\n' * 1000)
"""


def test_a_server_that_never_stops_talking_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tool_sources.MOST_BYTES <= 20_000_000
    limits = ((0.3, 10**12, "no answer to initialize in 0.3 s"), (120.0, 10**6, "more than 1,000,000 bytes"))
    for seconds, most, what in limits:
        monkeypatch.setattr(tool_sources, "MOST_BYTES", most)
        with pytest.raises(InputError, match=what):
            tools_of_server(command(FLOOD), seconds=seconds)


FORKS = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open("pid", "w").write(str(child.pid))
open("names", "w").write(" ".join(os.environ))
"""


def test_what_a_server_started_ends_with_it_and_it_gets_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-secret")
    monkeypatch.setenv("LAMP_TOKEN", "lamp-secret")
    good("tools", "--mcp", command(FORKS + SERVER), "--env", "LAMP_TOKEN")
    child = Path("/proc", Path("pid").read_text(), "cmdline")
    for _ in range(1000):
        if not child.exists() or not child.read_bytes():  # gone, or waiting to be reaped
            break
        time.sleep(0.01)
    else:
        pytest.fail("a child of the server lives on")
    names = set(Path("names").read_text().split())
    assert {"PATH", "LAMP_TOKEN"} <= names
    assert "OPENAI_API_KEY" not in names
    assert "--env NONE_SUCH: is not set" in refused(2, "tools", "--mcp", "x", "--env", "NONE_SUCH")[0]
    assert "--env is for the server of --mcp" in refused(2, "tools", "tools.json", "--env", "PATH")[-1]


def test_what_is_no_source_is_refused() -> None:
    Path("tools.json").write_text("[")
    assert "is not JSON" in refused(2, "tools", "tools.json")[0]
    Path("house.py").write_text("")
    Path("api.yaml").write_text("")
    assert "house.py: which functions? write FILE.py:NAME" in refused(2, "tools", "house.py")[0]
    assert "api.yaml: YAML is not read; convert it to JSON" in refused(2, "tools", "api.yaml")[0]
    assert "cannot be started" in refused(2, "tools", "--mcp", "no-such-program-here")[0]
    assert "give a FILE, or --mcp" in refused(2, "tools")[-1]
