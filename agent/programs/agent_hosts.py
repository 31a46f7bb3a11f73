"""Run a user's agent on a row: a function of this process, a function of a file, or a command.

A host runs code of the user's own, within limits of time and size, and tells how it failed. It is no sandbox.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
import os
import re
import shlex
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict, astuple, replace
from pathlib import Path
from typing import Any

from agent.errors import InputError
from agent.models.langchain import KEY_VARIABLES
from agent.programs.agent_call import MOST_ANSWER, AgentFault, AgentModel, Rollout, raised, read, written
from agent.programs.child_process import ChildProcess, Children
from agent.redact import redact, secrets_in
from agent.safe_text import printable
from agent.worker import run_aside

MOST_FAULT = 2_500  # characters of what a fault says
START_SECONDS = 60.0  # for loading a Python file with its imports
GRACE_SECONDS = 2.0  # for what an ended agent cleans up
MOST_LEFT = 8  # calls of a function of this process that passed their time limit and still run
_PROVIDERS = re.compile(r"(OPENAI|AZURE_OPENAI|ANTHROPIC)_(?!AGENTS_).*")  # OPENAI_AGENTS_... switches its tracing
_ENVELOPE = 8  # bytes of a line for a character of an answer, at most
_NO_ROLLOUT = "create-the-client-in-your-function"  # a key for clients that a file makes when it is loaded
_ROOT = str(Path(__file__).resolve().parents[2])
_CHILD = """
import sys
sys.path.append(sys.argv[1])
import promptassay
from agent.programs.agent_call import main
main()
"""
Texts = Mapping[str, str]


def environment(environ: Mapping[str, str], model: AgentModel) -> dict[str, str]:
    """Return the user's environment without providers' keys, with the address of the model."""
    keys = set(KEY_VARIABLES.values())
    kept = {name: value for name, value in environ.items() if name not in keys and not _PROVIDERS.fullmatch(name)}
    direct = ",".join(filter(None, [environ.get("no_proxy") or environ.get("NO_PROXY"), "127.0.0.1"]))
    return {**kept, **model.environment, "NO_PROXY": direct, "no_proxy": direct}


class AgentHost:
    """Runs an agent on rows."""

    async def run(self, texts: Texts, row: Texts, model: AgentModel, seconds: float) -> Rollout:
        """Run the agent on a row. Raises AgentFault, or InputError if it can run on no row."""
        try:
            text = await self._answer(dict(texts), dict(row), model, seconds)
            return await run_aside(len(text), lambda: read(text))
        except AgentFault as fault:
            secrets = (*secrets_in(os.environ), model.anthropic_url, model.key)
            raise AgentFault(printable(redact(str(fault), secrets))[:MOST_FAULT], fault.is_late) from None

    async def _answer(self, texts: dict[str, str], row: dict[str, str], model: AgentModel, seconds: float) -> str:
        """Return the answer as JSON."""
        raise NotImplementedError

    async def close(self) -> None:
        """End all that still runs."""
        raise NotImplementedError


class InProcess(AgentHost):
    """A function of this process: async ones share an event loop in a thread, others have a thread each."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._file = getattr(getattr(inspect.unwrap(function), "__code__", None), "co_filename", "")
        self._loops = list[asyncio.AbstractEventLoop]()  # the last one is in use
        self._is_blocked = False
        self._left = set[Future[Any]]()

    async def _answer(self, texts: dict[str, str], row: dict[str, str], model: AgentModel, seconds: float) -> str:
        if len(self._left) >= MOST_LEFT:
            raise InputError(f"agent: {MOST_LEFT} calls that passed their time limit still run; let the agent end")
        if self._is_blocked or not self._loops:
            self._loops.append(asyncio.new_event_loop())
            self._is_blocked = False
            threading.Thread(target=_turn, args=(self._loops[-1],), daemon=True, name="agents").start()
        end = time.monotonic() + seconds  # the clock of each event loop
        future = asyncio.run_coroutine_threadsafe(self._made(end, texts, row, model), self._loops[-1])
        try:
            async with asyncio.timeout_at(end + GRACE_SECONDS):
                made = await asyncio.shield(asyncio.wrap_future(future))
        except TimeoutError:
            self._is_blocked |= self._is_left(future)
            raise AgentFault.late(seconds) from None
        except asyncio.CancelledError:
            future.cancel()
            raise
        if time.monotonic() >= end:
            raise AgentFault.late(seconds)
        if isinstance(made, AgentFault):
            raise made
        return made

    async def _made(self, end: float, *arguments: Any) -> str | AgentFault:
        try:
            async with asyncio.timeout_at(end):
                is_async = inspect.iscoroutinefunction(self._function)
                value = self._function(*arguments) if is_async else await self._in_thread(arguments)
                return written(await value if inspect.isawaitable(value) else value)
        except AgentFault as fault:
            return fault
        except BaseException as problem:
            return AgentFault(raised(problem, self._file))

    async def _in_thread(self, arguments: Sequence[Any]) -> Any:
        done = Future[Any]()
        done.set_running_or_notify_cancel()

        def call() -> None:
            try:
                done.set_result(self._function(*arguments))
            except BaseException as problem:  # not as it is: a future takes no StopIteration
                done.set_exception(AgentFault(raised(problem, self._file)))

        threading.Thread(target=contextvars.copy_context().run, args=(call,), daemon=True, name="agent").start()
        try:
            return await asyncio.wrap_future(done)
        finally:
            self._is_left(done)

    def _is_left(self, future: Future[Any]) -> bool:
        """Note what still runs."""
        if is_left := not future.done():
            self._left.add(future)
            future.add_done_callback(self._left.discard)
        return is_left

    async def close(self) -> None:
        while self._loops:
            loop = self._loops.pop()
            asyncio.run_coroutine_threadsafe(_stop(loop), loop)


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    while True:
        with suppress(SystemExit, KeyboardInterrupt):  # of a task of the agent's
            loop.run_forever()
            return loop.close()


async def _stop(loop: asyncio.AbstractEventLoop) -> None:
    if tasks := asyncio.all_tasks(loop) - {asyncio.current_task()}:
        for task in tasks:
            if not task.cancelling():
                task.cancel()
        await asyncio.wait(tasks, timeout=GRACE_SECONDS)  # for what they clean up
    loop.stop()


class PythonProcesses(AgentHost):
    """A function of a Python file, in child processes that each answer a row at a time."""

    def __init__(self, path: Path, function: str) -> None:
        self._path, self._function = path, function
        self._starting = asyncio.Lock()
        self._children = Children()
        self._idle: list[ChildProcess] = []
        self._broken = ""

    async def _answer(self, texts: dict[str, str], row: dict[str, str], model: AgentModel, seconds: float) -> str:
        if (child := self._free()) is None:
            async with self._starting:  # one at a time: imports are slow, and what cannot be loaded is told once
                child = self._free() or await self._started(model)
        kind, text = await self._asked(child, [texts, row, astuple(model)], seconds)
        self._idle.append(child)
        if kind != "answer":
            raise AgentFault(text)
        return text

    def _free(self) -> ChildProcess | None:
        if self._broken:
            raise InputError(self._broken)
        while self._idle:
            if not (child := self._idle.pop()).has_exited:
                return child
        return None

    async def _started(self, model: AgentModel) -> ChildProcess:
        path = self._path.resolve()
        nobody = replace(model, url=model.url.replace(model.key, _NO_ROLLOUT), key=_NO_ROLLOUT)
        command = [sys.executable, "-P", "-X", "utf8", "-c", _CHILD, _ROOT]
        given = environment(os.environ, nobody)
        child = await self._children.start(command, given, path.parent, _ENVELOPE * MOST_ANSWER)
        try:
            kind, text = await self._asked(child, [str(path), self._function], START_SECONDS)
        except AgentFault as fault:
            kind, text = "broken", f"1: cannot be loaded, it {fault}"
        if kind == "ready":
            return child
        child.end()
        self._broken = f"{self._path}:{text}"
        raise InputError(self._broken)

    async def _asked(self, child: ChildProcess, question: list[Any], seconds: float) -> tuple[str, str]:
        async with child.within(seconds):
            child.write(json.dumps(question).encode() + b"\n")
            kind, text = json.loads(await child.line())
        return kind, text

    async def close(self) -> None:
        self._idle.clear()
        await self._children.close()


class Commands(AgentHost):
    """A command, as a process for each row: JSON on stdin, `{"answer": ...}` on stdout, alone or as the last line."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self._command = command
        self._folder = folder
        self._children = Children()

    async def _answer(self, texts: dict[str, str], row: dict[str, str], model: AgentModel, seconds: float) -> str:
        question = json.dumps({"texts": texts, "row": row, "model": asdict(model)}).encode() + b"\n"
        given = environment(os.environ, model)
        try:
            return await self._children.output(self._command, given, self._folder, question, seconds)
        except (OSError, ValueError) as problem:  # ValueError: a NUL in it
            words = f"the command {shlex.join(self._command)!r:.200} cannot be started ({problem})"
            raise InputError(f"{words}; correct `program`") from problem

    async def close(self) -> None:
        await self._children.close()
