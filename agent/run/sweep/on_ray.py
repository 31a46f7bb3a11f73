"""Cells as tasks of a Ray cluster: this process asks and waits, and each cell runs on a node.

A node or worker that dies takes its cell with it; Ray starts the cell again elsewhere, where it goes on from its
ledger. So the folder of the sweep must be one that all nodes see, with locks that hold between them.
"""

from __future__ import annotations

import json
from typing import Any

from agent.cluster import join_cluster, leave_cluster
from agent.errors import error_lines
from agent.run.sweep.cell import answer, order_of
from agent.run.sweep.cells import Cell
from agent.run.sweep.processes import RETRIES, Ended


def on_node(order: str) -> str:
    """What a worker of the cluster does."""
    return answer(order)


class RayTasks:
    """A task a cell.

    Args:
        address: of a cluster, such as "auto" or "ray-head:6379", or "local".
        num_cpus: CPUs that a cell takes of a node, at least 0.
        num_gpus: GPUs that a cell takes, at least 0.

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
            found = json.loads(self._ray.get(reference))
        except self._ray.exceptions.TaskCancelledError:
            return Ended(name, "was not started", True)
        except self._ray.exceptions.RayError as error:
            return Ended(name, f"its task failed: {error_lines(error)[0]}", self._presses > 0)
        return Ended(name, found["error"], found["interrupted"])
