"""A user's agent runs in this process, in child processes and as a command, and each of its failures is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from agent.errors import InputError
from agent.programs.agent_call import AgentFault, AgentModel, Rollout
from agent.programs.agent_hosts import AgentHost, Commands, InProcess, PythonProcesses
from tests.child import ROOT
from tests.toys import is_alive

TOKEN = "t0ken-of-one-rollout-1234567890"
MODEL = AgentModel(f"http://127.0.0.1:9/r/{TOKEN}/v1", TOKEN, "small")
LONG = 60.0
"""A limit that no test reaches."""
SHORT = 0.5
AGENT = """
import asyncio, dataclasses, os, signal, subprocess, sys, time
from pathlib import Path
import pydantic
import promptassay as pa
import helper

class Model(pydantic.BaseModel):
    city: str

@dataclasses.dataclass
class Data:
    city: str
    tags: set

def plain(texts, row, model):
    return {"said": f"{texts['planner']} {row['message']} {model.name}", "helped": helper.HELP}

async def later(texts, row, model):
    await asyncio.sleep(0)
    return [id(asyncio.get_running_loop()), os.getpid()]

def hands_over(texts, row, model):
    return later(texts, row, model)

def rollout(texts, row, model):
    return pa.Rollout("yes", notes="looked twice", score=0.25)

def typed(texts, row, model):
    return [Model(city="Bern"), Data("Basel", {"b", "a"})]

def raises(texts, row, model):
    raise ValueError("no such room")

def in_group(texts, row, model):
    raise ExceptionGroup("several", [KeyError("first")])

def prints(texts, row, model):
    print("rubbish" * 1000)
    os.write(1, b"more rubbish")
    return sys.stdin.read() or "fine"

def leaks(texts, row, model):
    raise ValueError(f"refused {model.key} at {model.url}")

def loops(texts, row, model):
    while True:
        pass

async def never(texts, row, model):
    await asyncio.Event().wait()

def ignores(texts, row, model):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(1000)

def leaves_a_child(texts, row, model):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    Path(row["message"]).write_text(f"{child.pid} {os.getpid()}")
    time.sleep(1000)

def meets(texts, row, model):
    Path(row["message"], f"{os.getpid()}.pid").touch()
    while len(list(Path(row["message"]).glob("*.pid"))) < 3:
        time.sleep(0.01)
    return os.getpid()

def exits(texts, row, model):
    print("the last words", file=sys.stderr)
    sys.exit(3)

def crashes(texts, row, model):
    os.kill(os.getpid(), signal.SIGSEGV)

def huge(texts, row, model):
    return "x" * 10_000_000

def floods(texts, row, model):
    sys.stderr.write("x" * 10_000_000)
    return "fine"

def strange(texts, row, model):
    return object()

def nan(texts, row, model):
    return {"value": float("nan")}

def half(texts, row, model):
    return "\\ud800"

def deep(texts, row, model):
    made = []
    for _ in range(100_000):
        made = [made]
    return made

def bad_score(texts, row, model):
    return pa.Rollout("yes", score=7)

def sees(texts, row, model):
    return dict(os.environ) | {"cwd": os.getcwd()}

def as_asked(texts, row, model):
    return globals()[row["message"]](texts, row, model)
"""
OPEN: list[AgentHost] = []


@pytest.fixture(autouse=True)
async def _closed() -> AsyncIterator[None]:
    yield
    while OPEN:
        await OPEN.pop().close()


def opened(host: AgentHost) -> AgentHost:
    OPEN.append(host)
    return host


def python(folder: Path, function: str, code: str = AGENT) -> AgentHost:
    (folder / "agent.py").write_text(code, "utf-8")
    (folder / "helper.py").write_text("HELP = 'helped'\n", "utf-8")
    return opened(PythonProcesses(folder / "agent.py", function))


def command(folder: Path, code: str) -> AgentHost:
    (folder / "agent.py").write_text(code, "utf-8")
    return opened(Commands([sys.executable, "agent.py"], folder))


async def asked(host: AgentHost, message: str = "hello", seconds: float = LONG) -> Any:
    return (await host.run({"planner": "Plan!"}, {"message": message}, MODEL, seconds)).answer


async def fault(host: AgentHost, message: str = "hello", seconds: float = LONG) -> str:
    with pytest.raises(AgentFault) as found:
        await asked(host, message, seconds)
    assert str(found.value).isprintable()
    assert found.value.is_late == ("took longer" in str(found.value))
    return str(found.value)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(LONG):
        while not holds():
            await asyncio.sleep(0.01)


EARLIER = set[int]()
"""Children of this process that were there before the test, such as the process that forks commands."""


@pytest.fixture(autouse=True)
def earlier() -> None:
    EARLIER.clear()
    EARLIER.update(children())


def children() -> set[int]:
    """All children of this process that a test started, those that nobody waited for too."""
    found = set[int]()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that has just ended
            found.update(map(int, (task / "children").read_text().split()))
    return found - EARLIER


# -- child processes in Python -----------------------------------------------------------------------------------------


async def test_a_function_of_a_file_answers(tmp_path: Path) -> None:
    said = await asked(python(tmp_path, "plain"))
    assert said == {"said": "Plan! hello small", "helped": "helped"}
    assert await asked(python(tmp_path, "typed")) == [{"city": "Bern"}, {"city": "Basel", "tags": ["a", "b"]}]
    rollout = await python(tmp_path, "rollout").run({}, {}, MODEL, LONG)
    assert rollout == Rollout("yes", "looked twice", 0.25)


@pytest.mark.parametrize("function", ["later", "hands_over"])
async def test_an_idle_process_is_used_again_with_its_loop(function: str, tmp_path: Path) -> None:
    host = python(tmp_path, function)
    first = await asked(host)
    assert [await asked(host) for _ in range(3)] == [first] * 3


async def test_there_are_as_many_processes_as_rollouts_at_once(tmp_path: Path) -> None:
    host = python(tmp_path, "meets")
    first, *later = [await asyncio.gather(*(asked(host, str(tmp_path)) for _ in range(3))) for _ in range(4)]
    assert len(set(first)) == 3
    assert all(set(seen) == set(first) for seen in later)


FAULTS = {
    "raises": "raised ValueError: no such room (agent.py:33)",
    "in_group": "raised KeyError: 'first'",
    "exits": "ended with exit code 3: the last words",
    "crashes": "was ended by SIGSEGV",
    "huge": "gave an answer of 10,000,",
    "strange": "gave an answer that is not JSON: TypeError: Object of type object is not JSON serializable",
    "nan": "gave an answer that is not JSON: ValueError: Out of range float values are not JSON compliant",
    "half": "gave an answer that cannot be read ('\\ud800' in the text",
    "deep": "gave an answer that is not JSON: RecursionError",
    "bad_score": "raised ValueError: score 7 is not a number from 0 to 1 (agent.py:",
    "leaks": "raised ValueError: refused [key] at [key]/v1 (agent.py:",
    **dict.fromkeys(("loops", "never", "ignores"), "took longer than 0.5 s"),
}


async def test_a_failure_is_told_and_the_next_row_is_answered(tmp_path: Path) -> None:
    """By one host: a process that ended or was killed for its time is replaced, and what it prints is no answer."""
    host = python(tmp_path, "as_asked")
    for function, said in FAULTS.items():
        found = await fault(host, function, SHORT if said.startswith("took") else LONG)
        assert found.startswith(said), function
    assert [await asked(host, function) for function in ("prints", "floods", "prints")] == ["fine"] * 3
    await host.close()
    assert children() == set()


async def started(folder: Path, host: AgentHost) -> tuple[asyncio.Task[Any], list[int]]:
    """A rollout that does not end, and the processes of its agent."""
    task, file = asyncio.create_task(asked(host, str(folder / "pids"))), folder / "pids"
    await until(lambda: file.exists() and " " in file.read_text())
    return task, [int(pid) for pid in file.read_text().split()]


async def test_what_an_agent_started_ends_with_its_rollout_or_its_host(tmp_path: Path) -> None:
    """A cancelled rollout frees its place; a host closes twice."""
    host = python(tmp_path, "leaves_a_child")
    task, pids = await started(tmp_path, host)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not any(map(is_alive, pids)))
    (tmp_path / "pids").unlink()
    task, pids = await started(tmp_path, host)
    await host.close()
    await host.close()
    with pytest.raises(AgentFault, match="was ended by SIGKILL"):
        await task
    assert children() == set()
    await until(lambda: not any(map(is_alive, pids)))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def run(:\n", ":1: SyntaxError"),
        ("import os\nimport no_such_module\n", ":2: ModuleNotFoundError: No module named 'no_such_module'"),
        ("import dspy.nothing\n", ":1: ModuleNotFoundError"),
        ("x = 1\n", ":1: AttributeError: module 'optimize_task_agent' has no attribute 'run'"),
        ("import os\nos._exit(7)\n", ":1: cannot be loaded, it ended with exit code 7"),
    ],
)
async def test_a_file_that_cannot_be_loaded_is_an_error_of_the_input(code: str, said: str, tmp_path: Path) -> None:
    host = python(tmp_path, "run", code)
    problems = await asyncio.gather(*(asked(host) for _ in range(2)), return_exceptions=True)
    assert {type(problem) for problem in problems} == {InputError}
    assert {str(problem).startswith(f"{tmp_path / 'agent.py'}{said}") for problem in problems} == {True}, problems[0]


async def test_the_providers_keys_are_not_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = ["OPENAI_API_KEY", "OPENAI_COMPATIBLE_API_KEY", "ANTHROPIC_AUTH_TOKEN", "OPENAI_ORG_ID", "GROQ_API_KEY"]
    for name in keys:
        monkeypatch.setenv(name, "sk-of-the-user-12345")
    monkeypatch.setenv("SEARCH_API_KEY", "of a tool")
    monkeypatch.setenv("OPENAI_AGENTS_DISABLE_TRACING", "1")
    monkeypatch.setenv("NO_PROXY", "example.org")
    tells = "import json, os\nprint(json.dumps({'answer': dict(os.environ) | {'cwd': os.getcwd()}}))"
    (tmp_path / "tells.py").write_text(tells, "utf-8")
    for host in (python(tmp_path, "sees"), opened(Commands([sys.executable, "tells.py"], tmp_path))):
        seen = await asked(host)
        assert "sk-of-the-user-12345" not in json.dumps(seen)
        assert (seen["SEARCH_API_KEY"], seen["OPENAI_AGENTS_DISABLE_TRACING"]) == ("of a tool", "1")
        assert (seen["OPENAI_BASE_URL"], seen["OPENAI_API_KEY"]) == (MODEL.url, TOKEN)
        assert (seen["ANTHROPIC_BASE_URL"], seen["ANTHROPIC_API_KEY"]) == (f"http://127.0.0.1:9/r/{TOKEN}", TOKEN)
        assert (seen["NO_PROXY"], seen["cwd"]) == ("example.org,127.0.0.1", str(tmp_path))


PARENT = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from agent.programs.agent_call import AgentModel
from agent.programs.agent_hosts import Commands, PythonProcesses
folder = Path(sys.argv[2])
model = AgentModel("http://127.0.0.1:9/r/x/v1", "x", "small")
async def main():
    hosts = [PythonProcesses(folder / "agent.py", "run"), Commands([sys.executable, "command.py"], folder)]
    await asyncio.gather(*(host.run({}, {"name": str(at)}, model, 1000) for at, host in enumerate(hosts)))
asyncio.run(main())
"""


async def test_the_processes_end_when_this_process_is_killed(tmp_path: Path) -> None:
    work = "import os, time\nopen('pid-' + {name}, 'w').write(str(os.getpid()))\nwhile True: pass\n"
    code = "def run(texts, row, model):\n    " + work.format(name="row['name']").replace("\n", "\n    ")
    (tmp_path / "agent.py").write_text(code, "utf-8")
    (tmp_path / "command.py").write_text(work.format(name="'1'"), "utf-8")
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(ROOT), str(tmp_path)])
    files = [tmp_path / "pid-0", tmp_path / "pid-1"]
    await until(lambda: all(file.exists() and file.read_text() for file in files))
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    await until(lambda: not any(is_alive(int(file.read_text())) for file in files))


# -- commands ----------------------------------------------------------------------------------------------------------

ECHO = "import json, sys\nasked = json.load(sys.stdin)\n"


async def test_a_command_answers(tmp_path: Path) -> None:
    host = command(tmp_path, f"{ECHO}print('a log')\nprint(json.dumps({{'answer': asked, 'notes': 'n', 'score': 1}}))")
    rollout = await host.run({"planner": "Plan!"}, {"message": "hello"}, MODEL, LONG)
    told = {"url": MODEL.url, "key": TOKEN, "name": "small"}
    assert rollout == Rollout({"texts": {"planner": "Plan!"}, "row": {"message": "hello"}, "model": told}, "n", 1.0)


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
async def test_a_command_in_another_language_answers(tmp_path: Path) -> None:
    code = """
const asked = JSON.parse(require('fs').readFileSync(0, 'utf8'));
if (asked.row.message === 'bad') throw new Error('no such room');
console.log(JSON.stringify({answer: asked.row.message + process.env.OPENAI_BASE_URL}, null, 2));
"""
    (tmp_path / "agent.js").write_text(code, "utf-8")
    host = opened(Commands(["node", "agent.js"], tmp_path))
    assert await asked(host) == f"hello{MODEL.url}"
    said = await fault(host, "bad")
    assert said.startswith("ended with exit code 1: ")
    assert "Error: no such room" in said


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("print('hello')", "gave an answer that cannot be read (Expecting value: line 1 column 1 (char 0)): 'hello'"),
        ("", "gave an answer that cannot be read (Expecting value: line 1 column 1 (char 0)): ''"),
        ("print('[1]')", "gave an answer that cannot be read (it is not {\"answer\": ...}): '[1]'"),
        ("print('{\"answer\": NaN}')", "gave an answer that cannot be read (the number 'NaN' is not finite"),
        ('print(\'{"answer": 1, "score": "x"}\')', "gave an answer that cannot be read (score 'x' is not a number"),
        ("print('x' * 10_000_000)", "printed more than 1,000,000 bytes on stdout"),
        ("while True: print('x' * 10_000)", "printed more than 1,000,000 bytes on stdout"),
        ("import sys\nsys.stderr.write('a\\nb' + '\\x1b[31m' * 10_000_000)\nsys.exit(2)", "ended with exit code 2: "),
        ("raise ValueError('no such room')", "ended with exit code 1: Traceback"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "was ended by SIGKILL"),
        ("import os, sys\nsys.exit(os.environ['OPENAI_API_KEY'])", "ended with exit code 1: [key]"),
        ("while True: pass", "took longer than 0.5 s"),
        ("import signal, time\nsignal.signal(15, signal.SIG_IGN)\ntime.sleep(1000)", "took longer than 0.5 s"),
    ],
)
async def test_a_command_that_fails_is_told(code: str, said: str, tmp_path: Path) -> None:
    host = command(tmp_path, code)
    found = await fault(host, seconds=SHORT if said.startswith("took") else LONG)
    assert found.startswith(said)
    assert len(found) <= 2_500
    await host.close()
    assert children() == set()


async def test_a_command_need_not_read_its_input(tmp_path: Path) -> None:
    host = command(tmp_path, "print('{\"answer\": 1}')")
    assert await asked(host, "long " * 1_000_000) == 1


STAYS = """
import json, os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
print(json.dumps({"answer": child.pid}))
"""


async def test_what_a_command_leaves_is_ended_and_not_waited_for(tmp_path: Path) -> None:
    pid = await asked(command(tmp_path, STAYS))
    await until(lambda: not is_alive(pid))


async def test_a_daemon_of_a_command_that_holds_its_pipes_is_not_waited_for(tmp_path: Path) -> None:
    host = command(tmp_path, STAYS.replace("])", "], start_new_session=True)"))
    os.kill(await asked(host), signal.SIGKILL)


async def test_sixteen_commands_at_once_and_all_are_cancelled(tmp_path: Path) -> None:
    host = command(tmp_path, "import time\ntime.sleep(1000)")
    tasks = [asyncio.create_task(asked(host)) for _ in range(16)]
    await until(lambda: len(children()) == 17)
    for task in tasks:
        task.cancel()
    assert all(isinstance(one, asyncio.CancelledError) for one in await asyncio.gather(*tasks, return_exceptions=True))
    await host.close()
    assert children() == set()


@pytest.mark.parametrize("words", ["no-such-command agent.js", "./agent.txt"])
async def test_a_command_that_is_not_there_is_an_error_of_the_input(words: str, tmp_path: Path) -> None:
    (tmp_path / "agent.txt").write_text("not executable", "utf-8")
    with pytest.raises(InputError, match=f"the command '{words}' cannot be started"):
        await asked(opened(Commands(words.split(), tmp_path)))


# -- functions of this process -----------------------------------------------------------------------------------------

CONTEXT: ContextVar[str] = ContextVar("CONTEXT", default="none")


def in_process(function: Callable[..., Any]) -> AgentHost:
    return opened(InProcess(function))


async def test_functions_of_this_process_keep_their_context_and_share_a_loop() -> None:
    async def run(texts: Any, row: Any, model: Any) -> Any:
        await asyncio.sleep(0)
        return [row["message"], CONTEXT.get(), id(asyncio.get_running_loop()), threading.get_ident()]

    def plain(texts: Any, row: Any, model: Any) -> Any:
        return [row["message"], CONTEXT.get()]

    def hands_over(texts: Any, row: Any, model: Any) -> Awaitable[Any]:
        return run(texts, row, model)

    CONTEXT.set("kept")
    host = in_process(run)
    seen = await asyncio.gather(*(asked(host, str(at)) for at in range(64)))
    assert [said for said, *_ in seen] == [str(at) for at in range(64)]
    assert {tuple(rest) for _, *rest in seen} == {("kept", seen[0][2], seen[0][3])}
    assert seen[0][3] != threading.get_ident()
    assert await asked(in_process(plain)) == ["hello", "kept"]
    assert (await asked(in_process(hands_over)))[:2] == ["hello", "kept"]


async def test_64_functions_that_wait_for_each_other_run_at_once() -> None:
    barrier = threading.Barrier(64)

    def run(texts: Any, row: Any, model: Any) -> Any:
        barrier.wait()
        return "met"

    host = in_process(run)
    assert await asyncio.gather(*(asked(host) for _ in range(64))) == ["met"] * 64


async def test_an_agent_cannot_change_the_texts_of_the_run() -> None:
    texts = {"planner": "Plan!"}

    def run(texts: Any, row: Any, model: Any) -> Any:
        texts["planner"] = row["message"] = "changed"
        return Rollout(texts, "notes", True)

    assert await in_process(run).run(texts, {}, MODEL, LONG) == Rollout({"planner": "changed"}, "notes", 1.0)
    assert texts == {"planner": "Plan!"}


RAISED = [ValueError("no\nsuch room"), StopIteration(), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()]


@pytest.mark.parametrize("problem", RAISED)
async def test_what_a_function_raises_is_told_with_its_line(problem: BaseException) -> None:
    def run(texts: Any, row: Any, model: Any) -> Any:
        raise problem

    async def later(texts: Any, row: Any, model: Any) -> Any:
        await asyncio.sleep(0)
        raise problem

    for host in (in_process(run), in_process(later)):
        for _ in range(2):
            said = await fault(host)
            assert (said.startswith("raised "), type(problem).__name__ in said) == (True, True)
            assert "(test_agent_hosts.py:" in said or "coroutine raised StopIteration" in said


async def test_an_async_function_that_takes_too_long_or_is_cancelled_cleans_up() -> None:
    begun, cleaned = list[str](), list[str]()

    async def run(texts: Any, row: Any, model: Any) -> Any:
        begun.append(row["message"])
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            cleaned.append(row["message"])

    host = in_process(run)
    said = await asyncio.gather(*(fault(host, str(at), SHORT) for at in range(20)))
    assert set(said) == {"took longer than 0.5 s"}
    await until(lambda: len(cleaned) == 20)
    waiting = asyncio.create_task(asked(host, "cancelled"))
    await until(lambda: "cancelled" in begun)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await host.close()
    await until(lambda: "cancelled" in cleaned)


@pytest.mark.parametrize("is_async", [False, True])
async def test_functions_that_do_not_end_are_left_behind_until_there_are_too_many(is_async: bool) -> None:
    held = threading.Event()

    def run(texts: Any, row: Any, model: Any) -> Any:
        return held.wait() if row["message"] == "hold" else "fine"

    async def blocks(texts: Any, row: Any, model: Any) -> Any:
        return run(texts, row, model)

    host = in_process(blocks if is_async else run)
    assert set(await asyncio.gather(*(fault(host, "hold", SHORT) for _ in range(8)))) == {"took longer than 0.5 s"}
    with pytest.raises(InputError, match="agent: 8 calls that passed their time limit still run"):
        await asked(host)
    held.set()
    answer = ""
    while not answer:
        with contextlib.suppress(InputError):
            answer = await asked(host)
    assert answer == "fine"
