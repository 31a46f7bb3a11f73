"""Models and adapters as files: what fits, what is refused, in one line each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.errors import InputError
from agent.models.gguf import gguf_bytes, read_gguf
from agent.models.quantization import float32_of
from agent.training.base_model import Architecture, load_base
from agent.training.parameters import Lora, lora_size, read_lora
from tests.training.tiny import LAYERS, tiny


def lora_architecture(base: Path) -> Architecture:
    return load_base(base).architecture


def random_lora(base: Path, rank: int = 3) -> Lora:
    architecture = lora_architecture(base)
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


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_an_adapter_is_read_back_bit_for_bit(tmp_path: Path, family: str) -> None:
    base = tiny(tmp_path / "a.gguf", family)
    lora = random_lora(base)
    path, digest = lora.write(tmp_path)
    back = read_lora(path, base)
    assert back.flat.tobytes() == lora.flat.tobytes()
    assert (back.rank, back.scale) == (3, pytest.approx(16 / 3, rel=1e-6))
    assert back.write(tmp_path / "again")[1] == digest
    names = {f"blk.{at}.attn_q.weight.lora_{end}" for at in range(LAYERS) for end in "ab"}
    assert names <= set(read_gguf(path).tensors)


def test_an_adapter_that_has_learnt_nothing_changes_nothing(tmp_path: Path) -> None:
    lora = Lora(lora_architecture(tiny(tmp_path / "a.gguf")), 3, 2.0).initial(0)
    assert all(a.any() and not b.any() for layer in lora.layers for a, b in layer.values())


@pytest.mark.parametrize(
    ("values", "tensors", "says"),
    [
        ({"general.type": "model"}, {}, "of the type 'model', not an adapter"),
        ({"general.architecture": "qwen2"}, {}, "for the architecture 'qwen2', not 'llama'"),
        ({"adapter.lora.alpha": 0.0}, {}, "its adapter.lora.alpha is 0.0"),
        ({"adapter.lora.alpha": None}, {}, "its adapter.lora.alpha is None"),
        ({}, {"blk.0.attn_q.weight.lora_a": None}, "does not hold a matrix .lora_a and one .lora_b"),
        ({}, {"odd": np.ones(3)}, "does not hold a matrix .lora_a and one .lora_b"),
        (
            {},
            {f"blk.9.attn_q.weight.lora_{end}": np.ones((3, 3)) for end in "ab"},
            "changes 'blk.9.attn_q.weight', which the model does not have",
        ),
        (
            {},
            {"blk.0.attn_q.weight.lora_a": np.ones((3, 9))},
            r"has \(3, 9\) and \(16, 3\) for \'blk.0.attn_q.weight\', which is \(16, 16\)",
        ),
        ({}, {"blk.0.attn_q.weight.lora_a": np.ones((2, 16))}, r"for \'blk.0.attn_q.weight\', which is \(16, 16\)"),
        (
            {},
            {"blk.0.attn_q.weight.lora_a": np.ones((0, 16)), "blk.0.attn_q.weight.lora_b": np.ones((16, 0))},
            r"for \'blk.0.attn_q.weight\', which is \(16, 16\)",
        ),
        (
            {},
            {"token_embd.weight.lora_a": np.ones((40, 3)), "token_embd.weight.lora_b": np.ones((16, 3))},
            "token_embd.weight, which is no linear map",
        ),
        (
            {},
            {"blk.0.attn_q.weight.lora_a": np.ones((2, 16)), "blk.0.attn_q.weight.lora_b": np.ones((16, 2))},
            r"differ in rank \(2, 3\)",
        ),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(
    tmp_path: Path, values: dict[str, Any], tensors: dict[str, Any], says: str
) -> None:
    base = tiny(tmp_path / "base.gguf")
    path, _ = random_lora(base).write(tmp_path)
    made = changed(path, values, tensors)
    with pytest.raises(InputError, match=says) as refused:
        read_lora(made, base)
    assert str(refused.value).startswith(f"{made}: ")
    assert "\n" not in str(refused.value)


def test_a_truncated_adapter_is_refused(tmp_path: Path) -> None:
    base = tiny(tmp_path / "base.gguf")
    path, _ = random_lora(base).write(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="truncated"):
        read_lora(path, base)


def test_a_map_that_is_left_out_has_zeros(tmp_path: Path) -> None:
    base = tiny(tmp_path / "base.gguf")
    path, _ = random_lora(base).write(tmp_path)
    left_out: dict[str, Any] = {f"blk.1.ffn_up.weight.lora_{end}": None for end in "ab"}
    lora = read_lora(changed(path, tensors=left_out), base)
    assert not any(matrix.any() for matrix in lora.layers[1]["ffn_up"])
    assert all(matrix.any() for matrix in lora.layers[0]["ffn_up"])


@pytest.mark.parametrize(
    ("family", "values", "says"),
    [
        ("gemma", {}, "the family 'gemma'; training knows llama, qwen2"),
        ("llama", {"expert_count": 8}, "it has a mixture of experts"),
        ("llama", {"rope__scaling__type": "yarn", "rope__scaling__factor": 4.0}, r"positions are scaled \(yarn\)"),
        ("llama", {"rope__dimension_count": 2}, "a part of each head is rotated"),
        ("llama", {"attention__head_count_kv": 3}, "4 heads do not share 3 evenly"),
        ("llama", {"block_count": 0, "context_length": "x"}, "states no llama.block_count; it states no llama.context"),
        ("llama", {"vocabulary": 2}, "eos_token_id is no token of its vocabulary"),
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
