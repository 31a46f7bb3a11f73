"""Low-rank adapters (LoRA) and soft prompts, and their GGUF files, named by hash.

Sources: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021), section 4.1; Lester et al., "The Power
of Scale for Parameter-Efficient Prompt Tuning" (2021), sections 2 and 3.2.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from agent.errors import InputError
from agent.models.adapters import BASE, FIRST, LORA_ALPHA, SECOND, TOKENS, SoftTokens, read_adapter, write_adapter
from agent.models.gguf import EMBEDDING, Array, read_gguf
from agent.models.quantization import float32_of
from agent.training.base_model import MAPS, Architecture, BaseModel, read_architecture

Matrices = tuple["Array", "Array"]
"""A (rank, inputs) and B (outputs, rank) of an adapter, or their gradients."""


class Lora:
    """Matrices of an adapter, or their gradients, as views of one flat vector (None: zeros).

    `layers`: for each layer the matrices by name of their map; `scale`: alpha / rank, the factor of their product;
    `decides`: as of `NumpyLearner`.
    """

    def __init__(self, architecture: Architecture, rank: int, scale: float, flat: Array | None = None) -> None:
        self.architecture, self.rank, self.scale = architecture, rank, scale
        self.decides: list[Any] = [rank, float(scale * rank)]
        self.flat: Array = np.zeros(lora_size(architecture, rank), np.float32) if flat is None else flat
        self.layers: list[dict[str, Matrices]] = []
        at = 0
        for _ in range(architecture.layers):
            layer = {}
            for name in MAPS:
                outputs, inputs = architecture.shape(name)
                middle, end = at + rank * inputs, at + rank * (inputs + outputs)
                layer[name] = (self.flat[at:middle].reshape(rank, inputs), self.flat[middle:end].reshape(outputs, rank))
                at = end
            self.layers.append(layer)

    def like(self, flat: Array) -> Lora:
        """Return parameters of the same kind as views of another vector."""
        return Lora(self.architecture, self.rank, self.scale, flat)

    def initial(self, seed: int) -> Lora:
        """Return an adapter without effect: A uniform within 1 / sqrt(inputs), B zero."""
        rng, lora = np.random.default_rng(seed), Lora(self.architecture, self.rank, self.scale)
        for layer in lora.layers:
            for a, _ in layer.values():
                a[:] = rng.uniform(-1, 1, a.shape) / math.sqrt(a.shape[1])
        return lora

    def write(self, folder: Path) -> tuple[Path, str]:
        """Write the file for an engine, named by hash; return it and its SHA-256."""
        tensors = {
            f"blk.{number}.{name}.weight{end}": matrix
            for number, layer in enumerate(self.layers)
            for name, pair in layer.items()
            for end, matrix in zip((FIRST, SECOND), pair, strict=True)
        }
        return write_adapter(folder, "adapter", self.architecture.family, float(self.scale * self.rank), tensors)

    def embedded(self, base: BaseModel, ids: Array) -> Array:
        """Return the input of the first layer for these tokens, (T, width); a new array."""
        vectors: Array = base.embedding[ids]
        return vectors

    def add_embedded(self, derivative: Array, ids: Array) -> None:
        """Add the derivative by `embedded`, (T, width), to these gradients; an adapter has nothing there."""


def lora_size(architecture: Architecture, rank: int) -> int:
    return architecture.layers * rank * sum(sum(architecture.shape(name)) for name in MAPS)


def read_lora(path: Path, base: Path) -> Lora:
    """Read the matrices of an adapter for `base`; missing maps get zeros.

    Raises InputError where it is truncated, or does not fit the base.
    """
    model = read_gguf(base)
    architecture, file = read_architecture(model), read_adapter(path, model)
    names = {f"blk.{number}.{name}.weight": (number, name) for number in range(architecture.layers) for name in MAPS}
    stems = {name.removesuffix(FIRST) for name in file.tensors if name.endswith(FIRST)}
    if other := sorted(stems - set(names)):
        raise InputError(f"{path}: has matrices for {other[0]}, not a linear map of a layer")
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


class SoftPrompt:
    """Vectors of a soft prompt that replace those of some tokens, (n, width); else as `Lora`, without matrices."""

    def __init__(self, base: BaseModel, tokens: SoftTokens, flat: Array | None = None) -> None:
        self.base, self.tokens, self.ids, self.scale = base, tokens, np.array(tokens.ids), 1.0
        self.decides: list[Any] = ["soft prompt", list(tokens.ids)]
        size = len(tokens.ids) * base.architecture.width
        self.flat = np.zeros(size, base.embedding.dtype) if flat is None else flat
        self.vectors: Array = self.flat.reshape(len(tokens.ids), -1)
        self.layers: list[dict[str, Matrices]] = [{} for _ in base.layers]

    def like(self, flat: Array) -> SoftPrompt:
        return SoftPrompt(self.base, self.tokens, flat)

    def initial(self, seed: int) -> SoftPrompt:
        """Return vectors of random other tokens. Source: Lester et al. (2021), section 3.2."""
        others = np.setdiff1d(np.arange(self.base.architecture.vocabulary), self.ids)
        drawn = np.random.default_rng(seed).choice(others, len(self.ids), replace=False)
        return self.like(self.base.embedding[drawn].ravel())

    def write(self, folder: Path) -> tuple[Path, str]:
        """Write one rank per token: a one-hot row times its vector's difference."""
        count, architecture = len(self.ids), self.base.architecture
        first = np.zeros((architecture.vocabulary, count), np.float32)
        first[self.ids, range(count)] = 1
        second = (self.vectors - self.base.embedding[self.ids]).T
        more = {TOKENS: json.dumps(self.tokens.texts), BASE: self.base.sha256}
        tensors = {EMBEDDING + FIRST: first, EMBEDDING + SECOND: second}
        return write_adapter(folder, "soft-prompt", architecture.family, float(count), tensors, more)

    def embedded(self, base: BaseModel, ids: Array) -> Array:
        x: Array = base.embedding[ids]
        places, which = (ids[:, None] == self.ids).nonzero()
        x[places] = self.vectors[which]
        return x

    def add_embedded(self, derivative: Array, ids: Array) -> None:
        places, which = (ids[:, None] == self.ids).nonzero()
        np.add.at(self.vectors, which, derivative[places])


Parameters = Lora | SoftPrompt
