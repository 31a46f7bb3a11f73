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
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import asdict, astuple, replace
from pathlib import Path
from typing import Any, Protocol

from agent.errors import InputError
from agent.models.langchain import KEY_VARIABLES
from agent.programs.agent_call import (
    GRACE_SECONDS,
    MOST_ANSWER,
    MOST_FAULT,
    MOST_LEFT,
    START_SECONDS,
    AgentFault,
    AgentModel,
    Rollout,
    raised,
    read,
    written,
)
from agent.programs.child_process import ChildProcess, Children
from agent.redact import redact, secrets_in
from agent.safe_text import printable
from agent.worker import run_aside

_PROVIDERS = re.compile(r"(OPENAI|AZURE_OPENAI|ANTHROPIC)_(?!AGENTS_).*")  # OPENAI_AGENTS_... switches its tracing
_ENVELOPE = 8  # bytes of a line for a character of an answer, at most
_NO_ROLLOUT = "create-the-client-in-your-function"  # a key for clients that a file makes when it is loaded
_ROOT = str(Path(__file__).resolve().parents[2])
_CHILD = """
import sys
sys.path.append(sys.argv[1])
import promptassay
from agent.programs.agent_child import main
main()
"""
Texts = Mapping[str, str]


class AgentHost(Protocol):
    async def run(self, texts: Texts, row: Texts, model: AgentModel, seconds: float) -> Rollout:
        """Run the agent on a row. Raises AgentFault, or InputError if it can run on no row."""

    async def close(self) -> None:
        """End all that still runs."""


def environment(environ: Mapping[str, str], model: AgentModel) -> dict[str, str]:
    """Return the user's environment without providers' keys, with the address of the model."""
    keys = set(KEY_VARIABLES.values())
    kept = {name: value for name, value in environ.items() if name not in keys and not _PROVIDERS.fullmatch(name)}
    direct = ",".join(filter(None, [environ.get("no_proxy") or environ.get("NO_PROXY"), "127.0.0.1"]))
    return {**kept, **model.environment, "NO_PROXY": direct, "no_proxy": direct}


@contextmanager
def _faults(model: AgentModel) -> Iterator[None]:
    """Keep secrets out of what a fault says, on one line."""
    try:
        yield
    except AgentFault as fault:
        secrets = (*secrets_in(os.environ), model.anthropic_url, model.key)
        raise AgentFault(printable(redact(str(fault), secrets))[:MOST_FAULT], fault.is_late) from None


# -- a function of this process ----------------------------------------------------------------------------------------


class InProcess:
    """A function of this process: async ones share an event loop in a thread, others have a thread each."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._file = getattr(getattr(inspect.unwrap(function), "__code__", None), "co_filename", "")
        self._loops = list[asyncio.AbstractEventLoop]()  # the last one is in use
        self._is_blocked = False
        self._left = set[Future[Any]]()

    async def run(self, texts: Texts, row: Texts, model: AgentModel, seconds: float) -> Rollout:
        if len(self._left) >= MOST_LEFT:
            raise InputError(f"agent: {MOST_LEFT} calls that passed their time limit still run; let the agent end")
        if self._is_blocked or not self._loops:
            self._loops.append(asyncio.new_event_loop())
            self._is_blocked = False
            threading.Thread(target=_turn, args=(self._loops[-1],), daemon=True, name="agents").start()
        loop, tasks = self._loops[-1], list[asyncio.Task[Any]]()
        future = asyncio.run_coroutine_threadsafe(self._made(tasks, dict(texts), dict(row), model), loop)
        ended = asyncio.wrap_future(future)

        def cancel() -> None:
            for task in tasks:
                loop.call_soon_threadsafe(task.cancel)

        with _faults(model):
            try:
                async with asyncio.timeout(seconds):
                    made = await asyncio.shield(ended)
            except TimeoutError:
                cancel()
                await asyncio.wait([ended], timeout=GRACE_SECONDS)
                self._is_blocked |= self._is_left(future)
                raise AgentFault.late(seconds) from None
            except asyncio.CancelledError:
                cancel()
                raise
            if isinstance(made, AgentFault):
                raise made
            return await run_aside(len(made), lambda: read(made))

    async def _made(self, tasks: list[Any], *arguments: Any) -> str | AgentFault:
        """Call the function. `tasks` gets the task that does it."""
        tasks.append(asyncio.current_task())
        try:
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


# -- child processes ---------------------------------------------------------------------------------------------------


class PythonProcesses:
    """A function of a Python file, in child processes that each answer a row at a time."""

    def __init__(self, path: Path, function: str) -> None:
        self._path, self._function = path, function
        self._starting = asyncio.Lock()
        self._children = Children()
        self._idle: list[ChildProcess] = []
        self._broken = ""

    async def run(self, texts: Texts, row: Texts, model: AgentModel, seconds: float) -> Rollout:
        with _faults(model):
            child = await self._ready(model)
            try:
                kind, text = await self._asked(child, [dict(texts), dict(row), astuple(model)], seconds)
            except BaseException:
                child.end()
                raise
            self._idle.append(child)
            if kind != "answer":
                raise AgentFault(text)
            return await run_aside(len(text), lambda: read(text))

    async def _ready(self, model: AgentModel) -> ChildProcess:
        if (child := self._free()) is not None:
            return child
        async with self._starting:  # one at a time: imports are slow, and what cannot be loaded is told once
            return self._free() or await self._started(model)

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
        child = await self._children.start(
            command, path.parent, environment(os.environ, nobody), _ENVELOPE * MOST_ANSWER
        )
        try:
            kind, text = await self._asked(child, [str(path), self._function], START_SECONDS)
        except AgentFault as fault:
            kind, text = "broken", f"1: cannot be loaded, it {fault}"
        except BaseException:
            child.end()
            raise
        if kind == "ready":
            return child
        child.end()
        self._broken = f"{self._path}:{text}"
        raise InputError(self._broken)

    async def _asked(self, child: ChildProcess, question: list[Any], seconds: float) -> tuple[str, str]:
        child.write(json.dumps(question).encode() + b"\n")
        try:
            async with asyncio.timeout(seconds):
                line = await child.line()
        except TimeoutError:
            raise AgentFault.late(seconds) from None
        if line is None:
            raise AgentFault(child.how)
        kind, text = json.loads(line)
        return kind, text

    async def close(self) -> None:
        self._idle.clear()
        await self._children.close()


class Commands:
    """A command, as a process for each row: JSON on stdin, `{"answer": ...}` on stdout, alone or as the last line."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self._command = command
        self._folder = folder
        self._children = Children()

    async def run(self, texts: Texts, row: Texts, model: AgentModel, seconds: float) -> Rollout:
        question = json.dumps({"texts": dict(texts), "row": dict(row), "model": asdict(model)}).encode() + b"\n"
        with _faults(model):
            try:
                given = environment(os.environ, model)
                text = await self._children.output(self._command, given, question, seconds, self._folder)
            except (OSError, ValueError) as problem:  # ValueError: a NUL in it
                words = (
                    f"the command {shlex.join(self._command)!r:.200} cannot be started ({problem}); correct `program`"
                )
                raise InputError(words) from problem
            try:
                return await run_aside(len(text), lambda: read(text))
            except AgentFault:
                if "\n" not in text:
                    raise
            return read(text.rpartition("\n")[2])

    async def close(self) -> None:
        await self._children.close()
