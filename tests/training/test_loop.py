"""A training by each trainer: what it learns, where it ends, and that a killed one ends with the same bytes."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.errors import InputError
from agent.models.adapters import SoftTokens
from agent.training.base_model import BaseModel, load_base
from agent.training.decoder import answer_loss
from agent.training.learner import NumpyLearner
from agent.training.loop import load_checkpoint
from agent.training.parameters import Lora, read_lora
from agent.training.rows import TokenPair, pack
from agent.training.settings import (
    FullSettings,
    LoraSettings,
    SoftPromptSettings,
    Step,
    TrainedAdapter,
    Trainer,
    TrainingPair,
    TrainingSettings,
)
from agent.types import Message
from tests.training.tiny import rows, tiny, train_pairs, train_tokens, vectors_in, with_vocabulary

SOFT = SoftTokens((3, 4), ("<a>", "<b>"))
ROWS = [TokenPair((1, *SOFT.ids, *row.prompt), row.answer) for row in rows(18)]  # 5 steps an epoch
LORA = LoraSettings(rank=4, alpha=8.0, learning_rate=1e-2, batch=4, epochs=3)
KINDS: dict[str, tuple[TrainingSettings, Trainer]] = {
    "lora": (LORA, "numpy"),
    "soft prompt": (SoftPromptSettings(learning_rate=5e-2, batch=4, epochs=3), "numpy"),
    "lora by peft": (replace(LORA, threads=1), "peft"),
    "full": (FullSettings(learning_rate=1e-2, batch=4, epochs=3, threads=1), "peft"),
}
EACH = pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[pytest.mark.extra("tune")] if trainer == "peft" else [])
        for kind, (_, trainer) in KINDS.items()
    ],
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return load_base(tiny(tmp_path_factory.mktemp("base") / "tiny.gguf"))


class Killed(Exception):
    """Ends a training as a kill would, between two steps."""


def train(
    base: BaseModel,
    folder: Path,
    kind: str = "lora",
    rows: list[TokenPair] = ROWS,
    validation: list[TokenPair] | None = None,
    killed_at: int = 0,
    **changed: Any,
) -> tuple[TrainedAdapter, list[Step]]:
    """The result of a training in `folder`, and its steps."""
    settings, trainer = KINDS[kind]
    seen: list[Step] = []

    def on_step(step: Step) -> None:
        seen.append(step)
        if step.step == killed_at:
            raise Killed

    how = replace(settings, **changed)
    soft = SOFT if kind == "soft prompt" else SoftTokens((), ())
    held = validation or []
    made = train_tokens(base, rows, how, soft, folder=folder, trainer=trainer, validation=held, on_step=on_step)
    return made, seen


def loss_of(base: BaseModel, made: TrainedAdapter, rows: list[TokenPair] = ROWS) -> float:
    """The mean loss with the adapter in the file."""
    packed = pack(rows)
    return answer_loss(base, read_lora(made.path, base.path), packed) / len(packed.targets)


def test_an_adapter_learns_what_it_is_trained_on(base: BaseModel, tmp_path: Path) -> None:
    made, _ = train(base, tmp_path, epochs=30)
    assert made.losses[0] > 3
    assert np.mean(made.losses[-5:]) < 0.5
    assert loss_of(base, made) < 0.5
    assert (made.ended, made.best_epoch, made.steps) == ("epochs", 30, 150)
    assert made.path.name == f"adapter-{made.sha256[:16]}.gguf"


def test_a_soft_prompt_learns_by_the_vectors_of_its_file_alone(base: BaseModel, tmp_path: Path) -> None:
    made, _ = train(base, tmp_path, "soft prompt", epochs=60)
    before = np.mean(made.losses[:5])
    assert np.mean(made.losses[-5:]) < 0.8 * before
    assert made.path.name == f"soft-prompt-{made.sha256[:16]}.gguf"
    vectors, texts = vectors_in(made.path, base)
    assert (tuple(vectors), texts) == (SOFT.ids, list(SOFT.texts))
    changed = base.embedding.copy()
    for token, vector in vectors.items():
        changed[token] = vector
    packed, plain = pack(ROWS), Lora(base.architecture, 1, 1.0)
    loss = answer_loss(replace(base, embedding=changed), plain, packed)
    assert loss / len(packed.targets) < 0.8 * before
    assert loss < answer_loss(base, plain, packed)


@EACH
def test_a_killed_training_ends_with_the_same_bytes_and_a_whole_one_is_not_repeated(
    base: BaseModel, tmp_path: Path, kind: str
) -> None:
    whole, steps = train(base, tmp_path / "whole", kind, validation=ROWS[:4], patience=9)
    assert [step.step for step in steps] == list(range(1, 16))
    assert [step.loss for step in steps] == list(whole.losses)
    assert {step.steps for step in steps} == {15}
    assert steps[-1].tokens == whole.tokens
    assert steps[-1].seconds == whole.seconds
    for at in (2, 5, 9):
        folder = tmp_path / f"{at}"
        with pytest.raises(Killed):
            train(base, folder, kind, validation=ROWS[:4], patience=9, killed_at=at)
        again, seen = train(base, folder, kind, validation=ROWS[:4], patience=9)
        assert seen[0].step == (at - 1) // 5 * 5 + 1  # the epoch that was cut is repeated
        assert (again.sha256, again.losses) == (whole.sha256, whole.losses)
        assert (again.scores, again.tokens) == (whole.scores, whole.tokens)
    assert train(base, tmp_path / "whole", kind, validation=ROWS[:4], patience=9) == (whole, [])
    longer, seen = train(base, tmp_path / "whole", kind, validation=ROWS[:4], patience=9, epochs=4)
    assert [step.epoch for step in seen] == [4] * 5
    assert longer.losses[:15] == whole.losses


def test_threads_and_seeds_decide_the_bytes(base: BaseModel, tmp_path: Path) -> None:
    flats, digests = [], set()
    for threads in (1, 2, 5):
        made, again = (train(base, tmp_path / f"{threads}{name}", threads=threads)[0] for name in "ab")
        assert made.sha256 == again.sha256
        flats.append(read_lora(made.path, base.path).flat)
        digests.add(made.sha256)
    for flat in flats[1:]:
        assert np.abs(flat - flats[0]).max() < 0.02  # two steps of Adam; a gradient near 0 may change its sign
    assert train(base, tmp_path / "seed", seed=1)[0].sha256 not in digests


def test_only_the_same_training_continues_from_a_checkpoint(base: BaseModel, tmp_path: Path) -> None:
    train(base, tmp_path)
    others: list[dict[str, Any]] = [{"rows": ROWS[:-1]}, {"rank": 2}, {"learning_rate": 1e-3}, {"kind": "soft prompt"}]
    for other in [*others, {"validation": ROWS[:4], "patience": 9}, {"validation": ROWS[4:8], "patience": 9}]:
        assert len(train(base, tmp_path, **other)[1]) == 15, other


def test_a_damaged_checkpoint_is_left_alone(base: BaseModel, tmp_path: Path) -> None:
    whole, _ = train(base, tmp_path)
    (kept,) = tmp_path.glob("*.npz")
    name, size = kept.name.partition("-")[0], read_lora(whole.path, base.path).flat.size
    assert load_checkpoint(tmp_path, name, size + 1) is None
    data = bytearray(kept.read_bytes())
    data[len(data) // 2] ^= 1
    kept.write_bytes(bytes(data))
    assert load_checkpoint(tmp_path, name, size) is None
    again, seen = train(base, tmp_path)
    assert (again.sha256, len(seen)) == (whole.sha256, 15)


def scripted(monkeypatch: pytest.MonkeyPatch, *scores: float) -> list[Any]:
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
    epochs = scripted(monkeypatch, 0.2, 0.6, 0.6, 0.55, 0.9)
    made, _ = train(base, tmp_path, validation=ROWS[:6], epochs=9, patience=2)
    assert (made.ended, made.scores, made.best_epoch) == ("early stop", (0.2, 0.6, 0.6, 0.55), 2)
    assert (read_lora(made.path, base.path).flat == epochs[1]).all()
    assert len({one.tobytes() for one in epochs}) == 4


def test_held_rows_score_by_their_loss(base: BaseModel, tmp_path: Path) -> None:
    made, _ = train(base, tmp_path, validation=ROWS[:6], epochs=2)
    assert made.scores[made.best_epoch - 1] == pytest.approx(-loss_of(base, made, ROWS[:6]), rel=1e-4)


def test_a_score_that_is_no_number_is_refused(base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, float("nan"))
    with pytest.raises(InputError, match="validation score of epoch 1 is nan"):
        train(base, tmp_path, validation=ROWS[:6])


@EACH
def test_caps_are_kept(base: BaseModel, tmp_path: Path, kind: str) -> None:
    whole, _ = train(base, tmp_path / "whole", kind)
    half, seen = train(base, tmp_path / "half", kind, max_tokens=whole.tokens // 2)
    assert half.ended == "tokens"
    assert whole.tokens // 4 < half.tokens <= whole.tokens // 2
    assert half.losses == whole.losses[: len(seen)]
    assert train(base, tmp_path / "half", kind, max_tokens=whole.tokens // 2) == (half, [])
    one, _ = train(base, tmp_path / "seconds", kind, max_seconds=1e-9)
    assert (one.ended, one.steps) == ("seconds", 1)
    with pytest.raises(InputError, match=r"max_tokens is 3, but the first step has \d+ tokens"):
        train(base, tmp_path / "none", kind, max_tokens=3)


def test_a_capped_training_keeps_the_best_epoch(
    base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, _ = train(base, tmp_path / "free")
    scripted(monkeypatch, 0.9, 0.1)
    made, _ = train(base, tmp_path / "a", validation=ROWS[:6], max_tokens=free.tokens - 1, patience=3)
    assert (made.ended, made.best_epoch) == ("tokens", 1)
    assert made.sha256 == train(base, tmp_path / "one", epochs=1)[0].sha256


@pytest.mark.parametrize("kind", ["lora", pytest.param("full", marks=pytest.mark.extra("tune"))])
def test_a_training_that_diverges_says_what_to_do(base: BaseModel, tmp_path: Path, kind: str) -> None:
    with pytest.raises(InputError, match=r"diverged at step \d+ .*learning rate below 1e\+30"):
        train(base, tmp_path, kind, learning_rate=1e30)


@EACH
def test_it_connects_to_nothing(base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was opened")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    assert train(base, tmp_path, kind, epochs=1)[0].steps == 5


def test_settings_that_cannot_be_are_refused_all_at_once() -> None:
    with pytest.raises(InputError) as refused:
        LoraSettings(rank=0, learning_rate=-1.0, epochs=0, max_tokens=0)
    assert str(refused.value) == (
        "settings of the training: rank is 0, not 1 or more; epochs is 0, not 1 or more; "
        "learning_rate is -1.0, not above 0; max_tokens is 0, not above 0"
    )
    with pytest.raises(InputError, match="vectors is 0, not 1 or more"):
        SoftPromptSettings(vectors=0)


def test_what_cannot_be_trained_is_refused(base: BaseModel, tmp_path: Path) -> None:
    file = with_vocabulary(tiny(tmp_path / "a.gguf"))
    pair = TrainingPair((Message("user", "x"),), "y")
    for pairs, settings, trainer, says in (
        ([], LORA, "numpy", "no pairs to train on"),
        ([pair], SoftPromptSettings(), "numpy", r"a\.gguf: no free control token"),
    ):
        with pytest.raises(InputError, match=says):
            train_pairs(file, pairs, settings, folder=tmp_path, trainer=trainer)
    with pytest.raises(InputError, match="in numpy alone"):
        train_tokens(base, ROWS, SoftPromptSettings(), folder=tmp_path, trainer="peft")
