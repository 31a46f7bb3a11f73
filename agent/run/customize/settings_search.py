"""Chooses the settings of a training on dev: all are trained a little, the better half goes on, until one is left.

A setting that goes on takes up where it stopped, so that the search costs the epochs of those that are given up.

Source: Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization" (2016),
section 3, with dev losses as what is compared and epochs as the resource.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from agent.errors import TrainingDiverged
from agent.tuning.settings import TrainedAdapter, TrainingSettings

Train = Callable[[TrainingSettings, str], Awaitable[TrainedAdapter]]
"""Trains with settings; the text says which they are."""
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
    """

    settings: TrainingSettings
    epochs: int = 0
    dev_loss: float = math.inf
    seconds: float = 0.0
    diverged: bool = False

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; a loss that is not known is None."""
        loss = round(self.dev_loss, 5) if math.isfinite(self.dev_loss) else None
        tried = {
            name: asdict(self.settings)[name] for name in ("learning_rate", "rank") if hasattr(self.settings, name)
        }
        more = {"epochs": self.epochs, "dev_loss": loss, "seconds": round(self.seconds, 1)}
        return {**tried, **more, "diverged": self.diverged}


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


async def choose_settings(settings: Sequence[TrainingSettings], train: Train) -> SettingsChoice:
    """Trains settings until dev has chosen one of them; one alone is chosen at once.

    Args:
        settings: at least one; of equals the first is chosen. The cap on seconds of the first holds for all together.
        train: trains to where `pause_after` says, from where it was.

    Raises:
        TrainingDiverged: all of them diverged.
    """
    tried = [TriedSettings(each) for each in settings]
    most, left, epochs = settings[0].max_seconds, list(tried), 1
    diverged: TrainingDiverged | None = None
    while len(left) > 1:
        for each in left:
            number = f"setting {tried.index(each) + 1} of {len(tried)}"
            try:
                made = await train(replace(_capped(most, tried, each), pause_after=epochs), number)
            except TrainingDiverged as error:
                each.diverged, diverged = True, error
                continue
            scores = made.scores[:epochs]  # a training that went further before has more
            each.seconds, each.epochs = made.seconds, len(scores)
            each.dev_loss = -max(scores, default=-math.inf)
        ranked = sorted(left, key=lambda each: (each.diverged, each.dev_loss))  # of equals the first
        is_last = epochs >= ranked[0].settings.epochs
        left, epochs = ranked[: 1 if is_last else math.ceil(len(ranked) / 2)], 2 * epochs
    best = left[0]
    if diverged is not None and best.diverged:
        raise diverged
    others = sum(each.seconds for each in tried if each is not best)
    return SettingsChoice(_capped(most, tried, best), tried if len(tried) > 1 else (), others)


def _capped(most: float | None, tried: Sequence[TriedSettings], own: TriedSettings) -> TrainingSettings:
    """Settings with the seconds that others leave of the cap; where they leave none a training ends after a step, or
    at the checkpoint that it has."""
    if most is None:
        return own.settings
    left = most - sum(each.seconds for each in tried if each is not own)
    return replace(own.settings, max_seconds=max(left, LEAST_SECONDS))
