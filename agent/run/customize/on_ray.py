"""Trainings as tasks of a Ray cluster: a node trains, this process gets the steps as they are done, and then the files.

Ledger, budget and gateway stay in this process. A worker or node that dies takes its training with it; another node
goes on from the last checkpoint where both see one disk, and begins again where they do not.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from tempfile import NamedTemporaryFile
from typing import IO, Any

from agent.cluster import join_cluster, leave_cluster
from agent.errors import AgentError, InputError, Interrupted, TrainingDiverged, error_lines
from agent.files import sha256_of
from agent.run.customize.order import (
    Files,
    TrainingOrder,
    carry_out,
    checkpoints,
    deciding_versions,
    files_to_send,
    write_files,
)
from agent.run.sweep.processes import RETRIES
from agent.tuning.settings import Step, TrainedAdapter, Trainer, TrainingPair, TrainingSettings

LOOK_SECONDS = 0.5
"""Of training between two messages of a node, and between two looks at whether the run was stopped."""


def on_node(order: TrainingOrder) -> Iterator[Any]:
    """What a worker does: gives lists of steps, and at last the result with its files, or the error."""
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
        except AgentError as error:
            yield plain(error)
        finally:
            left.set()


def plain(error: AgentError) -> AgentError:
    """An error that survives the way from a node: its message, in one of two classes."""
    return TrainingDiverged(str(error)) if isinstance(error, TrainingDiverged) else InputError(str(error))


class RayTrainings:
    """A cluster that trains.

    Args:
        address: of a cluster, such as "auto" or "ray-head:6379", or "local".

    Raises:
        InputError: Ray is not installed, or there is no such cluster.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.ray = join_cluster(address, "--ray")
        self._task = self.ray.remote(num_returns="streaming", max_retries=0)(on_node)
        self._digests: dict[Path, str] = {}
        self._sent: dict[Hashable, str] = {}
        self._markers: dict[Path, IO[bytes]] = {}

    def close(self) -> None:
        for marker in self._markers.values():
            marker.close()
        leave_cluster(self.ray)

    def resources(self, trainer: Trainer, settings: TrainingSettings) -> dict[str, float]:
        """What a training takes of a node: a CPU for each thread, as far as a node has them, and a GPU for PyTorch."""
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        most = max((node.get("CPU", 0.0) for node in nodes), default=0.0)
        gpu = trainer == "peft" and any(node.get("GPU", 0.0) >= 1 for node in nodes)
        return {"num_cpus": min(settings.threads, most) or settings.threads, "num_gpus": float(gpu)}

    def order(
        self,
        base: Path,
        pairs: Sequence[TrainingPair],
        settings: TrainingSettings,
        *,
        folder: Path,
        trainer: Trainer,
        weights: Path | None,
        validation: Sequence[TrainingPair],
    ) -> TrainingOrder:
        """What a node is sent for a training; the arguments are those of `train_pairs`."""
        base = base.absolute()
        if base not in self._digests:
            self._digests[base] = sha256_of(base)
        if folder not in self._markers:
            folder.mkdir(parents=True, exist_ok=True)
            self._markers[folder] = NamedTemporaryFile(prefix=".ray-", dir=folder)  # noqa: SIM115 (`close` closes it)
        return TrainingOrder(
            base=base,
            digest=self._digests[base],
            pairs=tuple(pairs),
            validation=tuple(validation),
            settings=settings,
            folder=folder.absolute(),
            marker=Path(self._markers[folder].name).absolute(),
            trainer=trainer,
            weights=None if weights is None else weights.absolute(),
            versions=deciding_versions(trainer),
        )

    async def train(
        self,
        base: Path,
        pairs: Sequence[TrainingPair],
        settings: TrainingSettings,
        *,
        folder: Path,
        on_steps: Callable[[Sequence[Step]], None],
        **how: Any,
    ) -> TrainedAdapter:
        """As `train_pairs`, on a node; its files are in `folder` afterwards.

        Args:
            on_steps: gets the steps since the last call, and at least each half second none; what it raises ends the
                training. Steps that are made again after a node died come again.

        Raises:
            InputError: as `train_pairs`, or the node has another model or other packages.
            AgentError: the workers of this training died too often.
        """
        order = self.order(base, pairs, settings, folder=folder, **how)
        key = (order.pairs, order.trainer, replace(settings, pause_after=None, max_seconds=None))
        if key in self._sent:
            order = replace(order, kept=checkpoints(order.folder, self._sent[key]))
        errors, lives = self.ray.exceptions, 1 + RETRIES
        while True:
            try:
                made, files = await self._once(order, on_steps)
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
            write_files(folder, files)
            self._sent[key] = made.training
        return replace(made, path=folder / made.path.name)

    async def _once(
        self, order: TrainingOrder, on_steps: Callable[[Sequence[Step]], None]
    ) -> tuple[TrainedAdapter, Files]:
        """One life of a training: its result, and the files that had to be sent."""
        stream = self._task.options(**self.resources(order.trainer, order.settings)).remote(order)
        work = asyncio.ensure_future(_received(stream, on_steps))
        try:
            while not work.done():
                on_steps(())
                await asyncio.wait({work}, timeout=LOOK_SECONDS)
            return work.result()
        finally:
            work.cancel()
            self.ray.cancel(stream)  # nothing where it has ended


async def _received(stream: Any, on_steps: Callable[[Sequence[Step]], None]) -> tuple[TrainedAdapter, Files]:
    async for reference in stream:
        got = await reference
        if isinstance(got, AgentError):
            raise got
        if isinstance(got, tuple):
            return got
        on_steps(got)
    raise AgentError("a node ended a training without its result")
