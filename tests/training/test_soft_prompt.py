"""Soft prompts: their gradients, a whole training, and the file that an engine serves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.errors import InputError
from agent.models.adapters import SoftTokens
from agent.models.gguf import read_gguf
from agent.training.base_model import BaseModel, load_base
from agent.training.decoder import add_gradients, answer_loss
from agent.training.parameters import Lora, SoftPrompt
from agent.training.rows import TokenPair, pack
from agent.training.settings import LoraSettings, SoftPromptSettings, Step, TrainingPair
from agent.types import Message
from tests.training.soft import FIRST, vectors_in
from tests.training.test_gradients import FAMILIES, exact
from tests.training.test_train import Killed, killed_at
from tests.training.tiny import rows, tiny, train_pairs, train_tokens, with_vocabulary

TOKENS = SoftTokens((3, 4), ("<a>", "<b>"))
SETTINGS = SoftPromptSettings(learning_rate=5e-2, batch=4, epochs=3)
ROWS = [TokenPair((1, *TOKENS.ids, *row.prompt), row.answer) for row in rows(18)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return load_base(tiny(tmp_path_factory.mktemp("base") / "tiny.gguf"))


def trained(base: BaseModel, folder: Path, **how: Any) -> Any:
    given = {key: how.pop(key) for key in ("validation", "on_step") if key in how}
    return train_tokens(base, ROWS, replace(SETTINGS, **how), TOKENS, folder=folder, **given)


@FAMILIES
def test_each_vector_has_the_gradient_of_finite_differences(tmp_path: Path, family: str, tied: bool) -> None:
    model = exact(load_base(tiny(tmp_path / "a.gguf", family, tied)))
    gradients, packed = SoftPrompt(model, TOKENS), pack(ROWS[:4])
    soft = gradients.like(np.random.default_rng(1).normal(0, 0.5, gradients.flat.size))
    assert add_gradients(model, soft, packed, 1.0, gradients) == pytest.approx(answer_loss(model, soft, packed))
    assert (np.abs(gradients.vectors).max(axis=1) > 1e-4).all()
    step = 1e-6
    for at in range(soft.flat.size):
        kept = soft.flat[at]
        soft.flat[at] = kept + step
        above = answer_loss(model, soft, packed)
        soft.flat[at] = kept - step
        below = answer_loss(model, soft, packed)
        soft.flat[at] = kept
        assert gradients.flat[at] == pytest.approx((above - below) / (2 * step), rel=1e-4, abs=1e-7)


def test_a_token_that_comes_twice_gets_both_gradients(base: BaseModel) -> None:
    gradients, row = SoftPrompt(base, TOKENS), ROWS[0]
    twice = pack([TokenPair((3, *row.prompt), row.answer)])
    once, other = (SoftPrompt(base, SoftTokens((token,), ("<a>",))) for token in TOKENS.ids)
    add_gradients(base, gradients.like(base.embedding[[3, 4]].ravel()), twice, 1.0, gradients)
    for alone, found in ((once, gradients.vectors[0]), (other, gradients.vectors[1])):
        add_gradients(base, alone.like(base.embedding[alone.ids].ravel()), twice, 1.0, alone)
        assert np.allclose(alone.vectors[0], found, atol=1e-6)
    derivative = np.ones((len(twice.ids), base.architecture.width), np.float32)
    counted = SoftPrompt(base, TOKENS)
    counted.add_embedded(derivative, twice.ids)
    assert [float(row[0]) for row in counted.vectors] == [2.0, 1.0]


def test_what_is_trained_on_is_learnt_by_the_vectors_of_the_file_alone(base: BaseModel, tmp_path: Path) -> None:
    made = trained(base, tmp_path, epochs=60)
    assert np.mean(made.losses[-5:]) < 0.8 * np.mean(made.losses[:5])
    vectors, texts = vectors_in(made.path, base)
    assert (tuple(vectors), texts) == (TOKENS.ids, list(TOKENS.texts))
    changed = base.embedding.copy()
    for token, vector in vectors.items():
        changed[token] = vector
    packed, plain = pack(ROWS), Lora(base.architecture, 1, 1.0)
    loss = answer_loss(replace(base, embedding=changed), plain, packed) / len(packed.targets)
    assert loss < 0.8 * np.mean(made.losses[:5])
    assert loss < answer_loss(base, plain, packed) / len(packed.targets)
    assert made.path.name == f"soft-prompt-{made.sha256[:16]}.gguf"
    assert read_gguf(made.path).tensors[FIRST].shape == (base.architecture.vocabulary, 2)


def test_a_killed_training_goes_on_and_ends_with_the_same_bytes(base: BaseModel, tmp_path: Path) -> None:
    whole = trained(base, tmp_path / "whole", validation=ROWS[:4])
    with pytest.raises(Killed):
        trained(base, tmp_path / "a", validation=ROWS[:4], on_step=killed_at(7))
    seen: list[Step] = []
    again = trained(base, tmp_path / "a", validation=ROWS[:4], on_step=seen.append)
    assert seen[0].step == 6
    assert (again.sha256, again.losses, again.scores) == (whole.sha256, whole.losses, whole.scores)


def test_an_adapter_of_the_same_rows_does_not_go_on_from_the_checkpoint(base: BaseModel, tmp_path: Path) -> None:
    trained(base, tmp_path)
    seen: list[Step] = []
    how = LoraSettings(rank=2, learning_rate=5e-2, batch=4, epochs=3)
    train_tokens(base, ROWS, how, folder=tmp_path, on_step=seen.append)
    assert len(seen) == 15


def test_a_model_without_free_tokens_is_refused(tmp_path: Path) -> None:
    file = with_vocabulary(tiny(tmp_path / "a.gguf"))
    pair = TrainingPair((Message("user", "x"),), "y")
    with pytest.raises(InputError, match="no free control token"):
        train_pairs(file, [pair], SETTINGS, folder=tmp_path)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="vectors is 0, not 1 or more; learning_rate is 0, not above 0"):
        SoftPromptSettings(vectors=0, learning_rate=0)
