"""Runs the cells of a sweep as child processes, or as tasks of a Ray cluster.

When a node or worker dies, Ray starts its cell again elsewhere, where it continues from its ledger. So all nodes must
see the folder of the sweep, with file locks that work between them.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

from agent.cluster import RETRIES, join_cluster, leave_cluster
from agent.errors import error_lines
from agent.jobs.sweep.cells import Cell, Ended, carry_out

_CHILD = "import promptassay; from agent.jobs.sweep.cells import main; main()"
_NOT_STARTED = Ended("was not started", True)


class Processes:
    """Runs cells as child processes, at most `jobs` at once.

    `end_of` a finished future: how its cell ended. `interrupt` stops starting cells, and first finishes calls in
    flight; the second time it stops at once.
    """

    def __init__(self, jobs: int) -> None:
        self._pool = ThreadPoolExecutor(jobs)
        self._running: set[subprocess.Popen[str]] = set()
        self._changing = threading.Lock()
        self._stopped = False

    def submit(self, cell: Cell) -> Future[Ended]:
        return self._pool.submit(self._run, cell.order)

    def end_of(self, future: Future[Ended]) -> Ended:
        try:
            return future.result()
        except CancelledError:
            return _NOT_STARTED

    def interrupt(self) -> None:
        with self._changing:
            self._stopped = True
            self._pool.shutdown(wait=False, cancel_futures=True)
            for process in self._running:
                process.send_signal(signal.SIGINT)

    def close(self) -> None:
        with self._changing:
            self._stopped = True
            for process in self._running:
                process.kill()
        self._pool.shutdown(cancel_futures=True)

    def _run(self, order: str) -> Ended:
        end = _NOT_STARTED
        for _ in range(1 + RETRIES):
            with tempfile.TemporaryFile() as errors:
                with self._changing:
                    if self._stopped:
                        return end
                    process = subprocess.Popen(
                        [sys.executable, "-X", "utf8", "-c", _CHILD],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=errors,
                        text=True,
                        encoding="utf-8",
                        start_new_session=True,  # a Ctrl-C of the terminal comes to us alone
                    )
                    self._running.add(process)
                with process:
                    assert process.stdin is not None
                    assert process.stdout is not None
                    with contextlib.suppress(BrokenPipeError):  # it has ended
                        process.stdin.write(f"{order}\n")
                        process.stdin.flush()
                    said = process.stdout.read()
                with self._changing:
                    self._running.remove(process)
                errors.seek(0)
                last = errors.read()[-2000:].decode("utf-8", "replace").strip().rpartition("\n")[2]
            with contextlib.suppress(ValueError):
                return Ended(**json.loads(said))
            why = f"its process ended with {process.returncode}{f': {last}' if last else ''}"
            end = Ended(why, self._stopped)
            if process.returncode >= 0:
                break
        return end


class RayTasks:
    """Runs cells as Ray tasks, as `Processes` does. Raises InputError without Ray or without such a cluster."""

    def __init__(self, address: str, num_cpus: float, num_gpus: float) -> None:
        self._ray = join_cluster(address, "--ray")
        self._task = self._ray.remote(num_cpus=num_cpus, num_gpus=num_gpus, max_retries=RETRIES)(carry_out)
        self._running: dict[Future[Ended], Any] = {}
        self._presses = 0

    def submit(self, cell: Cell) -> Future[Ended]:
        reference = self._task.options(name=cell.name).remote(cell.order)
        future: Future[Ended] = reference.future()
        self._running[future] = reference
        return future

    def end_of(self, future: Future[Ended]) -> Ended:
        del self._running[future]
        try:
            return future.result()
        except self._ray.exceptions.TaskCancelledError:
            return _NOT_STARTED
        except self._ray.exceptions.RayError as error:
            return Ended(f"its task failed: {error_lines(error)[0]}", self._presses > 0)

    def interrupt(self) -> None:
        self._presses += 1
        for reference in self._running.values():
            self._ray.cancel(reference, force=self._presses > 1)

    def close(self) -> None:
        leave_cluster(self._ray)


CellExecutor = Processes | RayTasks
