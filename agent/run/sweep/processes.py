"""Cells as child processes of this machine, so many at once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from typing import IO, Any, Protocol

from agent.run.sweep.cell import order_of
from agent.run.sweep.cells import Cell

RETRIES = 2
"""How often a cell whose process or node was killed is gone on with."""
_CHILD = "import promptassay; from agent.run.sweep.cell import main; main()"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a cell ended. `error`: "" where it has its result."""

    name: str
    error: str = ""
    interrupted: bool = False


class Executor(Protocol):
    """Where cells run."""

    def submit(self, cell: Cell) -> None:
        """Starts a cell as soon as there is room for it."""

    def ended(self) -> list[Ended]:
        """The cells that have ended since the last time. Does not wait."""

    def interrupt(self) -> None:
        """The first time what is in flight lands, the second time cells are left at once; none is started any more."""

    def close(self) -> None:
        """Ends what still runs."""


@dataclass(slots=True)
class _Child:
    cell: Cell
    process: subprocess.Popen[str]
    errors: IO[bytes]
    lives: int


@dataclass(slots=True)
class Processes:
    """At most `jobs` child processes at once, at least 1."""

    jobs: int
    _waiting: list[tuple[Cell, int]] = field(default_factory=list)
    _running: list[_Child] = field(default_factory=list)
    _stopped: bool = False

    def submit(self, cell: Cell) -> None:
        self._waiting.append((cell, 1 + RETRIES))
        self._fill()

    def ended(self) -> list[Ended]:
        found = []
        for child in [child for child in self._running if child.process.poll() is not None]:
            self._running.remove(child)
            killed, end = self._end(child)
            if killed and child.lives > 1 and not self._stopped:
                self._waiting.insert(0, (child.cell, child.lives - 1))
            else:
                found.append(end)
        if self._stopped:
            found += [Ended(cell.name, "was not started", True) for cell, _ in self._waiting]
            self._waiting.clear()
        self._fill()
        return found

    def interrupt(self) -> None:
        self._stopped = True
        for child in self._running:
            child.process.send_signal(signal.SIGINT)

    def close(self) -> None:
        for child in self._running:
            child.process.kill()
            child.process.wait()
            self._end(child)
        self._running.clear()

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self.jobs and not self._stopped:
            cell, lives = self._waiting.pop(0)
            errors = tempfile.TemporaryFile()  # noqa: SIM115 (`_end` closes it)
            process = subprocess.Popen(
                [sys.executable, "-X", "utf8", "-c", _CHILD],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                encoding="utf-8",
                start_new_session=True,  # a Ctrl-C of the terminal comes to us alone
            )
            self._running.append(_Child(cell, process, errors, lives))
            assert process.stdin is not None
            try:
                process.stdin.write(order_of(cell) + "\n")
                process.stdin.flush()
            except BrokenPipeError:
                continue  # it has ended, which `ended` sees

    def _end(self, child: _Child) -> tuple[bool, Ended]:
        """Whether a process that has ended was killed, and how its cell ended."""
        process, name = child.process, child.cell.name
        assert process.stdin is not None
        assert process.stdout is not None
        with child.errors, process.stdin, process.stdout:
            said = process.stdout.read()
            child.errors.seek(0)
            last = child.errors.read()[-2000:].decode("utf-8", "replace").strip().rpartition("\n")[2]
        try:
            found: dict[str, Any] = json.loads(said)
        except ValueError:
            why = f": {last}" if last else ""
            return process.returncode < 0, Ended(
                name, f"its process ended with {process.returncode}{why}", self._stopped
            )
        return False, Ended(name, found["error"], found["interrupted"])
