"""Settings are chosen on dev: all begin, the better half goes on, and what cannot be trained is passed over."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pytest

from agent.errors import TrainingDiverged
from agent.jobs.customize.settings_search import choose_settings
from agent.training.settings import (
    MOST_SETTINGS,
    LoraSettings,
    SoftPromptSettings,
    TrainedAdapter,
    TrainingSettings,
    variants,
)
from tests.json_of import json_of

choice_record = json_of(lambda arm, choice: choice.record(arm))

Curves = Mapping[tuple[float, int], list[float]]
"""Dev losses by epoch, of a learning rate and rank; none: it diverges."""


class Trainer:
    """Gives the losses of `curves`, ten seconds an epoch, and notes what it was asked for."""

    def __init__(self, curves: Curves) -> None:
        self.curves = curves
        self.asked: list[tuple[float, int, int | None, float | None]] = []

    async def __call__(self, settings: TrainingSettings, about: str) -> TrainedAdapter:
        assert isinstance(settings, LoraSettings)
        assert about.startswith("setting ")
        key = (settings.learning_rate, settings.rank)
        self.asked.append((*key, settings.pause_after, settings.max_seconds))
        if not self.curves[key]:
            raise TrainingDiverged("no number")
        scores = tuple(-loss for loss in self.curves[key][: settings.pause_after])
        cap = settings.max_seconds
        scores = scores if cap is None else scores[: int(cap // 10)]
        seconds = 10.0 * len(scores) if cap is None else min(cap, 10.0 * len(scores))
        return TrainedAdapter(Path("x"), "0" * 64, 1, seconds, 1, (1.0,), scores, 1, "paused")


BASE, FAST, WIDE, SLOW = (1e-3, 8), (2e-3, 8), (1e-3, 16), (5e-4, 8)


def four(**cap: float) -> list[TrainingSettings]:
    return list(variants(LoraSettings(**cap), MOST_SETTINGS))  # type: ignore[arg-type]


async def test_the_better_half_goes_on_and_the_epochs_double() -> None:
    train = Trainer({BASE: [3, 3], FAST: [2, 1.5], WIDE: [2.5, 1.0], SLOW: [4, 4]})
    choice = await choose_settings(four(), train)
    assert [(*asked[:2], asked[2]) for asked in train.asked] == [
        *((*key, 1) for key in (BASE, FAST, WIDE, SLOW)),
        *((*key, 2) for key in (FAST, WIDE)),
    ]
    assert choice.chosen == LoraSettings(rank=16, alpha=32)
    assert choice.seconds == 10 + 20 + 10  # of those that were given up
    record = choice_record("lora", choice)
    assert [each["dev_loss"] for each in record["tried"]] == [3, 1.5, 1.0, 4]
    assert [each["epochs"] for each in record["tried"]] == [1, 2, 2, 1]


async def test_of_equals_the_first_is_chosen() -> None:
    choice = await choose_settings(four()[:2], Trainer({BASE: [2], FAST: [2]}))
    assert choice.chosen == LoraSettings()


async def test_one_setting_is_not_trained_to_be_chosen() -> None:
    train = Trainer({})
    choice = await choose_settings(four()[:1], train)
    assert (choice.chosen, list(choice.tried), choice.seconds, train.asked) == (LoraSettings(), [], 0, [])


async def test_what_diverges_is_passed_over_unless_all_do() -> None:
    choice = await choose_settings(four()[:3], Trainer({BASE: [9, 9], FAST: [], WIDE: [8, 10]}))
    assert choice.chosen == LoraSettings(rank=16, alpha=32)
    assert [each["diverged"] for each in choice_record("lora", choice)["tried"]] == [False, True, False]
    with pytest.raises(TrainingDiverged):
        await choose_settings(four()[:2], Trainer({BASE: [], FAST: []}))


async def test_a_cap_on_seconds_holds_for_all_settings_together() -> None:
    train = Trainer({BASE: [3, 2], FAST: [1, 0.5], WIDE: [2, 2], SLOW: [2, 2]})
    choice = await choose_settings(four(max_seconds=25.0), train)
    rooms = [asked[3] for asked in train.asked[:4]]
    assert rooms == [25.0, 15.0, 5.0, 5.0]  # the last two end no epoch
    assert choice.chosen.learning_rate == FAST[0]
    assert choice.chosen.max_seconds is not None
    assert choice.chosen.max_seconds <= 25.0 - choice.seconds
    assert [each["dev_loss"] is None for each in choice_record("lora", choice)["tried"]] == [False, False, True, True]


def test_a_soft_prompt_varies_its_rate_alone() -> None:
    tried = variants(SoftPromptSettings(), 3)
    assert [each.learning_rate for each in tried] == pytest.approx([1e-2, 3e-2, 3e-3])
    assert all(math.isfinite(each.learning_rate) and each.epochs == 8 for each in tried)
