"""Epochs and steps of one training; where it ends, and what its checkpoints are named by."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

from agent.errors import InputError, TrainingDiverged
from agent.tuning.adam import Adam
from agent.tuning.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from agent.tuning.learner import B, Learner
from agent.tuning.packing import TokenPair
from agent.tuning.settings import Ended, Step, TrainingSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

OnStep = Callable[[Step], None]
OnEpoch = Callable[[int, float, float], None]
"""Is called for each epoch that ended, those of a checkpoint first: number, score, seconds of training so far."""
CAPS: tuple[Ended, ...] = ("seconds", "tokens")


class Training(Generic[B]):
    """One training: what stays the same over its epochs."""

    def __init__(
        self, learner: Learner[B], settings: TrainingSettings, folder: Path, rows: Sequence[TokenPair], scored: Any
    ) -> None:
        self.learner, self.settings, self.folder, self.rows = learner, settings, folder, rows
        self.name = _name(learner, settings, rows, scored)
        self.steps = math.ceil(len(rows) / settings.batch) * settings.epochs

    def run(
        self,
        progress: TrainingState,
        score: Callable[[Array], float] | None,
        on_step: OnStep | None,
        on_epoch: OnEpoch | None = None,
    ) -> Ended:
        """Epochs until one of the ends; a checkpoint after each."""
        if on_epoch is not None:
            for epoch, kept in enumerate(progress.scores, 1):
                on_epoch(epoch, kept, progress.seconds)
        if (ended := self._ended_before(progress)) is not None:
            return ended
        while progress.epoch < self.settings.epochs:
            if progress.scores and progress.epoch - progress.best_epoch >= self.settings.patience:
                return "early stop"
            if self.settings.pause_after is not None and progress.epoch >= self.settings.pause_after:
                return "paused"
            if (cap := self.epoch(progress, on_step)) is not None:
                save_checkpoint(self.folder, self._at_cap(cap), progress)
                return cap
            progress.epoch += 1
            if score is not None:
                _judge(progress, score(progress.parameters))
            else:
                progress.best = progress.parameters
            save_checkpoint(self.folder, self.name, progress)
            if on_epoch is not None and progress.scores:
                on_epoch(progress.epoch, progress.scores[-1], progress.seconds)
        return "epochs"

    def _ended_before(self, progress: TrainingState) -> Ended | None:
        """The cap at which this very training ended before, its state then put into `progress`; None: at none."""
        for cap in CAPS:
            if kept := load_checkpoint(self.folder, self._at_cap(cap), progress.parameters.size):
                for field in fields(kept):
                    setattr(progress, field.name, getattr(kept, field.name))
                return cap
        return None

    def _at_cap(self, cap: Ended) -> str:
        """What a checkpoint is named by that a cap left in the middle of an epoch: a run without it goes by others."""
        most = self.settings.max_seconds if cap == "seconds" else self.settings.max_tokens
        return f"{self.name}-{cap}-{most or 0:.3f}"

    def begun(self) -> TrainingState:
        """The state of the last checkpoint, or that before the first step."""
        if (kept := load_checkpoint(self.folder, self.name, self.learner.size)) and kept.epoch <= self.settings.epochs:
            return kept
        first = self.learner.initial(self.settings.seed)
        return TrainingState(first, Adam(first * 0, first * 0), first)

    def epoch(self, progress: TrainingState, on_step: OnStep | None) -> Ended | None:
        """Every row once; the cap that would be passed, where one ended it."""
        import numpy as np

        order = np.random.default_rng([self.settings.seed, progress.epoch]).permutation(len(self.rows))
        last = 0.0
        for start in range(0, len(order), self.settings.batch):
            began = time.monotonic()
            batch = self.learner.batch([self.rows[at] for at in order[start : start + self.settings.batch]])
            if (cap := self._cap(progress, batch.tokens, last)) is not None:
                return cap
            loss = self._step(progress, batch)
            last = time.monotonic() - began
            progress.seconds += last
            progress.tokens += batch.tokens
            progress.losses.append(loss)
            if on_step is not None:
                done = progress.adam.step
                on_step(Step(progress.epoch + 1, done, self.steps, loss, progress.tokens, progress.seconds))
        return None

    def _cap(self, progress: TrainingState, tokens: int, seconds: float) -> Ended | None:
        """The cap that a step of so many tokens, as long as the last one, would pass."""
        most = self.settings
        if most.max_tokens is not None and progress.tokens + tokens > most.max_tokens:
            if not progress.losses:
                raise InputError(f"max_tokens is {most.max_tokens}, and the first step alone has {tokens} tokens")
            return "tokens"
        if most.max_seconds is not None and progress.losses and progress.seconds + seconds > most.max_seconds:
            return "seconds"
        return None

    def _step(self, progress: TrainingState, batch: B) -> float:
        """One step of Adam; the mean loss of the batch's answer tokens before it."""
        import numpy as np

        loss, gradient = self.learner.gradient(progress.parameters, batch)
        with np.errstate(over="ignore", invalid="ignore"):
            length = progress.adam.update(progress.parameters, gradient, self.settings.learning_rate)
        if not math.isfinite(loss + length):
            raise TrainingDiverged(
                f"the training diverged at step {progress.adam.step} (loss {loss}); take a learning rate below "
                f"{self.settings.learning_rate:g}"
            )
        return loss


def _judge(progress: TrainingState, score: float) -> None:
    """Notes an epoch's score; its parameters are kept where none before was as good."""
    if not math.isfinite(score):
        raise InputError(f"the validation of epoch {progress.epoch} gave {score}, which is no score")
    if not progress.scores or score > max(progress.scores):
        progress.best, progress.best_epoch = progress.parameters.copy(), progress.epoch
    progress.scores.append(score)


def _name(learner: Learner[B], settings: TrainingSettings, rows: Sequence[TokenPair], scored: Any) -> str:
    """A hash of all that decides the parameters and the score after an epoch (of the caller's function, that it is)."""
    how = [*learner.decides, settings.learning_rate, settings.batch, settings.seed, settings.threads]
    of = [learner.base, how, [[row.prompt, row.answer] for row in rows], scored]
    return hashlib.sha256(json.dumps(of).encode()).hexdigest()[:16]
