"""The hand-written derivatives, packed rows, Adam, and the engine, which computes the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.models.adapters import SoftTokens
from agent.training.base_model import BaseModel, Layer, load_base
from agent.training.decoder import add_gradients, answer_loss, logits
from agent.training.loop import CLIP, Adam
from agent.training.parameters import Lora, Parameters, SoftPrompt, lora_size
from agent.training.rows import TokenPair, pack, packs, parts
from tests.training.engine import load, log_probabilities, top
from tests.training.tiny import rows, tiny, with_vocabulary

FAMILIES = pytest.mark.parametrize(("family", "tied"), [("llama", True), ("qwen2", False)])
RANK, SCALE = 3, 2.0
SOFT = SoftTokens((3, 4), ("<a>", "<b>"))
IDS = (5, 6, 7, 20, 31, 12, 9)
CLOSE = 0.02  # the engine keeps keys and values in float16


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
@pytest.mark.parametrize("kind", ["lora", "soft prompt"])
def test_each_parameter_has_the_gradient_of_finite_differences(
    tmp_path: Path, family: str, tied: bool, kind: str
) -> None:
    base, rng = exact(load_base(tiny(tmp_path / "a.gguf", family, tied))), np.random.default_rng(7)
    tuned: Parameters = adapter(base)
    if kind == "soft prompt":
        tuned = SoftPrompt(base, SOFT).like(rng.normal(0, 0.5, 2 * base.architecture.width))
    packed = pack([TokenPair((1, *SOFT.ids, *row.prompt), row.answer) for row in rows(4)])
    gradients = tuned.like(np.zeros_like(tuned.flat))
    assert add_gradients(base, tuned, packed, 1.0, gradients) == pytest.approx(answer_loss(base, tuned, packed))
    assert all(np.abs(one).max() > 1e-4 for layer in gradients.layers for pair in layer.values() for one in pair)
    sizes = [one.size for layer in tuned.layers for pair in layer.values() for one in pair] or [tuned.flat.size]
    ends = np.cumsum([0, *sizes])
    assert ends[-1] == tuned.flat.size
    step = 1e-6
    for start, size in zip(ends, sizes, strict=False):
        for at in start + rng.choice(size, min(size, 16), replace=False):
            kept, around = tuned.flat[at], []
            for value in (kept + step, kept - step):
                tuned.flat[at] = value
                around.append(answer_loss(base, tuned, packed))
            tuned.flat[at] = kept
            expected = (around[0] - around[1]) / (2 * step)
            assert gradients.flat[at] == pytest.approx(expected, rel=1e-4, abs=1e-7), at


def test_a_token_that_comes_twice_gets_both_gradients(tmp_path: Path) -> None:
    base = load_base(tiny(tmp_path / "a.gguf"))
    gradients = SoftPrompt(base, SOFT)
    gradients.add_embedded(np.ones((4, base.architecture.width), np.float32), np.array([3, 9, 4, 3]))
    assert gradients.vectors[:, 0].tolist() == [2.0, 1.0]


@FAMILIES
def test_packed_rows_have_the_loss_and_gradients_that_they_have_alone(tmp_path: Path, family: str, tied: bool) -> None:
    base = exact(load_base(tiny(tmp_path / "a.gguf", family, tied)))
    lora, some = adapter(base), rows(7)
    results = []
    for groups in ([pack(some)], [pack([row]) for row in some], packs(some, 16)):
        gradients = Lora(base.architecture, RANK, SCALE, np.zeros_like(lora.flat))
        results.append((sum(add_gradients(base, lora, one, 0.5, gradients) for one in groups), gradients.flat))
    for loss, flat in results[1:]:
        assert results[0][0] == pytest.approx(loss, rel=1e-12)
        assert np.allclose(results[0][1], flat, rtol=1e-9, atol=1e-12)


def test_a_token_sees_its_row_and_none_after_it(tmp_path: Path) -> None:
    base = load_base(tiny(tmp_path / "a.gguf"))
    lora, some = adapter(base, np.float32), rows(3)
    together = logits(base, lora, pack(some))
    other = logits(base, lora, pack([some[0], some[1], rows(9, seed=5)[7]]))
    count = sum(len(row.answer) for row in some[:2])
    assert np.allclose(together[:count], other[:count], atol=1e-5)
    assert not np.allclose(together[count:], other[count:], atol=1e-2)
    row = some[0]
    changed = replace(row, answer=(row.answer[0], 33, row.answer[2]))
    one, two = (logits(base, lora, pack([each])) for each in (row, changed))
    assert np.array_equal(one[:2], two[:2])
    assert not np.array_equal(one[2], two[2])


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
    equal = pack([some[0], some[0]])
    assert equal.prefix == len(some[0].prompt) - 1, "a token of each is left"
    assert equal.outputs.min() >= equal.prefix


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_parts_hold_every_row_once_and_are_about_alike(count: int) -> None:
    some = rows(6)
    groups = parts(some, count)
    assert [row for group in groups for row in group] == some
    assert len(groups) <= count
    sizes = [sum(len(row.prompt) + len(row.answer) for row in group) for group in groups]
    assert max(sizes) - min(sizes) <= 2 * max(len(row.prompt) + len(row.answer) for row in some)


@FAMILIES
def test_the_engine_gives_the_same_log_probabilities(tmp_path: Path, family: str, tied: bool) -> None:
    """Rotation, biases, shared heads, scale."""
    path = with_vocabulary(tiny(tmp_path / "tiny.gguf", family, tied))
    base = load_base(path)
    trained = adapter(base, np.float32)
    file, _ = trained.write(tmp_path)
    found = []
    for served, lora in ((None, Lora(base.architecture, RANK, SCALE).initial(0)), (file, trained)):
        theirs = top(load(path, served), IDS)
        ours = log_probabilities(logits(base, lora, pack([TokenPair(IDS, (1,))])))[0]
        assert int(ours.argmax()) == max(theirs, key=theirs.__getitem__)
        for token, value in theirs.items():
            assert ours[token] == pytest.approx(value, abs=CLOSE)
        found.append(ours)
    assert np.abs(found[0] - found[1]).max() > 10 * CLOSE, "the adapter changes something"


def by_hand(start: list[float], gradients: list[list[float]], rate: float) -> list[float]:
    """Adam as the paper writes it, one number at a time, with the clip before it."""
    first, second, at = [0.0] * len(start), [0.0] * len(start), list(start)
    for step, gradient in enumerate(gradients, 1):
        length = math.hypot(*gradient)
        for i, one in enumerate(gradient):
            g = one * min(1.0, 1.0 / length)
            first[i] = 0.9 * first[i] + 0.1 * g
            second[i] = 0.999 * second[i] + 0.001 * g * g
            at[i] -= rate * (first[i] / (1 - 0.9**step)) / (math.sqrt(second[i] / (1 - 0.999**step)) + 1e-8)
    return at


def test_adam_steps_as_the_paper_writes_it() -> None:
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=5), rng.normal(0, 0.6, (20, 5))  # some longer than the clip, some not
    lengths = [float(np.linalg.norm(one)) for one in gradients]
    assert min(lengths) < CLIP < max(lengths)
    parameters, adam = start.copy(), Adam(np.zeros(5), np.zeros(5))
    for one, length in zip(gradients, lengths, strict=True):
        assert adam.update(parameters, one.copy(), 0.01) == pytest.approx(length)
    assert adam.step == 20
    assert parameters == pytest.approx(by_hand(list(start), gradients.tolist(), 0.01), rel=1e-9)
    still, first = np.ones(3), Adam(np.zeros(3), np.zeros(3))
    first.update(still, np.zeros(3), 0.1)
    assert still.tolist() == [1.0, 1.0, 1.0]
