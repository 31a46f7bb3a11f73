"""Child processes in process groups, which end with this process however it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import cast

from agent.programs.agent_call import MOST_ANSWER, AgentFault

_MOST_STDERR = 2_000  # bytes of its end that a message shows
_PIPES_SECONDS = 1.0  # for what a process left in its pipes
_END_SECONDS = 10.0  # for killed processes; one of another user cannot be killed
_GUARD = """
import os, sys
groups = set()
for line in sys.stdin:
    (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
for group in groups:
    try:
        os.killpg(group, 9)
    except OSError:
        pass
"""


class ChildProcess(asyncio.SubprocessProtocol):
    """A process of `Children`: at most `most` bytes of its stdout, and the end of its stderr."""

    def __init__(self, children: Children, most: int) -> None:
        self.said = bytearray()
        self._errors = b""
        self._children, self._most = children, most
        self.has_exited = False
        self._news = asyncio.Event()
        self.over = asyncio.Event()

    @property
    def is_too_much(self) -> bool:
        return len(self.said) > self._most

    @property
    def code(self) -> int:
        """The exit code, negative for a signal."""
        return self._process.get_returncode() or 0

    @property
    def how(self) -> str:
        """How it ended, with the end of its stderr."""
        try:
            way = f"was ended by {signal.Signals(-self.code).name}"
        except ValueError:
            way = f"ended with exit code {self.code}"
        lines = self._errors.decode("utf-8", "replace").split("\n")
        said = " | ".join(line.strip() for line in lines if line.strip())
        return f"{way}: {said}" if said else way

    def write(self, data: bytes, last: bool = False) -> None:
        pipe = cast(asyncio.WriteTransport, self._process.get_pipe_transport(0))
        pipe.write(data)
        if last:
            pipe.close()

    @contextlib.asynccontextmanager
    async def within(self, seconds: float) -> AsyncIterator[None]:
        """End the process if the block takes longer or fails. Raises AgentFault."""
        try:
            async with asyncio.timeout(seconds):
                yield
        except BaseException as problem:
            self.end()
            if isinstance(problem, TimeoutError):
                raise AgentFault.late(seconds) from None
            raise

    async def line(self) -> bytes:
        """Wait for a line of its stdout. Raises AgentFault if it ends first."""
        while not self.said.endswith(b"\n"):
            if self.over.is_set():
                raise AgentFault(self.how)
            self._news.clear()
            await self._news.wait()
        line, self.said = bytes(self.said), bytearray()
        return line

    def end(self) -> None:
        """Kill its group, if it still runs."""
        if not self.has_exited:
            self._kill()

    def _kill(self) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self._pid, signal.SIGKILL) if hasattr(os, "killpg") else self._process.kill()

    # -- what the event loop calls ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._process = cast(asyncio.SubprocessTransport, transport)
        self._pid = self._process.get_pid()
        self._children.running.add(self)
        self._children.note("+", self._pid)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 2:
            self._errors = (self._errors + data)[-_MOST_STDERR:]
        elif not self.is_too_much:
            self.said += data
            if self.is_too_much:
                self.end()
        self._news.set()

    def process_exited(self) -> None:
        self.has_exited = True
        self._kill()  # the rest of its group, which may hold the pipes
        self._children.note("-", self._pid)
        asyncio.get_running_loop().call_later(_PIPES_SECONDS, self._process.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._process.close()
        self.over.set()
        self._news.set()
        self._children.running.discard(self)


class Children:
    """The child processes of one owner. Another small process kills them should this one be killed."""

    def __init__(self) -> None:
        self.running: set[ChildProcess] = set()
        self._guard: subprocess.Popen[bytes] | None = None

    async def start(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, most: int
    ) -> ChildProcess:
        """Start a process in its own group. Raises OSError."""
        if self._guard is None and hasattr(os, "killpg"):
            guard, nowhere = [sys.executable, "-I", "-S", "-c", _GUARD], subprocess.DEVNULL
            self._guard = subprocess.Popen(
                guard, stdin=subprocess.PIPE, stdout=nowhere, stderr=nowhere, start_new_session=True, bufsize=0
            )
        _, child = await asyncio.get_running_loop().subprocess_exec(
            lambda: ChildProcess(self, most), *command, cwd=folder, env=environment, start_new_session=True
        )
        return child

    async def output(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, asked: bytes, seconds: float
    ) -> str:
        """Run a command to its end and return its stdout. Raises OSError, ValueError and AgentFault."""
        child = await self.start(command, environment, folder, MOST_ANSWER)
        async with child.within(seconds):
            child.write(asked, last=True)
            await child.over.wait()
        if child.is_too_much:
            raise AgentFault(f"printed more than {MOST_ANSWER:,} bytes on stdout")
        if child.code:
            raise AgentFault(child.how)
        return child.said.decode("utf-8", "replace").strip()

    def note(self, sign: str, group: int) -> None:
        """Tell the guard of a group that began or ended."""
        if self._guard is not None and self._guard.stdin is not None:
            with contextlib.suppress(OSError):
                self._guard.stdin.write(f"{sign}{group}\n".encode())

    async def close(self) -> None:
        """End all processes and wait for them; later ones may be started."""
        for child in list(self.running):
            child.end()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                for child in list(self.running):
                    await child.over.wait()
        if self._guard is not None:
            guard, self._guard = self._guard, None
            guard.kill()
            guard.communicate()
