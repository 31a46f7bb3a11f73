"""`optimize` as a process: forked off this one, which has everything imported, or started from nothing.

A fork is the same program without its second of imports. A command exists only once it has its own folder,
session and files, so a signal meets it and not a half-made copy of this process. It knows no ledger and no fault.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

START = "import sys; sys.argv[0] = 'optimize'; from agent.cli import main; main()"
HEAVY = (
    *("agent.jobs.search", "agent.jobs.show", "agent.jobs.runs", "agent.jobs.optimize"),
    *("agent.task.from_file", "agent.task.task_file"),
    *("agent.ledger.store", "agent.models.openai", "agent.models.model_registry", "openai", "openai.types", "aiohttp"),
    *(
        "agent.jobs.session",
        "agent.jobs.optimize",
        "agent.programs.agent",
        "agent.programs.prompt",
        "agent.programs.classic",
        "agent.release.promotion",
        "agent.search.evolve.evolve",
        "agent.programs.moves.author",
        "agent.report.run_blocks",
        "httpcore2",
        "anyio",
    ),
    *("dspy", "optuna", "scipy.stats"),
)

ENDERS = (signal.SIGINT, signal.SIGTERM)
"""What ends this process, and must not while a child is neither on record nor on its own."""
PATIENCE = 120.0
"""Seconds after which a command hangs. Each takes a few on an idle machine, and the machine may be busy."""
GONE = 255
"""The exit code of a command that somebody else has waited for."""

Hook = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that is over. `code` is negative for a signal; `peak_kb` the most memory that it had."""

    code: int
    out: str
    err: str
    seconds: float
    peak_kb: int

    @property
    def last_line(self) -> str:
        return (self.err.splitlines() or [""])[-1]

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("error: ")]

    def told(self, code: int = 1) -> list[str]:
        """What is wrong with an end that should be `code`, one line of error and, last, the command that resumes."""
        wrong = [] if self.code == code else [f"exit {self.code} for {code}: {self.err[-300:]!r}"]
        if code == 1 and len(self.errors) != 1:
            wrong.append(f"{len(self.errors)} lines of error")
        if not self.last_line.startswith("optimize resume "):
            wrong.append(f"the last line does not resume: {self.last_line!r}")
        return wrong


class Command:
    """One `optimize` process. What it is asked holds also when the process or its files are gone."""

    def __init__(self, pid: int, out: Path) -> None:
        self.pid = pid
        self._started = time.monotonic()
        self._out = out
        self._ended: Ended | None = None

    def poll(self) -> Ended | None:
        """How it ended, or None while it runs."""
        if self._ended is None:
            try:
                pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            except ChildProcessError:
                said = f"{self.err()}\nthe process is gone, and nobody knows how it ended"
                self._ended = Ended(GONE, self._read(".out"), said, time.monotonic() - self._started, 0)
                return self._ended
            if pid:
                code, seconds = os.waitstatus_to_exitcode(status), time.monotonic() - self._started
                self._ended = Ended(code, self._read(".out"), self.err(), seconds, usage.ru_maxrss)
        return self._ended

    def wait(self, seconds: float = PATIENCE) -> Ended:
        """Waits for the end; TimeoutError, and the process is killed, when it takes longer."""
        if (ended := self._within(seconds)) is None:
            self.end()
            raise TimeoutError(f"still running after {seconds:g} s: {self.err()[-500:]}")
        return ended

    def send(self, number: signal.Signals) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> Ended:
        self.send(signal.SIGKILL)
        return self.wait()

    def end(self) -> None:
        """Kills it and what it started, if it still runs: under strace, the program is another process."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._within(10.0)

    def err(self) -> str:
        """What it has said on stderr so far."""
        return self._read(".err")

    def _within(self, seconds: float) -> Ended | None:
        deadline = time.monotonic() + seconds
        while (ended := self.poll()) is None and time.monotonic() < deadline:
            time.sleep(0.002)
        return ended

    def _read(self, tail: str) -> str:
        try:
            return self._out.with_suffix(tail).read_text("utf-8", "replace")
        except FileNotFoundError:
            return ""


def preload() -> None:
    """Imports what a run imports late, before anything is forked."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # a forked process has one thread
    for name in HEAVY:
        import_module(name)
    gc.collect()
    gc.freeze()


@contextlib.contextmanager
def held() -> Iterator[None]:
    """What would end this process waits until the block is over."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDERS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def fork(words: Sequence[str], folder: Path, env: Mapping[str, str], out: Path, hook: Hook | None) -> Command:
    """`optimize` with `words` in `folder`; `hook` runs in the new process before it. Output goes to `out` and .err."""

    def program(begins: int) -> None:
        os.close(begins)
        sys.argv = ["optimize", *words]
        if hook is not None:
            hook()
        from agent.cli import main

        main(list(words))

    return _start(program, folder, env, out)


def spawn(words: Sequence[str], folder: Path, env: Mapping[str, str], out: Path, prefix: Sequence[str] = ()) -> Command:
    """The same from nothing; `prefix` is a program around it."""
    command = [*prefix, sys.executable, "-c", START, *words]
    return _start(lambda begins: os.execvpe(command[0], command, env), folder, env, out)


def _start(program: Callable[[int], None], folder: Path, env: Mapping[str, str], out: Path) -> Command:
    """A child that runs `program`, which has begun when the file that it is given is closed, by itself or by exec."""
    sys.stdout.flush()
    sys.stderr.flush()
    with held():
        begun, begins = os.pipe()
        if pid := os.fork():
            os.close(begins)
            select.select([begun], [], [], PATIENCE)
            os.close(begun)
            return Command(pid, out)
        code = 1
        try:
            os.close(begun)
            _become(folder, env, out)
            program(begins)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)


def _become(folder: Path, env: Mapping[str, str], out: Path) -> None:
    """The child stands on its own: session, folder, environment, files, and signals as in a new process."""
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for number, path, how in ((0, Path(os.devnull), os.O_RDONLY), (1, out, flags), (2, out.with_suffix(".err"), flags)):
        file = os.open(path, how, 0o600)
        os.dup2(file, number)
        os.close(file)
    for ender in ENDERS:
        signal.signal(ender, signal.SIG_IGN)  # forgets what was meant for the parent
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # a nohup around the campaign is not meant for its commands
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDERS)
