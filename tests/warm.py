"""`optimize` as a process that is forked off one which has imported what a run needs: the program without its imports.

Signals, exit codes, terminals and files are those of any process. What a start from nothing does (the interpreter's own
variables, the end of threads) is not in it: a few tests start one with `subprocess`.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any, NoReturn

from tests.chaos.command import preload

ROOT = Path(__file__).resolve().parents[1]
ALSO = ("sklearn.linear_model", "sklearn.feature_extraction.text", "dspy.adapters")
"""What else runs of the tests import, beside what those of the fault campaign do."""
_MOST_BYTES = 200_000
_FOUR = 4  # stdin, stdout, stderr, and where the exit code is written


class Process:
    """A command that was started: what the tests use of `subprocess.Popen`."""

    def __init__(self, pid: int, status: int, out: IO[str] | None, err: IO[str] | None) -> None:
        self.pid = pid
        self.stdout, self.stderr = out, err
        self.returncode: int | None = None
        self._status = status

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, negative for a signal; subprocess.TimeoutExpired if it runs for longer, in seconds."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("optimize", timeout or 0.0)
            self.returncode = int(os.read(self._status, 16))
            os.close(self._status)
        return self.returncode

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0.0)
        return None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float = 60.0) -> tuple[str, str]:
        """What it still says on stdout and stderr until it ends; subprocess.TimeoutExpired as of `wait`."""
        said, deadline = {1: "", 2: ""}, time.monotonic() + timeout

        def read(number: int, pipe: IO[str]) -> None:
            with pipe:
                said[number] = pipe.read()

        pipes = [(number, pipe) for number, pipe in ((1, self.stdout), (2, self.stderr)) if pipe is not None]
        readers = [threading.Thread(target=read, args=each, daemon=True) for each in pipes]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join(max(0.0, deadline - time.monotonic()))
        return said[1], said[2]


def start(*words: str, before: str = "") -> Process:
    """`optimize` with these words in the current folder and environment, its output in pipes; the code `before` runs
    first."""
    (out, said), (err, told) = os.pipe(), os.pipe()
    with open(os.devnull, "rb") as nothing:
        pid, status = _forked(words, (nothing.fileno(), said, told), os.environ, before=before)
    os.close(said)
    os.close(told)
    return Process(pid, status, open(out, encoding="utf-8"), open(err, encoding="utf-8"))


def start_on_terminal(words: Sequence[str], terminal: int, environment: Mapping[str, str]) -> Process:
    """`optimize` with the file `terminal` as its terminal, in a separate environment."""
    pid, status = _forked(words, (terminal,) * 3, environment, is_terminal=True)
    return Process(pid, status, None, None)


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for what another process does, for two minutes at most."""
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _forked(
    words: Sequence[str],
    files: tuple[int, int, int],
    environment: Mapping[str, str],
    *,
    is_terminal: bool = False,
    before: str = "",
) -> tuple[int, int]:
    """The id of the new process, and the file to read its exit code from."""
    status, ends = os.pipe()
    asked = {"words": words, "folder": os.getcwd(), "env": dict(environment)}
    asked |= {"is_terminal": is_terminal, "before": before}
    door = _server()
    socket.send_fds(door, [json.dumps(asked).encode()], [*files, ends])
    os.close(ends)
    said = door.recv(_MOST_BYTES)
    assert said, "the process that forks commands has ended; what it said stands above"
    return int(said), status


@cache
def _server() -> socket.socket:
    """The socket of this process's own server, which ends when the socket is closed: with this process, or before."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command, nothing = [sys.executable, "-m", "tests.warm", str(theirs.fileno())], subprocess.DEVNULL
        subprocess.Popen(
            command, cwd=ROOT, stdin=nothing, stdout=nothing, pass_fds=[theirs.fileno()], start_new_session=True
        )
    return ours


# -- the server


def _serve(door: socket.socket) -> None:
    """Forks a process for each request, one after the other, and says how each ended."""
    heard, rings = socket.socketpair()
    rings.setblocking(False)
    signal.set_wakeup_fd(rings.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    running: dict[int, int] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(door, selectors.EVENT_READ)
        selector.register(heard, selectors.EVENT_READ)
        while True:
            ready = [key.fileobj for key, _ in selector.select()]
            if heard in ready:
                heard.recv(4096)
                _report(running)
            if door in ready:
                data, files, _, _ = socket.recv_fds(door, _MOST_BYTES, _FOUR)
                if not data:
                    return
                if not (pid := os.fork()):
                    for mine in (door, heard, rings):
                        mine.close()
                    _become(json.loads(data), files)
                running[pid] = files.pop()
                for file in set(files):
                    os.close(file)
                door.send(str(pid).encode())


def _report(running: dict[int, int]) -> None:
    """Writes the exit code of each child that has ended to the file that waits for it."""
    for pid in list(running):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            file = running.pop(pid)
            with contextlib.suppress(BrokenPipeError):
                os.write(file, str(os.waitstatus_to_exitcode(status)).encode())
            os.close(file)


def _become(asked: dict[str, Any], files: list[int]) -> NoReturn:
    """This process is the command: its session, files, folder, environment and signals, and then its code."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.setsid()
        for number, file in enumerate(files[:3]):
            os.dup2(file, number)
        for file in set(files):
            os.close(file)
        if asked["is_terminal"]:
            fcntl.ioctl(2, termios.TIOCSCTTY, 0)
        sys.stdin = sys.__stdin__ = _text(0, "r")
        sys.stdout = sys.__stdout__ = _text(1, "w", line_buffering=os.isatty(1))
        sys.stderr = sys.__stderr__ = _text(2, "w", line_buffering=True, errors="backslashreplace")
        os.environ.clear()
        os.environ.update(asked["env"])
        os.chdir(asked["folder"])
        sys.path.insert(1, "")  # as of `python -c`: what lies in the folder can be imported
        sys.argv = ["optimize", *asked["words"]]
        exec(asked["before"], {})
        from agent.cli import main

        main(asked["words"])
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, io.UnsupportedOperation):
                stream.flush()
        os._exit(code)


def _text(file: int, mode: str, *, line_buffering: bool = False, errors: str = "strict") -> IO[str]:
    raw = io.FileIO(file, mode, closefd=False)
    buffered = io.BufferedReader(raw) if mode == "r" else io.BufferedWriter(raw)
    return io.TextIOWrapper(buffered, "utf-8", errors, line_buffering=line_buffering)


if __name__ == "__main__":
    preload()
    for name in ALSO:
        __import__(name)
    with socket.socket(fileno=int(sys.argv[1])) as door:
        _serve(door)
