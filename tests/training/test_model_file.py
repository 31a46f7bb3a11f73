"""A model that was trained whole is a file of its own: the base's vocabulary, other weights, served by the engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.models.gguf import F16, F32, read_array, read_gguf
from agent.models.quantization import float32_of
from agent.training.base_model import load_base
from agent.training.decoder import logits
from agent.training.parameters import Lora
from agent.training.rows import TokenPair, pack
from agent.training.torch_learner import hf_name, hf_order, write_model
from tests.training.engine import load, log_probabilities, top
from tests.training.tiny import tiny, with_vocabulary

IDS = (5, 6, 7, 20, 31, 12, 9)
CLOSE = 0.02  # the engine keeps keys and values in float16


@pytest.mark.parametrize(("family", "tied"), [("llama", True), ("qwen2", False)])
def test_the_engine_serves_the_weights_that_were_written(tmp_path: Path, family: str, tied: bool) -> None:
    base = with_vocabulary(tiny(tmp_path / "tiny.gguf", family, tied))
    file, rng = read_gguf(base), np.random.default_rng(5)
    weights = {
        name: float32_of(file, tensor) + rng.normal(0, 0.2, tensor.shape).astype(np.float32)
        for name, tensor in file.tensors.items()
    }
    path, digest = write_model(tmp_path / "out", base, weights)
    assert path.name == f"model-{digest[:16]}.gguf"
    assert write_model(tmp_path / "again", base, weights) == (tmp_path / "again" / path.name, digest)
    made = read_gguf(path)
    assert read_array(made, "tokenizer.ggml.tokens") == read_array(file, "tokenizer.ggml.tokens")
    for name, tensor in made.tensors.items():
        assert tensor.type == (F16 if len(tensor.shape) > 1 else F32)
        np.testing.assert_allclose(float32_of(made, tensor), weights[name], rtol=1e-3, atol=1e-3)
    model = load_base(path)
    own = log_probabilities(logits(model, Lora(model.architecture, 1, 1.0).initial(0), pack([TokenPair(IDS, (1,))])))[0]
    for token, value in top(load(path), IDS).items():
        assert own[token] == pytest.approx(value, abs=CLOSE)


def test_a_tensor_that_was_not_trained_stays_as_it_is(tmp_path: Path) -> None:
    base = tiny(tmp_path / "tiny.gguf")
    path, _ = write_model(tmp_path, base, {})
    assert path.read_bytes() == base.read_bytes()


def test_rows_of_queries_and_keys_have_the_order_of_halves_in_transformers(tmp_path: Path) -> None:
    llama, qwen2 = (load_base(tiny(tmp_path / f"{family}.gguf", family)).architecture for family in ("llama", "qwen2"))
    order = hf_order("attn_k", llama)
    assert order is not None
    assert order.tolist() == [0, 2, 1, 3, 4, 6, 5, 7]  # two heads of four rows: first of each pair, then second
    assert [hf_order(name, llama) for name in ("attn_v", "ffn_up")] == [None, None]
    assert hf_order("attn_q", qwen2) is None
    assert hf_name("blk.1.ffn_norm.weight") == "model.layers.1.post_attention_layernorm.weight"
