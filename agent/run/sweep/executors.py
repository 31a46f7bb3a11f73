"""Where cells run: as child processes of this machine, or as tasks of a Ray cluster.

On a cluster this process asks and waits. A node or worker that dies takes its cell with it; Ray starts the cell again
elsewhere, where it continues from its ledger. So all nodes must see the folder of the sweep, with locks that hold
between them.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from typing import IO, Any, Protocol

from agent.cluster import join_cluster, leave_cluster
from agent.errors import error_lines
from agent.run.sweep.cell import answer, order_of
from agent.run.sweep.cells import Cell

RETRIES = 2
"""How often a cell whose process or node was killed is gone on with."""
_CHILD = "import promptassay; from agent.run.sweep.cell import main; main()"
_NOT_STARTED = "was not started"


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


# -- this machine -----------------------------------------------------------------------------------------------------


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
            found += [Ended(cell.name, _NOT_STARTED, True) for cell, _ in self._waiting]
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
            return False, _answered(name, said)
        except ValueError:
            why = f"its process ended with {process.returncode}{f': {last}' if last else ''}"
            return process.returncode < 0, Ended(name, why, self._stopped)


def _answered(name: str, said: str) -> Ended:
    found: dict[str, Any] = json.loads(said)
    return Ended(name, found["error"], found["interrupted"])


# -- a Ray cluster ----------------------------------------------------------------------------------------------------


def on_node(order: str) -> str:
    return answer(order)


class RayTasks:
    """A task a cell.

    Args:
        address: of a cluster, such as "auto" or "ray-head:6379", or "local".

    Raises:
        InputError: Ray is not installed, or there is no such cluster.
    """

    def __init__(self, address: str, num_cpus: float, num_gpus: float) -> None:
        ray = self._ray = join_cluster(address, "--ray")
        self._task = ray.remote(num_cpus=num_cpus, num_gpus=num_gpus, max_retries=RETRIES)(on_node)
        self._names: dict[Any, str] = {}
        self._presses = 0

    def submit(self, cell: Cell) -> None:
        self._names[self._task.options(name=cell.name).remote(order_of(cell))] = cell.name

    def ended(self) -> list[Ended]:
        if not self._names:
            return []
        ready, _ = self._ray.wait(list(self._names), num_returns=len(self._names), timeout=0)
        return [self._end(reference) for reference in ready]

    def interrupt(self) -> None:
        self._presses += 1
        for reference in self._names:
            self._ray.cancel(reference, force=self._presses > 1)

    def close(self) -> None:
        leave_cluster(self._ray)

    def _end(self, reference: Any) -> Ended:
        name = self._names.pop(reference)
        try:
            return _answered(name, self._ray.get(reference))
        except self._ray.exceptions.TaskCancelledError:
            return Ended(name, _NOT_STARTED, True)
        except self._ray.exceptions.RayError as error:
            return Ended(name, f"its task failed: {error_lines(error)[0]}", self._presses > 0)
