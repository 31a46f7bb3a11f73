"""Trains in numpy: the parts of a batch side by side, each with BLAS on one thread."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import numpy as np

from agent.models.gguf import Array
from agent.tuning.base_model import BaseModel
from agent.tuning.decoder import add_gradients, answer_loss
from agent.tuning.learner import Method, P
from agent.tuning.packing import AT_ONCE, Pack, TokenPair, packs, parts


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Rows of a step in the parts that threads work on."""

    parts: tuple[tuple[Pack, ...], ...]

    @property
    def tokens(self) -> int:
        """Those of a prefix that rows share count once."""
        return sum(len(one.ids) for part in self.parts for one in part)

    @property
    def answers(self) -> int:
        return sum(len(one.targets) for part in self.parts for one in part)


class NumpyLearner(Generic[P]):
    """An adapter or a soft prompt of a base, on its own threads."""

    def __init__(self, base: BaseModel, method: Method[P], threads: int) -> None:
        self._base, self._method, self._threads = base, method, threads
        self._gradients = [method.of() for _ in range(threads)]

    def __enter__(self) -> NumpyLearner[P]:
        from threadpoolctl import threadpool_limits

        self._pool = ThreadPoolExecutor(self._threads, "training")
        # threads of BLAS wait for each other by spinning: ruinous on a busy machine
        self._limits = threadpool_limits(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        self._limits.restore_original_limits()

    @property
    def size(self) -> int:
        return self._method.size

    @property
    def decides(self) -> list[Any]:
        return self._method.decides

    @property
    def base(self) -> str:
        return self._base.sha256

    def initial(self, seed: int) -> Array:
        return self._method.initial(seed).flat

    def batch(self, rows: Sequence[TokenPair]) -> PackedBatch:
        return PackedBatch(tuple(tuple(packs(part, AT_ONCE)) for part in parts(rows, self._threads)))

    def gradient(self, parameters: Array, batch: PackedBatch) -> tuple[float, Array]:
        tuned, answers = self._method.of(parameters), batch.answers

        def worked(part: Sequence[Pack], gradients: P) -> float:
            gradients.flat[:] = 0
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # the loop refuses what is no number
                return sum(add_gradients(self._base, tuned, one, 1 / answers, gradients) for one in part)

        used = self._gradients[: len(batch.parts)]
        loss = sum(self._pool.map(worked, batch.parts, used)) / answers
        gradient = used[0].flat
        for other in used[1:]:
            gradient += other.flat
        return loss, gradient

    def score(self, parameters: Array, rows: Sequence[TokenPair]) -> float:
        batch, tuned = packs(rows, AT_ONCE), self._method.of(parameters)
        answers = sum(len(one.targets) for one in batch)
        return -sum(answer_loss(self._base, tuned, one) for one in batch) / answers

    def write(self, folder: Path, parameters: Array) -> tuple[Path, str]:
        return self._method.write(folder, self._method.of(parameters))
