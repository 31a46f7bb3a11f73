"""Chooses the settings of a training on dev: all are trained a little, the better half goes on, until one is left.

A setting that goes on takes up where it stopped, so that the search costs the epochs of those that are given up.

Source: Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization" (2016),
section 3, with dev losses as what is compared and epochs as the resource.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, TypeVar

from agent.errors import TrainingDiverged
from agent.tuning.settings import TrainedAdapter, TrainingSettings

T = TypeVar("T")
Train = Callable[[TrainingSettings, str], Awaitable[TrainedAdapter]]
"""Trains with settings; the text says which they are."""
HALVING, ASHA, DIVERGED = "halving", "ASHA", "diverged"
LEAST_SECONDS = 1e-3
"""Of a cap: none is 0."""


@dataclass(slots=True)
class TriedSettings:
    """Settings that were tried.

    Args:
        settings: as they are without caps.
        epochs: that dev has judged.
        dev_loss: the least over them, in nats; inf: no epoch ended.
        seconds: of training.
        diverged: whether its loss became no number.
        ended: why it was not trained further: as of a trained adapter, "halving" or "ASHA" where others were better,
            "diverged". "": it was chosen.
        why: the message of the error, where it diverged.
    """

    settings: TrainingSettings
    epochs: int = 0
    dev_loss: float = math.inf
    seconds: float = 0.0
    diverged: bool = False
    ended: str = ""
    why: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; a loss that is not known is None."""
        loss = round(self.dev_loss, 5) if math.isfinite(self.dev_loss) else None
        tried = {
            name: asdict(self.settings)[name] for name in ("learning_rate", "rank") if hasattr(self.settings, name)
        }
        more = {"epochs": self.epochs, "dev_loss": loss, "seconds": round(self.seconds, 1)}
        return {**tried, **more, "diverged": self.diverged, "ended": self.ended}


@dataclass(frozen=True, slots=True)
class SettingsChoice:
    """What the search chose.

    Args:
        chosen: the settings, with what is left of a cap on seconds.
        tried: all of them, as they were tried; one alone was not.
        seconds: of training those that were not chosen.
    """

    chosen: TrainingSettings
    tried: Sequence[TriedSettings]
    seconds: float


def choice_record(choice: SettingsChoice) -> dict[str, Any]:
    """What was chosen of what, JSON-ready; `tried` is empty where there was one."""
    return {"chosen": asdict(choice.chosen), "tried": [each.as_dict() for each in choice.tried]}


async def choose_settings(settings: Sequence[TrainingSettings], train: Train, at_once: bool = False) -> SettingsChoice:
    """Trains settings until dev has chosen one of them; one alone is chosen at once.

    Args:
        settings: at least one; of equals the first is chosen. The cap on seconds of the first holds for all together.
        train: trains to where `pause_after` says, from where it was.
        at_once: whether those of a round are trained side by side; under a cap on seconds they are not.

    Raises:
        TrainingDiverged: all of them diverged.
    """
    tried = [TriedSettings(each) for each in settings]
    most, left, epochs = settings[0].max_seconds, list(tried), 1

    async def judge(each: TriedSettings, until: int) -> None:
        number = f"setting {tried.index(each) + 1} of {len(tried)}"
        try:
            made = await train(replace(_capped(most, tried, each), pause_after=until), number)
        except TrainingDiverged as error:
            each.diverged, each.ended, each.why = True, DIVERGED, str(error)
            return
        scores = made.scores[:until]  # a training that went further before has more
        each.seconds, each.epochs = made.seconds, len(scores)
        each.dev_loss = -max(scores, default=-math.inf)

    while len(left) > 1:
        await each_of([partial(judge, each, epochs) for each in left], at_once and most is None)
        ranked = sorted(left, key=lambda each: (each.diverged, each.dev_loss))  # of equals the first
        is_last = epochs >= ranked[0].settings.epochs
        left, epochs = ranked[: 1 if is_last else math.ceil(len(ranked) / 2)], 2 * epochs
        for each in ranked[len(left) :]:
            each.ended = each.ended or HALVING
    return choice_of(most, tried, left[0])


async def each_of(works: Sequence[Callable[[], Awaitable[T]]], at_once: bool) -> list[T]:
    """The results of all, made one after the other or at once; the first error ends the others."""
    if not at_once:
        return [await work() for work in works]
    running = [asyncio.ensure_future(work()) for work in works]
    try:
        return list(await asyncio.gather(*running))
    finally:
        for one in running:
            one.cancel()
        await asyncio.wait(running)


def choice_of(most: float | None, tried: Sequence[TriedSettings], best: TriedSettings) -> SettingsChoice:
    """The best of those that were tried, with what is left of a cap on seconds. Raises TrainingDiverged where it
    diverged, as then all did."""
    if best.diverged:
        raise TrainingDiverged(best.why)
    others = sum(each.seconds for each in tried if each is not best)
    return SettingsChoice(_capped(most, tried, best), tried if len(tried) > 1 else (), others)


def _capped(most: float | None, tried: Sequence[TriedSettings], own: TriedSettings) -> TrainingSettings:
    """Settings with the seconds that others leave of the cap; where they leave none a training ends after a step, or
    at the checkpoint that it has."""
    if most is None:
        return own.settings
    left = most - sum(each.seconds for each in tried if each is not own)
    return replace(own.settings, max_seconds=max(left, LEAST_SECONDS))
