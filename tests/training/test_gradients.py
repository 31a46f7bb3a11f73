"""The hand-written derivatives against finite differences, and packed rows against rows alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.training.base_model import MAPS, BaseModel, Layer, load_base
from agent.training.decoder import add_gradients, answer_loss, logits
from agent.training.parameters import Lora, lora_size
from agent.training.rows import pack, packs, parts
from tests.training.tiny import rows, tiny

FAMILIES = pytest.mark.parametrize(("family", "tied"), [("llama", True), ("qwen2", False)])
RANK, SCALE = 3, 2.0


def exact(base: BaseModel) -> BaseModel:
    """The model in float64, so that differences tell a wrong derivative from rounding."""
    cast: Callable[[Any], Any] = lambda array: array.astype(np.float64)  # noqa: E731
    layers = tuple(
        Layer(
            {name: cast(one) for name, one in layer.maps.items()},
            {name: cast(one) for name, one in layer.biases.items()},
            cast(layer.attn_norm),
            cast(layer.ffn_norm),
        )
        for layer in base.layers
    )
    head = {name: cast(getattr(base, name)) for name in ("embedding", "output", "output_norm")}
    return replace(base, layers=layers, **head)


def adapter(base: BaseModel, dtype: type = np.float64) -> Lora:
    """One whose matrices are all away from zero."""
    size = lora_size(base.architecture, RANK)
    return Lora(base.architecture, RANK, SCALE, np.random.default_rng(1).normal(0, 0.2, size).astype(dtype))


@FAMILIES
def test_each_matrix_has_the_gradient_of_finite_differences(tmp_path: Path, family: str, tied: bool) -> None:
    base = exact(load_base(tiny(tmp_path / "a.gguf", family, tied)))
    lora, packed = adapter(base), pack(rows(4))
    gradients = Lora(base.architecture, RANK, SCALE, np.zeros_like(lora.flat))
    assert add_gradients(base, lora, packed, 1.0, gradients) == pytest.approx(answer_loss(base, lora, packed))
    step = 1e-6
    for layer, found in zip(lora.layers, gradients.layers, strict=True):
        for name in MAPS:
            for matrix, gradient in zip(layer[name], found[name], strict=True):
                assert np.abs(gradient).max() > 1e-4, name
                for at in np.ndindex(*matrix.shape):
                    kept = matrix[at]
                    matrix[at] = kept + step
                    above = answer_loss(base, lora, packed)
                    matrix[at] = kept - step
                    below = answer_loss(base, lora, packed)
                    matrix[at] = kept
                    assert gradient[at] == pytest.approx((above - below) / (2 * step), rel=1e-4, abs=1e-7), name


@FAMILIES
def test_packed_rows_have_the_loss_and_gradients_that_they_have_alone(tmp_path: Path, family: str, tied: bool) -> None:
    base = exact(load_base(tiny(tmp_path / "a.gguf", family, tied)))
    lora, some = adapter(base), rows(7)
    results = []
    for groups in ([pack(some)], [pack([row]) for row in some], packs(some, 16)):
        gradients = Lora(base.architecture, RANK, SCALE, np.zeros_like(lora.flat))
        results.append((sum(add_gradients(base, lora, one, 0.5, gradients) for one in groups), gradients.flat))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-12)
    assert results[0][0] == pytest.approx(results[2][0], rel=1e-12)
    assert np.allclose(results[0][1], results[1][1], rtol=1e-9, atol=1e-12)
    assert np.allclose(results[0][1], results[2][1], rtol=1e-9, atol=1e-12)


def test_a_pack_holds_the_shared_prefix_once() -> None:
    some = rows(5, shared=8)
    packed = pack(some)
    assert packed.prefix >= 8
    assert len(packed.ids) == packed.prefix + sum(len(row.prompt) + len(row.answer) - 1 - packed.prefix for row in some)
    for row, (start, end) in zip(some, packed.spans, strict=True):
        assert [*packed.ids[: packed.prefix], *packed.ids[start:end]] == [*row.prompt, *row.answer[:-1]]
        assert packed.positions[end - 1] == len(row.prompt) + len(row.answer) - 2
    assert [int(token) for token in packed.targets] == [token for row in some for token in row.answer]
    assert all(len(one.ids) <= 24 for one in packs(some, 24))


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_parts_hold_every_row_once_and_are_about_alike(count: int) -> None:
    some = rows(6)
    groups = parts(some, count)
    assert [row for group in groups for row in group] == some
    assert len(groups) <= count
    sizes = [sum(len(row.prompt) + len(row.answer) for row in group) for group in groups]
    assert max(sizes) - min(sizes) <= 2 * max(len(row.prompt) + len(row.answer) for row in some)


def test_equal_prompts_keep_a_token_of_their_own() -> None:
    row = rows(1)[0]
    packed = pack([row, row])
    assert packed.prefix == len(row.prompt) - 1
    assert packed.outputs.min() >= packed.prefix


@FAMILIES
def test_no_row_sees_another(tmp_path: Path, family: str, tied: bool) -> None:
    base = load_base(tiny(tmp_path / "a.gguf", family, tied))
    lora, some = adapter(base, np.float32), rows(3)
    together = logits(base, lora, pack(some))
    other = logits(base, lora, pack([some[0], some[1], rows(9, seed=5)[7]]))
    count = sum(len(row.answer) for row in some[:2])
    assert np.allclose(together[:count], other[:count], atol=1e-5)
    assert not np.allclose(together[count:], other[count:], atol=1e-2)


def test_a_token_sees_none_after_it(tmp_path: Path) -> None:
    base = load_base(tiny(tmp_path / "a.gguf"))
    lora, row = adapter(base, np.float32), rows(1)[0]
    changed = replace(row, answer=(row.answer[0], 33, row.answer[2]))
    one, two = (logits(base, lora, pack([each])) for each in (row, changed))
    assert np.array_equal(one[:2], two[:2])
    assert not np.array_equal(one[2], two[2])
