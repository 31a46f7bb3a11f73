"""Soft prompts of a local model: the tokens that carry them, what does not fit, and the untied copy of a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.models.adapters import (
    Adapter,
    SoftTokens,
    adapter_fault,
    free_tokens,
    is_tied,
    soft_texts,
    untied,
    with_soft_tokens,
)
from agent.models.gguf import GgufFile, read_gguf
from agent.models.local import engine_messages
from agent.training.base_model import load_base
from agent.training.decoder import logits
from agent.training.parameters import Lora, SoftPrompt
from agent.training.rows import TokenPair, pack
from agent.types import Message
from tests.training.engine import load, log_probabilities, top
from tests.training.tiny import END, tiny, with_vocabulary

CONTROL = {1: "<start>", END: "<end>", 3: "<a>", 4: "<b>", 7: "<c>"}
CLOSE = 0.02  # the engine keeps keys and values in float16
FREE = SoftTokens((1, 3, 4), ("<start>", "<a>", "<b>"))


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPTIMIZE_CACHE", str(tmp_path / "cache"))
    return with_vocabulary(tiny(tmp_path / "base.gguf"), control=CONTROL)


def soft_prompt(base: Path, folder: Path, tokens: SoftTokens = FREE) -> tuple[SoftPrompt, Path]:
    """Random vectors for the tokens, and their file."""
    zeros = SoftPrompt(load_base(base), tokens)
    soft = zeros.like(np.random.default_rng(3).normal(0, 0.5, zeros.flat.size).astype(np.float32))
    return soft, soft.write(folder)[0]


def changed(path: Path, old: bytes, new: bytes) -> Path:
    """The file with other bytes of the same number."""
    data = path.read_bytes()
    assert len(old) == len(new)
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))
    return path


def test_free_tokens_are_control_tokens_that_the_model_does_not_name(base: Path) -> None:
    file = read_gguf(base)
    assert free_tokens(file, 3) == FREE
    assert free_tokens(file, 20).texts == ("<start>", "<a>", "<b>", "<c>")
    named = GgufFile(file.path, {**file.values, "tokenizer.chat_template": "{{ <a> }}"}, {}, file.data, file.head)
    assert free_tokens(named, 20).ids == (1, 4, 7)


def test_the_tokens_stand_before_the_first_message_and_what_a_row_has_of_them_stays_text() -> None:
    assert with_soft_tokens(["Classify.", "a <a> b"], ["<a>", "<b>"]) == ["<a><b>Classify.", "a <\u200ba> b"]
    assert with_soft_tokens(["a <a> b"], []) == ["a <a> b"]
    sent = engine_messages([Message("user", "<|im_end|> <b>")], ["<b>"])
    assert sent == [{"role": "user", "content": "<b><\u200b|im_end|> <\u200bb>"}]


def test_what_fits_is_taken_and_says_its_tokens(base: Path, tmp_path: Path) -> None:
    _, path = soft_prompt(base, tmp_path)
    assert adapter_fault(path, base) == ""
    assert Adapter.read(path).texts == FREE.texts


def test_a_soft_prompt_of_another_model_is_refused(base: Path, tmp_path: Path) -> None:
    _, path = soft_prompt(base, tmp_path)
    other = with_vocabulary(tiny(tmp_path / "other.gguf", seed=1), control=CONTROL)
    assert "is a soft prompt for the model of SHA-256" in adapter_fault(path, other)


def test_vectors_for_tokens_that_are_not_free_are_refused(base: Path, tmp_path: Path) -> None:
    _, path = soft_prompt(base, tmp_path)
    assert "has vectors for '<z>', which is not a free token" in adapter_fault(changed(path, b"<a>", b"<z>"), base)


@pytest.mark.parametrize(("old", "new"), [(b'"<a>", ', b"       "), (b'["', b'{"'), (b'"<a>"', b"12345")])
def test_tokens_that_are_not_those_of_the_vectors_are_refused(
    base: Path, tmp_path: Path, old: bytes, new: bytes
) -> None:
    _, path = soft_prompt(base, tmp_path)
    assert "does not hold one vector for each of its tokens" in adapter_fault(changed(path, old, new), base)
    assert len(soft_texts(read_gguf(path))) < 3


def test_the_copy_has_the_matrix_twice_and_all_else_as_it_was(base: Path) -> None:
    copy, model = read_gguf(untied(base)), read_gguf(base)
    assert is_tied(model)
    assert not is_tied(copy)
    assert copy.values == model.values
    assert set(copy.tensors) == {*model.tensors, "output.weight"}
    for name, tensor in model.tensors.items():
        assert copy.body(copy.tensors[name]) == model.body(tensor)
    assert copy.body(copy.tensors["output.weight"]) == model.body(model.tensors["token_embd.weight"])


def test_the_copy_is_made_once_and_again_where_it_was_damaged(base: Path) -> None:
    copy = untied(base)
    whole, made = copy.read_bytes(), copy.stat().st_mtime_ns
    assert untied(base) == copy
    assert copy.stat().st_mtime_ns == made
    copy.write_bytes(whole[:-1] + b"x")
    assert untied(base).read_bytes() == whole


@pytest.mark.parametrize("tied", [True, False])
def test_the_engine_computes_what_was_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tied: bool) -> None:
    monkeypatch.setenv("OPTIMIZE_CACHE", str(tmp_path / "cache"))
    base = with_vocabulary(tiny(tmp_path / "base.gguf", tied=tied), control=CONTROL)
    soft, path = soft_prompt(base, tmp_path)
    served = Adapter.read(path).runs_on(base)
    assert (served == base) is not tied
    ids = (*FREE.ids, 11, 12, 13)
    prompt, model = pack([TokenPair(ids, (5,))]), load_base(base)
    ours, plain = (
        log_probabilities(logits(model, one, prompt))[0] for one in (soft, Lora(model.architecture, 1, 1.0).initial(0))
    )
    for token, value in top(load(served, path), ids).items():
        assert ours[token] == pytest.approx(value, abs=CLOSE)
    assert np.abs(plain - ours).max() > 10 * CLOSE  # the vectors change something
