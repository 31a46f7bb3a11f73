"""Models, adapters and tokens out of files: what fits, what is refused, in one line each."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from agent.errors import InputError
from agent.models.gguf import F16, F32, gguf_bytes, read_array, read_gguf
from agent.models.quantization import float32_of
from agent.training.base_model import load_base, read_architecture, write_model
from agent.training.decoder import logits
from agent.training.hf_files import SAME, hf_name, hf_order
from agent.training.parameters import Lora, lora_size, read_lora
from agent.training.rows import MOST_TOKENS, TokenPair, engine_tokens, pack
from agent.training.settings import TrainingPair
from agent.types import Message
from tests.training.engine import load, log_probabilities, top
from tests.training.test_decoder import CLOSE, FAMILIES, IDS
from tests.training.tiny import END, LAYERS, speaking, tiny, with_vocabulary

PAIR = TrainingPair((Message("user", "x"),), "y")


def random_lora(base: Path, rank: int = 3) -> Lora:
    architecture = load_base(base).architecture
    flat = np.random.default_rng(2).normal(size=lora_size(architecture, rank)).astype(np.float32)
    return Lora(architecture, rank, 16 / rank, flat)


def changed(path: Path, values: dict[str, Any] | None = None, tensors: dict[str, Any] | None = None) -> Path:
    """A copy of an adapter with other values and tensors; None takes one out."""
    file = read_gguf(path)
    kept: dict[str, Any] = {name: float32_of(file, tensor) for name, tensor in file.tensors.items()}
    stated = {name: value for name, value in {**file.values, **(values or {})}.items() if value is not None}
    other = {name: tensor for name, tensor in {**kept, **(tensors or {})}.items() if tensor is not None}
    made = path.with_name("changed.gguf")
    made.write_bytes(gguf_bytes(stated, other))
    return made


@FAMILIES
def test_an_adapter_is_read_back_bit_for_bit(tmp_path: Path, family: str, tied: bool) -> None:
    base = tiny(tmp_path / "a.gguf", family, tied)
    lora = random_lora(base)
    path, digest = lora.write(tmp_path)
    back = read_lora(path, base)
    assert back.flat.tobytes() == lora.flat.tobytes()
    assert (back.rank, back.scale) == (3, pytest.approx(16 / 3, rel=1e-6))
    assert back.write(tmp_path / "again")[1] == digest
    names = {f"blk.{at}.attn_q.weight.lora_{end}" for at in range(LAYERS) for end in "ab"}
    assert names <= set(read_gguf(path).tensors)
    left_out: dict[str, Any] = {f"blk.1.ffn_up.weight.lora_{end}": None for end in "ab"}
    less = read_lora(changed(path, tensors=left_out), base)
    assert not any(matrix.any() for matrix in less.layers[1]["ffn_up"])
    assert all(matrix.any() for matrix in less.layers[0]["ffn_up"])
    first = lora.initial(0)
    assert all(a.any() and not b.any() for layer in first.layers for a, b in layer.values()), "without effect"


Q_A, Q_B = "blk.0.attn_q.weight.lora_a", "blk.0.attn_q.weight.lora_b"
NO_PAIR = "does not hold a matrix .lora_a and one .lora_b"
OTHER_SHAPE = r"for \'blk.0.attn_q.weight\', which is \(16, 16\)"


@pytest.mark.parametrize(
    ("values", "tensors", "says"),
    [
        ({"general.type": "model"}, {}, "of the type 'model', not an adapter"),
        ({"general.architecture": "qwen2"}, {}, "for the architecture 'qwen2', not 'llama'"),
        ({"adapter.lora.alpha": 0.0}, {}, "its adapter.lora.alpha is 0.0"),
        ({"adapter.lora.alpha": None}, {}, "its adapter.lora.alpha is None"),
        ({}, {Q_A: None}, NO_PAIR),
        ({}, {"odd": np.ones(3)}, NO_PAIR),
        ({}, {f"blk.9.attn_q.weight.lora_{end}": np.ones((3, 3)) for end in "ab"}, "which the model does not have"),
        ({}, {Q_A: np.ones((3, 9))}, rf"has \(3, 9\) and \(16, 3\) {OTHER_SHAPE}"),
        ({}, {Q_A: np.ones((2, 16))}, OTHER_SHAPE),
        ({}, {Q_A: np.ones((0, 16)), Q_B: np.ones((16, 0))}, OTHER_SHAPE),
        (
            {},
            {"token_embd.weight.lora_a": np.ones((40, 3)), "token_embd.weight.lora_b": np.ones((16, 3))},
            "token_embd.weight, not a linear map",
        ),
        ({}, {Q_A: np.ones((2, 16)), Q_B: np.ones((16, 2))}, r"differ in rank \(2, 3\)"),
        (None, {}, "truncated"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(
    tmp_path: Path, values: dict[str, Any] | None, tensors: dict[str, Any], says: str
) -> None:
    base = tiny(tmp_path / "base.gguf")
    path, _ = random_lora(base).write(tmp_path)
    made = changed(path, values, tensors)
    if values is None:
        made.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=says) as refused:
        read_lora(made, base)
    assert str(refused.value).startswith(f"{made}: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("family", "values", "says"),
    [
        ("gemma", {}, "unsupported family 'gemma'; training needs one of llama, qwen2"),
        ("llama", {"expert_count": 8}, "it has a mixture of experts"),
        ("llama", {"attention__sliding_window": 9}, "it has attention in a sliding window"),
        ("llama", {"rope__scaling__type": "yarn", "rope__scaling__factor": 4.0}, r"positions are scaled \(yarn\)"),
        ("llama", {"rope__dimension_count": 2}, "only a part of each head is rotated"),
        ("llama", {"attention__value_length": 2}, "its keys and values differ in size"),
        ("llama", {"attention__head_count_kv": 3}, "4 heads do not share 3 evenly"),
        ("llama", {"block_count": 0, "context_length": "x"}, "states no llama.block_count; it states no llama.context"),
        ("llama", {"vocabulary": 2}, "eos_token_id is not in its vocabulary"),
        ("llama", {"block_count": 2**32 - 1}, "it states 4294967295 layers and has 20 tensors"),
        ("llama", {"block_count": 3}, "blk.2.attn_q.weight is missing"),
        ("llama", {"feed_forward_length": 32}, r"blk.0.ffn_gate.weight is \(24, 16\), not \(32, 16\)"),
    ],
)
def test_a_model_that_cannot_be_trained_is_refused(
    tmp_path: Path, family: str, values: dict[str, Any], says: str
) -> None:
    path = tiny(tmp_path / "a.gguf", family, **values)
    with pytest.raises(InputError, match=says) as refused:
        load_base(path)
    assert "\n" not in str(refused.value)


# -- a model whose weights were trained -------------------------------------------------------------------------------


@FAMILIES
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
    assert write_model(tmp_path, base, {})[0].read_bytes() == base.read_bytes(), "what was not trained stays"


def test_rows_of_queries_and_keys_have_the_order_of_halves_in_transformers(tmp_path: Path) -> None:
    llama, qwen2 = (load_base(tiny(tmp_path / f"{family}.gguf", family)).architecture for family in ("llama", "qwen2"))
    order = hf_order("attn_k", llama)
    assert order is not None
    assert order.tolist() == [0, 2, 1, 3, 4, 6, 5, 7]  # two heads of four rows: first of each pair, then second
    assert [hf_order(name, llama) for name in ("attn_v", "ffn_up")] == [SAME, SAME]
    assert hf_order("attn_q", qwen2) == SAME
    assert hf_name("blk.1.ffn_norm.weight") == "model.layers.1.post_attention_layernorm.weight"


# -- tokens -----------------------------------------------------------------------------------------------------------


def test_the_engine_listens_on_loopback_with_a_new_random_key_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import xllamacpp

    architecture = read_architecture(read_gguf(tiny(tmp_path / "tiny.gguf")))
    asked: list[tuple[list[str], list[str]]] = []

    def server(params: Any) -> SimpleNamespace:
        asked.append((list(params.hostnames), list(params.api_keys)))
        raise RuntimeError("no file")

    monkeypatch.setattr(xllamacpp, "Server", server)
    for _ in range(2):
        with pytest.raises(InputError, match=r"x\.gguf: the engine cannot load this file \(no file\)"):
            engine_tokens(Path("x.gguf"), [PAIR], architecture)
    (hosts, one), (_, other) = asked
    assert hosts == ["127.0.0.1"]
    assert one != other
    assert len(bytes.fromhex(one[0])) == 16


def test_pairs_become_tokens_and_those_that_cannot_are_named(tmp_path: Path) -> None:
    base = speaking(tmp_path / "tiny.gguf")
    architecture = read_architecture(read_gguf(base))
    (made,) = engine_tokens(base, [PAIR], architecture)
    assert made.answer[-1] == END
    assert len(made.answer) == 2
    with pytest.raises(InputError) as refused:
        engine_tokens(base, [PAIR, TrainingPair((), " ")], architecture)
    assert str(refused.value).split("\n") == ["pair 2: has no messages or no answer"]
    long = TrainingPair((Message("user", "x" * MOST_TOKENS),), "y")
    with pytest.raises(InputError, match=rf"pair 2: has \d+ tokens, more than {MOST_TOKENS}; leave it out"):
        engine_tokens(base, [PAIR, long], architecture)
