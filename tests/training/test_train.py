"""A whole training on a tiny model: what it learns, where it ends, and that a killed one ends with the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.errors import InputError
from agent.training.base_model import BaseModel, load_base
from agent.training.decoder import answer_loss
from agent.training.learner import NumpyLearner
from agent.training.loop import load_checkpoint
from agent.training.parameters import lora_size, read_lora
from agent.training.rows import pack
from agent.training.settings import LoraSettings, Step, TrainedAdapter
from tests.training.tiny import rows, tiny, train_pairs, train_tokens

SETTINGS = LoraSettings(rank=4, alpha=8.0, learning_rate=1e-2, batch=4, epochs=3)
ROWS = rows(18)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return load_base(tiny(tmp_path_factory.mktemp("base") / "tiny.gguf"))


def base_file(folder: Path) -> Path:
    return tiny(folder / "tiny.gguf")


def settings(**changed: Any) -> LoraSettings:
    return replace(SETTINGS, **changed)


class Killed(Exception):
    """Ends a training as a kill would, between two steps."""


def killed_at(step: int) -> Callable[[Step], None]:
    def on_step(done: Step) -> None:
        if done.step == step:
            raise Killed

    return on_step


def test_what_is_trained_on_is_learnt_and_served_from_the_file(base: BaseModel, tmp_path: Path) -> None:
    adapter = train_tokens(base, ROWS, settings(epochs=30), folder=tmp_path)
    assert adapter.losses[0] > 3
    assert np.mean(adapter.losses[-5:]) < 0.5
    lora = read_lora(adapter.path, base_file(tmp_path))
    packed = pack(ROWS)
    assert answer_loss(base, lora, packed) / len(packed.targets) < 0.5
    assert adapter.ended == "epochs"
    assert adapter.best_epoch == 30


def test_the_same_training_gives_the_same_bytes_and_another_seed_others(base: BaseModel, tmp_path: Path) -> None:
    one, two, other = (
        train_tokens(base, ROWS, settings(seed=seed), folder=tmp_path / name)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert one.sha256 == two.sha256
    assert one.losses == two.losses
    assert one.path.name == f"adapter-{one.sha256[:16]}.gguf"
    assert one.sha256 != other.sha256


def test_threads_give_the_same_adapter_but_for_rounding(base: BaseModel, tmp_path: Path) -> None:
    flats = []
    for threads in (1, 2, 5):
        adapter = train_tokens(base, ROWS, settings(threads=threads), folder=tmp_path / str(threads))
        again = train_tokens(base, ROWS, settings(threads=threads), folder=tmp_path / f"again {threads}")
        assert adapter.sha256 == again.sha256
        flats.append(read_lora(adapter.path, base_file(tmp_path)).flat)
    for flat in flats[1:]:
        assert np.abs(flat - flats[0]).max() < 0.02  # two steps of Adam; a gradient near 0 may change its sign


@pytest.mark.parametrize("step", [2, 5, 9, 12, 15])
def test_a_killed_training_goes_on_and_ends_with_the_same_bytes(base: BaseModel, tmp_path: Path, step: int) -> None:
    whole = train_tokens(base, ROWS, SETTINGS, folder=tmp_path / "whole", validation=ROWS[:4])
    with pytest.raises(Killed):
        train_tokens(base, ROWS, SETTINGS, folder=tmp_path / "a", validation=ROWS[:4], on_step=killed_at(step))
    seen: list[Step] = []
    again = train_tokens(base, ROWS, SETTINGS, folder=tmp_path / "a", validation=ROWS[:4], on_step=seen.append)
    assert seen[0].step == (step - 1) // 5 * 5 + 1  # 5 steps an epoch: those of the epoch that was cut are done again
    assert again.sha256 == whole.sha256
    assert (again.losses, again.scores, again.tokens) == (whole.losses, whole.scores, whole.tokens)


def test_what_is_done_is_not_done_again_and_more_epochs_go_on(base: BaseModel, tmp_path: Path) -> None:
    first = train_tokens(base, ROWS, SETTINGS, folder=tmp_path)
    seen: list[Step] = []
    assert train_tokens(base, ROWS, SETTINGS, folder=tmp_path, on_step=seen.append) == first
    assert seen == []
    longer = train_tokens(base, ROWS, settings(epochs=4), folder=tmp_path, on_step=seen.append)
    assert [step.epoch for step in seen] == [4] * 5
    assert longer.sha256 == train_tokens(base, ROWS, settings(epochs=4), folder=tmp_path / "new").sha256


def test_a_damaged_checkpoint_is_not_gone_on_from(base: BaseModel, tmp_path: Path) -> None:
    whole = train_tokens(base, ROWS, SETTINGS, folder=tmp_path)
    (kept,) = tmp_path.glob("*.npz")
    data = bytearray(kept.read_bytes())
    data[len(data) // 2] ^= 1
    kept.write_bytes(bytes(data))
    name = kept.name.partition("-")[0]
    assert load_checkpoint(tmp_path, name, lora_size(base.architecture, 4)) is None
    seen: list[Step] = []
    assert train_tokens(base, ROWS, SETTINGS, folder=tmp_path, on_step=seen.append).sha256 == whole.sha256
    assert len(seen) == 15


def test_other_rows_or_settings_do_not_go_on_from_the_checkpoint(base: BaseModel, tmp_path: Path) -> None:
    train_tokens(base, ROWS, SETTINGS, folder=tmp_path)
    for some, how in ((ROWS[:-1], SETTINGS), (ROWS, settings(rank=2)), (ROWS, settings(learning_rate=1e-3))):
        seen: list[Step] = []
        train_tokens(base, some, how, folder=tmp_path, on_step=seen.append)
        assert len(seen) == 15


def scored(monkeypatch: pytest.MonkeyPatch, *scores: float) -> list[Any]:
    """Scripts the scores of epochs; gets the parameters of each."""
    seen: list[Any] = []

    def score(learner: object, parameters: Any, rows: object) -> float:
        seen.append(parameters.copy())
        return scores[len(seen) - 1]

    monkeypatch.setattr(NumpyLearner, "score", score)
    return seen


def test_training_ends_when_no_epoch_is_better_and_keeps_the_best(
    base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = scored(monkeypatch, 0.2, 0.6, 0.5, 0.55, 0.9)
    adapter = train_tokens(base, ROWS, settings(epochs=9, patience=2), folder=tmp_path, validation=ROWS[:6])
    assert adapter.ended == "early stop"
    assert adapter.scores == (0.2, 0.6, 0.5, 0.55)
    assert adapter.best_epoch == 2
    assert (read_lora(adapter.path, base_file(tmp_path)).flat == epochs[1]).all()
    assert len({one.tobytes() for one in epochs}) == 4


def test_held_rows_score_by_their_loss(base: BaseModel, tmp_path: Path) -> None:
    adapter = train_tokens(base, ROWS, settings(epochs=2), folder=tmp_path, validation=ROWS[:6])
    lora, packed = read_lora(adapter.path, base_file(tmp_path)), pack(ROWS[:6])
    best = adapter.scores[adapter.best_epoch - 1]
    assert best == pytest.approx(-answer_loss(base, lora, packed) / len(packed.targets), rel=1e-4)


def trained_within(base: BaseModel, folder: Path, **cap: Any) -> TrainedAdapter:
    return train_tokens(base, ROWS, settings(**cap), folder=folder)


def test_a_cap_on_tokens_ends_training_before_it_is_passed(base: BaseModel, tmp_path: Path) -> None:
    whole = train_tokens(base, ROWS, SETTINGS, folder=tmp_path / "whole")
    adapter = trained_within(base, tmp_path / "a", max_tokens=whole.tokens // 2)
    assert adapter.ended == "tokens"
    assert whole.tokens // 4 < adapter.tokens <= whole.tokens // 2
    assert adapter.losses == whole.losses[: adapter.steps]
    assert read_lora(adapter.path, base_file(tmp_path)).flat.any()


def test_a_cap_on_seconds_ends_training_with_a_step_at_least(base: BaseModel, tmp_path: Path) -> None:
    adapter = trained_within(base, tmp_path, max_seconds=1e-9)
    assert adapter.ended == "seconds"
    assert adapter.steps == 1


def test_a_cap_that_allows_no_step_is_refused(base: BaseModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"max_tokens is 3, and the first step alone has \d+ tokens"):
        trained_within(base, tmp_path, max_tokens=3)


def test_a_capped_training_keeps_the_best_epoch(
    base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = train_tokens(base, ROWS, SETTINGS, folder=tmp_path / "free")
    capped = settings(max_tokens=free.tokens - 1, patience=3)
    scored(monkeypatch, 0.9, 0.1)
    adapter = train_tokens(base, ROWS, capped, folder=tmp_path / "a", validation=ROWS[:6])
    one = train_tokens(base, ROWS, settings(epochs=1), folder=tmp_path / "one")
    assert (adapter.ended, adapter.best_epoch) == ("tokens", 1)
    assert adapter.sha256 == one.sha256


def test_a_training_that_diverges_says_what_to_do(base: BaseModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"diverged at step \d+ .*learning rate below 1e\+30"):
        train_tokens(base, ROWS, settings(learning_rate=1e30), folder=tmp_path)


def test_a_validation_that_gives_no_number_is_refused(
    base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(monkeypatch, float("nan"))
    with pytest.raises(InputError, match="validation of epoch 1 gave nan"):
        train_tokens(base, ROWS, SETTINGS, folder=tmp_path, validation=ROWS[:6])


def test_another_validation_does_not_go_on_from_the_checkpoint(base: BaseModel, tmp_path: Path) -> None:
    train_tokens(base, ROWS, settings(epochs=1), folder=tmp_path)
    one = train_tokens(base, ROWS, settings(epochs=2, patience=9), folder=tmp_path, validation=ROWS[:4])
    other = train_tokens(base, ROWS, settings(epochs=2, patience=9), folder=tmp_path, validation=ROWS[4:8])
    assert len(one.scores) == len(other.scores) == 2
    assert one.scores != other.scores


def test_the_observer_sees_each_step(base: BaseModel, tmp_path: Path) -> None:
    seen: list[Step] = []
    adapter = train_tokens(base, ROWS, SETTINGS, folder=tmp_path, on_step=seen.append)
    assert [step.step for step in seen] == list(range(1, 16))
    assert [step.loss for step in seen] == list(adapter.losses)
    assert {step.steps for step in seen} == {15}
    assert seen[-1].tokens == adapter.tokens
    assert all(one.seconds <= two.seconds for one, two in pairwise(seen))


def test_settings_that_cannot_be_are_refused_all_at_once() -> None:
    with pytest.raises(InputError) as refused:
        LoraSettings(rank=0, learning_rate=-1.0, epochs=0, max_tokens=0)
    assert str(refused.value) == (
        "settings of the training: rank is 0, not 1 or more; epochs is 0, not 1 or more; "
        "learning_rate is -1.0, not above 0; max_tokens is 0, not above 0"
    )


def test_nothing_is_trained_on_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no pair to train on"):
        train_pairs(tmp_path / "none.gguf", [], SETTINGS, folder=tmp_path)
