"""Adapters of two low-rank matrices next to each linear map of a model, and their GGUF files, named by their hash.

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021), section 4.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agent.errors import InputError
from agent.models.adapter_file import FIRST, LORA_ALPHA, SECOND, read_adapter, write_adapter
from agent.models.gguf import Array, read_gguf
from agent.models.quantization import float32_of
from agent.tuning.base_model import MAPS, Architecture, BaseModel, read_architecture


class Lora:
    """The matrices of an adapter, or the gradients of them, as views of one flat vector.

    Args:
        scale: what the product B A is multiplied by: alpha / rank.
        flat: (`lora_size`,). None: zeros.

    Attributes:
        layers: for each layer, by name of the map, A (rank, inputs) and B (outputs, rank).
    """

    __slots__ = ("flat", "layers", "rank", "scale")

    def __init__(self, architecture: Architecture, rank: int, scale: float, flat: Array | None = None) -> None:
        self.rank, self.scale = rank, scale
        self.flat: Array = np.zeros(lora_size(architecture, rank), np.float32) if flat is None else flat
        self.layers: list[dict[str, tuple[Array, Array]]] = []
        at = 0
        for _ in range(architecture.layers):
            layer = {}
            for name in MAPS:
                outputs, inputs = architecture.shape(name)
                middle, end = at + rank * inputs, at + rank * (inputs + outputs)
                layer[name] = (self.flat[at:middle].reshape(rank, inputs), self.flat[middle:end].reshape(outputs, rank))
                at = end
            self.layers.append(layer)

    def embedded(self, base: BaseModel, ids: Array) -> Array:
        """The base's own vectors of the tokens, (T, width)."""
        return base.embedding[ids]

    def add_embedded(self, derivative: Array, ids: Array) -> None:
        """Nothing: the base's vectors stay the same."""


def lora_size(architecture: Architecture, rank: int) -> int:
    return architecture.layers * rank * sum(sum(architecture.shape(name)) for name in MAPS)


def initial_lora(architecture: Architecture, rank: int, scale: float, seed: int) -> Lora:
    """An adapter that changes nothing yet: A uniform within 1 / sqrt(inputs), B zero."""
    rng = np.random.default_rng(seed)
    lora = Lora(architecture, rank, scale)
    for layer in lora.layers:
        for a, _ in layer.values():
            a[:] = rng.uniform(-1, 1, a.shape) / math.sqrt(a.shape[1])
    return lora


@dataclass(frozen=True, slots=True)
class LoraMethod:
    """Trains adapters of one architecture, rank and alpha (see `learner.Method`)."""

    architecture: Architecture
    rank: int
    alpha: float

    @property
    def size(self) -> int:
        return lora_size(self.architecture, self.rank)

    @property
    def decides(self) -> list[Any]:
        return [self.rank, self.alpha]

    def of(self, flat: Array | None = None) -> Lora:
        return Lora(self.architecture, self.rank, self.alpha / self.rank, flat)

    def initial(self, seed: int) -> Lora:
        return initial_lora(self.architecture, self.rank, self.alpha / self.rank, seed)

    def write(self, folder: Path, parameters: Lora) -> tuple[Path, str]:
        return write_lora(folder, self.architecture, parameters)


def write_lora(folder: Path, architecture: Architecture, lora: Lora) -> tuple[Path, str]:
    """Writes `adapter-HASH.gguf`; returns its path and SHA-256. Raises OSError."""
    tensors = {
        f"blk.{number}.{name}.weight{end}": matrix
        for number, layer in enumerate(lora.layers)
        for name, pair in layer.items()
        for end, matrix in zip((FIRST, SECOND), pair, strict=True)
    }
    return write_adapter(folder, "adapter", architecture.family, float(lora.scale * lora.rank), tensors)


def read_lora(path: Path, base: Path) -> Lora:
    """The matrices of an adapter for `base`; a map that it leaves out has zeros.

    Raises:
        InputError: the adapter is truncated, or does not fit the base.
    """
    model = read_gguf(base)
    architecture = read_architecture(model)
    file = read_adapter(path, model)
    names = {f"blk.{number}.{name}.weight": (number, name) for number in range(architecture.layers) for name in MAPS}
    stems = {name.removesuffix(FIRST) for name in file.tensors if name.endswith(FIRST)}
    if other := sorted(stems - set(names)):
        raise InputError(f"{path}: has matrices for {other[0]}, which is no linear map of a layer")
    ranks = {file.tensors[stem + FIRST].shape[0] for stem in stems}
    if len(ranks) > 1:
        raise InputError(f"{path}: its matrices differ in rank ({', '.join(map(str, sorted(ranks)))})")
    (rank,) = ranks
    lora = Lora(architecture, rank, float(file.values[LORA_ALPHA]) / rank)
    for stem in stems:
        number, name = names[stem]
        for end, matrix in zip((FIRST, SECOND), lora.layers[number][name], strict=True):
            matrix[:] = float32_of(file, file.tensors[stem + end])
    return lora
