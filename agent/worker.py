"""Work outside of the event loop: in a thread, or in a child process with a time limit."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

Verdict = tuple[float | None, str]
"""A value and its reason; a failure in the child process is None with the reason, never 0."""
LONG = 20_000
"""Size (characters or bytes) from which a text is read in a thread: about 10 ms of the slowest reading."""
_T = TypeVar("_T")

_BEGIN = r"""
import json, os, sys
pipe_in, pipe_out = os.fdopen(os.dup(0), "r"), os.fdopen(os.dup(1), "w")
nowhere = os.open(os.devnull, os.O_RDWR)
os.dup2(nowhere, 0); os.dup2(nowhere, 1)

def answer(value, reason):
    pipe_out.write(json.dumps([value, str(reason)[:2000]]) + "\n")
    pipe_out.flush()

opening = json.loads(pipe_in.readline())
"""
LOAD = r"""
import types

def blame(problem, path, unknown=0):
    lines, frame = [getattr(problem, "lineno", None) or unknown], problem.__traceback__
    while frame:
        if frame.tb_frame.f_code.co_filename == path:
            lines.append(frame.tb_lineno)
        frame = frame.tb_next
    return f"{lines[-1]}: {type(problem).__name__}: {problem}"

def load(name, path):
    module = sys.modules[name] = types.ModuleType(name)
    module.__file__ = path
    with open(path, "rb") as file:
        exec(compile(file.read(), path, "exec"), module.__dict__)
    return module
"""
"""The start of a script that runs a user's file: `load`, and `blame`, which names the line of an error."""


async def run_aside(size: int, call: Callable[[], _T]) -> _T:
    """Return the result of `call`, run in a thread for LONG or more characters."""
    return await asyncio.to_thread(call) if size >= LONG else call()


class Worker:
    """A child process that answers questions one after another, off the event loop.

    It sees no environment but PATH, and is restarted after a timeout or a crash, but not after `most_late` timeouts.
    The Python `script` has `opening` and `pipe_in`; it answers once when it is ready, then each line of JSON. Reasons
    of verdicts begin with `what`.
    """

    def __init__(
        self,
        what: str,
        script: str,
        opening: Any,
        timeout: float,
        start_timeout: float = 60.0,
        folder: Path | None = None,
        most_late: float = float("inf"),
    ) -> None:
        self._what, self._script, self._opening, self._folder = what, _BEGIN + script, opening, folder
        self._timeout, self._start_timeout, self._most_late = timeout, start_timeout, most_late
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=what)
        self._process: subprocess.Popen[str] | None = None
        self._end: Callable[[], object] | None = None
        self._late = 0
        self._broken = ""
        self.ended: int | None = None
        """The exit code of a process that ended by itself while it was asked the last time; None where none did."""

    async def ask(self, question: Any) -> Verdict:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._ask, _line(question))

    def now(self, question: Any) -> tuple[Any, str]:
        return self._ask(_line(question))

    def close(self) -> None:
        """End the child process; a later question starts a new one. Also called when the worker is collected."""
        self._process = None
        if self._end is not None:
            self._end()

    def _ask(self, line: str) -> Verdict:
        if self._process is None and not self._broken:
            self._start()
        if self._process is None:
            return None, self._broken
        return self._exchange(self._process, line, self._timeout)

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-X", "utf8", "-c", self._script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            cwd=self._folder,
            env={name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "TMPDIR", "TEMP") if name in os.environ},
            start_new_session=True,
        )
        self._end = weakref.finalize(self, _stop, self._process)
        ready, reason = self._exchange(self._process, _line(self._opening), self._start_timeout)
        if ready is None:
            self.close()
            self._broken = f"{self._what} cannot be loaded: {reason}"

    def _exchange(self, process: subprocess.Popen[str], line: str, timeout: float) -> Verdict:
        assert process.stdin is not None
        assert process.stdout is not None
        late, self.ended = threading.Event(), None

        def give_up() -> None:
            late.set()
            _kill(process)

        timer = threading.Timer(timeout, give_up)
        timer.start()
        try:
            process.stdin.write(line)
            process.stdin.flush()
            value, reason = json.loads(process.stdout.readline())
            verdict: Verdict = (value, reason)
        except (OSError, ValueError, TypeError):
            verdict = None, ""
        finally:
            timer.cancel()
            timer.join()
        if late.is_set():
            self.close()
            self._late += 1
            took = f"{self._what} took longer than {timeout:g} s"
            if self._late >= self._most_late:
                self._broken = f"{took}, {self._late} times, and is not asked any more"
            return None, took
        if verdict == (None, ""):
            self.close()
            self.ended = process.returncode
            return None, f"{self._what} ended with exit code {self.ended}"
        return verdict


def _line(value: Any) -> str:
    return json.dumps(value, default=str) + "\n"


def _kill(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        try:
            os.killpg(process.pid, 9) if hasattr(os, "killpg") else process.kill()
        except OSError:
            process.kill()


def _stop(process: subprocess.Popen[str]) -> None:
    _kill(process)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            if pipe is not None:
                pipe.close()
