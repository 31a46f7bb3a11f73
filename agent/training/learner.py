"""The numpy learner: a flat vector of parameters with its loss and gradient."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from agent.models.gguf import Array
from agent.training.base_model import BaseModel
from agent.training.decoder import add_gradients, answer_loss
from agent.training.parameters import Parameters
from agent.training.rows import AT_ONCE, Pack, TokenPair, packs, parts


@dataclass(frozen=True, slots=True)
class LaidRows:
    """Rows of a step in the library's layout; `tokens`: without padding."""

    tokens: int
    laid: Any


class NumpyLearner:
    """A base with an adapter or a soft prompt, computed in numpy; `kind`: any parameters of that kind.

    A learner (this one or `TorchLearner`) has its trainable parameters as one flat float32 vector of `size` in the
    layout of the output file, so loop, optimizer and checkpoints are shared. `decides`: what else decides them after an
    epoch, besides rows and shared settings, JSON-ready. `base`: SHA-256 of the base weights.
    """

    def __init__(self, base: BaseModel, kind: Parameters, threads: int) -> None:
        self._base, self._kind, self._threads = base, kind, threads
        self.size, self.decides, self.base = kind.flat.size, kind.decides, base.sha256
        self._gradients = [kind.like(np.zeros_like(kind.flat)) for _ in range(threads)]

    def __enter__(self) -> NumpyLearner:
        self._pool = ThreadPoolExecutor(self._threads, "training")
        # threads of BLAS wait for each other by spinning: ruinous on a busy machine
        self._limits = threadpool_limits(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        self._limits.restore_original_limits()

    def initial(self, seed: int) -> Array:
        """Return the parameters before the first step."""
        return self._kind.initial(seed).flat

    def write(self, folder: Path, parameters: Array) -> tuple[Path, str]:
        """Write the file for an engine, named by hash; return it and its SHA-256."""
        return self._kind.like(parameters).write(folder)

    def batch(self, rows: Sequence[TokenPair]) -> LaidRows:
        """Lay out one row or more for a step."""
        laid = [packs(part, AT_ONCE) for part in parts(rows, self._threads)]
        return LaidRows(sum(len(one.ids) for part in laid for one in part), laid)

    def gradient(self, parameters: Array, batch: LaidRows) -> tuple[float, Array]:
        """Return the mean loss of the batch's answer tokens, in nats, and its gradient. It may be overwritten."""
        tuned, answers = self._kind.like(parameters), sum(len(one.targets) for part in batch.laid for one in part)

        def worked(part: Sequence[Pack], gradients: Parameters) -> float:
            gradients.flat[:] = 0
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # the loop refuses what is no number
                return sum(add_gradients(self._base, tuned, one, 1 / answers, gradients) for one in part)

        used = self._gradients[: len(batch.laid)]
        loss = sum(self._pool.map(worked, batch.laid, used)) / answers
        gradient = used[0].flat
        for other in used[1:]:
            gradient += other.flat
        return loss, gradient

    def score(self, parameters: Array, rows: Sequence[TokenPair]) -> float:
        """Return minus the mean loss of the rows' answer tokens; higher is better."""
        batch, tuned = packs(rows, AT_ONCE), self._kind.like(parameters)
        answers = sum(len(one.targets) for one in batch)
        return -sum(answer_loss(self._base, tuned, one) for one in batch) / answers
