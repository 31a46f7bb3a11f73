"""`optimize` as a process: forked off this one, which has everything imported, or started from nothing.

A fork is the same program without its second of imports. It knows no ledger and no fault.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

START = "import sys; sys.argv[0] = 'optimize'; from agent.cli import main; main()"
HEAVY = (
    *("agent.cli.run", "agent.cli.resume", "agent.cli.runs", "agent.optimize", "agent.task.intake", "agent.task.parse"),
    *("agent.ledger.store", "agent.models.openai", "agent.models.catalog", "openai", "openai.types", "aiohttp"),
    *("dspy", "optuna", "scipy.stats"),
)

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
    """One `optimize` process that runs."""

    def __init__(self, pid: int, out: Path) -> None:
        self.pid = pid
        self._started = time.monotonic()
        self._out = out
        self._ended: Ended | None = None

    def poll(self) -> Ended | None:
        """How it ended, or None while it runs."""
        if self._ended is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                out, err = (self._out.with_suffix(tail).read_text("utf-8", "replace") for tail in (".out", ".err"))
                seconds = time.monotonic() - self._started
                self._ended = Ended(os.waitstatus_to_exitcode(status), out, err, seconds, usage.ru_maxrss)
        return self._ended

    def wait(self, seconds: float = 60.0) -> Ended:
        """Waits for the end; TimeoutError, and the process is killed, when it takes longer."""
        deadline = time.monotonic() + seconds
        while (ended := self.poll()) is None:
            if time.monotonic() > deadline:
                self.send(signal.SIGKILL)
                self.wait()
                raise TimeoutError(
                    f"still running after {seconds:g} s: {self._out.with_suffix('.err').read_text()[-500:]}"
                )
            time.sleep(0.002)
        return ended

    def send(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> Ended:
        self.send(signal.SIGKILL)
        return self.wait()


def preload() -> None:
    """Imports what a run imports late, before anything is forked."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # a forked process has one thread
    for name in HEAVY:
        import_module(name)
    gc.collect()
    gc.freeze()


def fork(words: Sequence[str], folder: Path, env: Mapping[str, str], out: Path, hook: Hook | None) -> Command:
    """`optimize` with `words` in `folder`; `hook` runs in the new process before it. Output goes to `out` and .err."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return Command(pid, out)
    code = 1
    try:
        _become(folder, env, out)
        sys.argv = ["optimize", *words]
        if hook is not None:
            hook()
        from agent.cli import main

        main(list(words))
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
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for number, path, how in ((0, Path(os.devnull), os.O_RDONLY), (1, out, flags), (2, out.with_suffix(".err"), flags)):
        file = os.open(path, how, 0o600)
        os.dup2(file, number)
        os.close(file)


def spawn(words: Sequence[str], folder: Path, env: Mapping[str, str], out: Path, prefix: Sequence[str] = ()) -> Command:
    """The same from nothing; `prefix` is a program around it."""
    with out.open("wb") as stdout, out.with_suffix(".err").open("wb") as stderr:
        process = subprocess.Popen(
            [*prefix, sys.executable, "-c", START, *words],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    process.returncode = 0  # a Command waits for it, not Popen
    return Command(process.pid, out)
