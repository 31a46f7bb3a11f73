"""Settings are chosen on dev by halving; a training for another machine; one that is repeated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import InputError, TrainingDiverged
from agent.jobs.customize.arms import ARMS
from agent.jobs.customize.on_ray import NodeOrder, carry_out, files_to_send, write_files
from agent.jobs.customize.retrain import Retrained
from agent.jobs.customize.trainer import require_ray
from agent.jobs.customize.training import choose_by_asha, choose_settings, deciding_versions
from agent.options.jobs import CustomizeOptions
from agent.safe_file import sha256_of
from agent.training.settings import (
    MOST_SETTINGS,
    Ended,
    LoraSettings,
    SoftPromptSettings,
    Step,
    TrainedAdapter,
    TrainingPair,
    TrainingSettings,
    variants,
)
from agent.types import Message
from tests.training.tiny import speaking

BASE, FAST, WIDE, SLOW = (1e-3, 8), (2e-3, 8), (1e-3, 16), (5e-4, 8)


class Trainer:
    """Gives the dev losses of `curves` by learning rate and rank, ten seconds an epoch; without any it diverges."""

    def __init__(self, curves: Mapping[tuple[float, int], list[float]]) -> None:
        self.curves = curves
        self.asked: list[tuple[float, int, int | None, float | None]] = []

    async def __call__(self, settings: TrainingSettings, about: str) -> TrainedAdapter:
        assert isinstance(settings, LoraSettings)
        key = (settings.learning_rate, settings.rank)
        self.asked.append((*key, settings.pause_after, settings.max_seconds))
        if not self.curves[key]:
            raise TrainingDiverged("no number")
        scores = tuple(-loss for loss in self.curves[key][: settings.pause_after])
        cap = settings.max_seconds
        scores = scores if cap is None else scores[: int(cap // 10)]
        seconds = 10.0 * len(scores) if cap is None else min(cap, 10.0 * len(scores))
        ended: Ended = "epochs" if (settings.pause_after or 0) >= settings.epochs else "paused"
        return TrainedAdapter(Path("x"), "0" * 64, 1, seconds, 1, (1.0,), scores, 1, ended)


def four(**cap: float) -> list[TrainingSettings]:
    return list(variants(LoraSettings(**cap), MOST_SETTINGS))  # type: ignore[arg-type]


async def test_the_better_half_continues_and_the_epochs_double() -> None:
    train = Trainer({BASE: [3, 3], FAST: [2, 1.5], WIDE: [2.5, 1.0], SLOW: [4, 4]})
    choice = await choose_settings(four(), train)
    assert [asked[:3] for asked in train.asked] == [
        *((*key, 1) for key in (BASE, FAST, WIDE, SLOW)),
        *((*key, 2) for key in (FAST, WIDE)),
    ]
    assert choice.chosen == LoraSettings(rank=16, alpha=32)
    assert choice.seconds == 10 + 20 + 10  # of those that were dropped
    tried = choice.record("lora").tried
    assert [(each.dev_loss, each.epochs) for each in tried] == [(3, 1), (1.5, 2), (1.0, 2), (4, 1)]
    equal = await choose_settings(four()[:2], Trainer({BASE: [2], FAST: [2]}))
    assert equal.chosen == LoraSettings()
    none = Trainer({})
    alone = await choose_settings(four()[:1], none)
    assert (alone.chosen, list(alone.tried), alone.seconds, none.asked) == (LoraSettings(), [], 0, [])


async def test_what_diverges_is_passed_over_unless_all_do() -> None:
    choice = await choose_settings(four()[:3], Trainer({BASE: [9, 9], FAST: [], WIDE: [8, 10]}))
    assert choice.chosen == LoraSettings(rank=16, alpha=32)
    assert [each.diverged for each in choice.record("lora").tried] == [False, True, False]
    with pytest.raises(TrainingDiverged):
        await choose_settings(four()[:2], Trainer({BASE: [], FAST: []}))


async def test_asha_stops_what_is_above_the_median_of_those_before_at_the_epochs_1_and_2() -> None:
    train = Trainer({BASE: [3, 2.5, 2.4], FAST: [2, 1, 0.5], WIDE: [2.6, 0.1, 0.1], SLOW: [9, 9, 9]})
    choice = await choose_by_asha(four(), train)
    assert choice.chosen.learning_rate == FAST[0]
    assert [each.ended for each in choice.record("lora").tried] == ["epochs", "epochs", "ASHA", "ASHA"]
    with pytest.raises(TrainingDiverged):
        await choose_by_asha(four()[:2], Trainer({BASE: [], FAST: []}))


async def test_asha_compares_with_none_that_ended_before_the_epoch() -> None:
    curves = Trainer({BASE: [1], FAST: [3], WIDE: [1.5, 1.4, 1.3]})

    async def train(settings: TrainingSettings, about: str) -> TrainedAdapter:
        assert isinstance(settings, LoraSettings)
        if (settings.learning_rate, settings.rank) == BASE and settings.pause_after != 1:
            raise TrainingDiverged("no number")
        return await curves(settings, about)

    choice = await choose_by_asha(four()[:3], train)
    assert [each.ended for each in choice.record("lora").tried] == ["diverged", "ASHA", "epochs"]


async def test_a_cap_on_seconds_holds_for_all_settings_together() -> None:
    train = Trainer({BASE: [3, 2], FAST: [1, 0.5], WIDE: [2, 2], SLOW: [2, 2]})
    choice = await choose_settings(four(max_seconds=25.0), train)
    assert [asked[3] for asked in train.asked[:4]] == [25.0, 15.0, 5.0, 5.0]  # the last two end no epoch
    assert choice.chosen.learning_rate == FAST[0]
    assert choice.chosen.max_seconds is not None
    assert choice.chosen.max_seconds <= 25.0 - choice.seconds
    assert [each.dev_loss is None for each in choice.record("lora").tried] == [False, False, True, True]


def test_a_soft_prompt_varies_its_rate_alone() -> None:
    tried = variants(SoftPromptSettings(), 3)
    assert [each.learning_rate for each in tried] == pytest.approx([1e-2, 3e-2, 3e-3])
    assert {replace(each, learning_rate=1e-2) for each in tried} == {SoftPromptSettings()}


# -- on another machine -----------------------------------------------------------------------------------------------

PAIRS = [TrainingPair((Message("user", f"Sort: {word}"),), word[0]) for word in ("apple", "bear", "cat", "dog")]


@pytest.fixture
def order(tmp_path: Path) -> NodeOrder:
    base = speaking(tmp_path / "tiny.gguf")
    return NodeOrder(
        base=base,
        digest=sha256_of(base),
        rows=PAIRS * 4,
        validation=PAIRS,
        settings=LoraSettings(epochs=3, patience=9),
        folder=tmp_path / "node",
        marker=tmp_path / "marker",
        trainer="numpy",
        weights=None,
        versions=deciding_versions("numpy"),
    )


def ignore(step: Step) -> None: ...


def test_a_node_with_another_model_or_other_packages_is_refused(order: NodeOrder, tmp_path: Path) -> None:
    for other, says in (
        (replace(order, digest="0" * 64), r"tiny.gguf: is another file; give every node the same file"),
        (replace(order, base=tmp_path / "none.gguf"), r"none.gguf: is missing"),
        (replace(order, versions={**order.versions, "numpy": "0.1"}), r"has numpy .*, not 0.1; install the same"),
    ):
        with pytest.raises(InputError, match=says):
            carry_out(other, ignore)
    (problem,) = [str(one) for one in require_ray(CustomizeOptions(ray="local", tune=2), []) if "no arm" in str(one)]
    assert problem.startswith("--ray, --tune 2: no arm is trained here")
    assert require_ray(CustomizeOptions(), [ARMS["lora"]]) == []


def test_without_a_shared_disk_files_come_back_and_the_next_node_continues_from_them(
    order: NodeOrder, tmp_path: Path
) -> None:
    begun = replace(order, folder=tmp_path / "one", settings=replace(order.settings, pause_after=1))
    made = carry_out(begun, ignore)
    files = files_to_send(begun, made)
    assert [name for name, _ in files] == [made.path.name, *(path.name for path in begun.folder.glob("*.npz"))]
    write_files(tmp_path / "ours", files)
    assert {path.name for path in (tmp_path / "ours").iterdir()} == {name for name, _ in files}
    kept = [file for file in files if file[0].endswith(".npz")]
    steps = list[Step]()
    continued = replace(order, folder=tmp_path / "two", kept=kept)
    after = carry_out(continued, steps.append)
    assert sorted({step.epoch for step in steps}) == [2, 3]
    assert carry_out(order, ignore).sha256 == after.sha256
    order.marker.touch()
    assert files_to_send(begun, made) == []


def test_a_repeated_training_that_differs_says_how() -> None:
    made = Retrained("lora", 36, 0, "a" * 64, "b" * 64, 0.51, 0.5, 0.002, "2.1", "2.0")
    assert not made.is_same
    assert made.drift == (
        "lora on 36 rows, seed 0: the adapter is aaaaaaaaaaaaaaaa, it was bbbbbbbbbbbbbbbb; dev loss 0.51000, it was "
        "0.50000 (+0.01000); weights differ by at most 0.002; numpy 2.1, it was 2.0"
    )
    assert replace(made, adapter="b" * 64).is_same
    bare = replace(made, dev_loss=None, weights=None, numpy="2.0")
    assert bare.drift == "lora on 36 rows, seed 0: the adapter is aaaaaaaaaaaaaaaa, it was bbbbbbbbbbbbbbbb"
