"""Trainings as tasks of a Ray cluster.

Ledger, budget and gateway stay in this process; a node sends its steps, then its files. When a worker or node dies,
another node continues from the last checkpoint if both see one disk, and starts over otherwise.
"""

from __future__ import annotations

import asyncio
import platform
import threading
from collections.abc import Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from tempfile import NamedTemporaryFile
from typing import IO, Any

from agent.cluster import RETRIES, join_cluster, leave_cluster
from agent.errors import AgentError, InputError, Interrupted, TrainingDiverged, error_lines
from agent.jobs.customize.training import OnSteps, deciding_versions
from agent.safe_file import new_file, sha256_of
from agent.training.loop import OnStep, TrainingOrder
from agent.training.settings import Step, TrainedAdapter

LOOK_SECONDS = 0.5
"""Interval of messages from a node, and of checks whether the run was stopped."""
Files = Sequence[tuple[str, bytes]]
"""Names and contents of files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOrder(TrainingOrder):
    """A training for a node, with absolute paths; `base` (SHA-256: `digest`) is the same file on each node.

    A node that sees `marker` shares our disk and sends no files; another continues from the checkpoints in `kept`.
    `versions`: of the packages that decide the result; a node with others is refused.
    """

    digest: str
    marker: Path
    versions: Mapping[str, str]
    kept: Files = ()


# -- on the node ------------------------------------------------------------------------------------------------------


def carry_out(order: NodeOrder, on_step: OnStep) -> TrainedAdapter:
    """Train on this node.

    Raises InputError as `TrainingOrder.train`, or where its model or packages differ.
    """
    node = f"node {platform.node()}"
    if not order.base.is_file() or sha256_of(order.base) != order.digest:
        what = "is another file" if order.base.is_file() else "is missing"
        raise InputError(f"{node}: {order.base}: {what}; give every node the same file under this path")
    here = deciding_versions(order.trainer)
    if other := [f"{name} {here[name]}, not {known}" for name, known in order.versions.items() if here[name] != known]:
        raise InputError(f"{node}: has {', '.join(other)}; install the same versions on every node")
    write_files(order.folder, order.kept)
    return order.train(on_step)


def on_node(order: NodeOrder) -> Iterator[Any]:
    """Train in a worker. Yields lists of steps, then the result with files or error."""
    steps: SimpleQueue[Step] = SimpleQueue()
    left = threading.Event()

    def on_step(step: Step) -> None:
        if left.is_set():
            raise Interrupted
        steps.put(step)

    with ThreadPoolExecutor(1) as pool:
        try:
            work = pool.submit(carry_out, order, on_step)
            while not work.done():
                wait({work}, LOOK_SECONDS)
                yield [steps.get() for _ in range(steps.qsize())]
            yield [steps.get() for _ in range(steps.qsize())]
            yield work.result(), files_to_send(order, work.result())
        except AgentError as error:  # its message survives the way from a node, in one of two classes
            yield TrainingDiverged(str(error)) if isinstance(error, TrainingDiverged) else InputError(str(error))
        finally:
            left.set()


def checkpoints(folder: Path, training: str) -> Files:
    return [(path.name, path.read_bytes()) for path in sorted(folder.glob(f"{training}-*.npz"))]


def files_to_send(order: NodeOrder, made: TrainedAdapter) -> Files:
    """Return the result and its checkpoints; nothing where the node shares our disk."""
    if order.marker.is_file():
        return []
    return [(made.path.name, made.path.read_bytes()), *checkpoints(order.folder, made.training)]


def write_files(folder: Path, files: Files) -> None:
    """Write files into a folder; keep existing ones."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files:
        path = folder / Path(name).name
        if not path.exists():
            with new_file(path) as file:
                file.write(content)


# -- in this process --------------------------------------------------------------------------------------------------


class RayTrainings:
    """A cluster that trains. Raises InputError without Ray or without such a cluster."""

    at_once = True

    def __init__(self, address: str) -> None:
        self.address = address
        self.ray = join_cluster(address, "--ray")
        self._task = self.ray.remote(num_returns="streaming", max_retries=0)(on_node)
        self._digest = cache(sha256_of)
        self._sent: dict[Hashable, str] = {}
        self._markers: dict[Path, IO[bytes]] = {}

    def close(self) -> None:
        for marker in self._markers.values():
            marker.close()
        leave_cluster(self.ray)

    def resources(self, order: TrainingOrder) -> dict[str, float]:
        """Return a CPU per thread, if a node has them, and a GPU for PyTorch."""
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        most, threads = max((node.get("CPU", 0.0) for node in nodes), default=0.0), order.settings.threads
        gpu = order.trainer == "peft" and any(node.get("GPU", 0.0) >= 1 for node in nodes)
        return {"num_cpus": min(threads, most) or threads, "num_gpus": float(gpu)}

    def order(self, order: TrainingOrder) -> NodeOrder:
        base, folder = order.base.absolute(), order.folder
        if folder not in self._markers:
            folder.mkdir(parents=True, exist_ok=True)
            self._markers[folder] = NamedTemporaryFile(prefix=".ray-", dir=folder)  # noqa: SIM115 (`close` closes it)
        same = {field.name: getattr(order, field.name) for field in fields(TrainingOrder)}
        there = {"base": base, "folder": folder.absolute(), "weights": order.weights and order.weights.absolute()}
        return NodeOrder(
            **{**same, **there},
            digest=self._digest(base),
            marker=Path(self._markers[folder].name).absolute(),
            versions=deciding_versions(order.trainer),
        )

    async def train(self, order: TrainingOrder, on_steps: OnSteps) -> TrainedAdapter:
        """Train on a node, as `Here.train`, and bring its files into the order's folder.

        After a node died steps are repeated. Raises AgentError where the workers died too often.
        """
        sent, uncapped = self.order(order), replace(order.settings, pause_after=None, max_seconds=None)
        key = (tuple(order.rows), order.trainer, uncapped)
        if key in self._sent:
            sent = replace(sent, kept=checkpoints(sent.folder, self._sent[key]))
        errors, lives = self.ray.exceptions, 1 + RETRIES
        while True:
            try:
                made, files = await self._once(sent, on_steps)
                break
            except errors.RayTaskError as error:
                last = error_lines(error)[-1]
                raise AgentError(f"a training failed on a node of --ray {self.address}: {last}") from error
            except errors.RayError as error:
                lives -= 1
                if not lives:
                    why = error_lines(error)[0]
                    raise AgentError(f"the workers of a training died {1 + RETRIES} times: {why}") from error
        if files:
            write_files(order.folder, files)
            self._sent[key] = made.training
        return replace(made, path=order.folder / made.path.name)

    async def _once(self, order: NodeOrder, on_steps: OnSteps) -> tuple[TrainedAdapter, Files]:
        stream = self._task.options(**self.resources(order)).remote(order)

        async def received() -> tuple[TrainedAdapter, Files]:
            async for reference in stream:
                got = await reference
                if isinstance(got, AgentError):
                    raise got
                if isinstance(got, tuple):
                    return got
                on_steps(*got)
            raise AgentError("a node ended a training without its result")

        work = asyncio.ensure_future(received())
        try:
            while not work.done():
                on_steps()
                await asyncio.wait({work}, timeout=LOOK_SECONDS)
            return work.result()
        finally:
            work.cancel()
            self.ray.cancel(stream)  # nothing where it has ended
