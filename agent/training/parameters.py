"""Low-rank adapters (LoRA) and soft prompts, trained next to fixed weights, and their GGUF files, named by hash.

Sources: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021), section 4.1; Lester et al., "The Power
of Scale for Parameter-Efficient Prompt Tuning" (2021), sections 2 and 3.2.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from agent.errors import InputError
from agent.models.adapters import BASE, FIRST, LORA_ALPHA, SECOND, TOKENS, SoftTokens, read_adapter, write_adapter
from agent.models.gguf import EMBEDDING, Array, read_gguf
from agent.models.quantization import float32_of
from agent.training.base_model import MAPS, Architecture, BaseModel, read_architecture

Matrices = tuple["Array", "Array"]
"""A (rank, inputs) and B (outputs, rank) of an adapter, or their gradients."""


class Parameters:
    """Parameters as views of one flat vector, or the gradients of them.

    Attributes:
        scale: what the product of low-rank matrices is multiplied by.
        layers: for each layer the low-rank matrices by name of their map; a map may have none.
    """

    flat: Array
    scale: float
    layers: Sequence[Mapping[str, Matrices]]

    def embedded(self, base: BaseModel, ids: Array) -> Array:
        """What goes into the first layer for these tokens, (T, width); a new array."""
        vectors: Array = base.embedding[ids]
        return vectors

    def add_embedded(self, derivative: Array, ids: Array) -> None:
        """Add the derivative by `embedded`, (T, width), to these gradients."""


class Method(Protocol):
    """A kind of parameters, with its settings: how they begin, and how they become a file.

    `decides`: what of its settings decides the parameters after an epoch, JSON-ready.
    """

    @property
    def size(self) -> int: ...

    @property
    def decides(self) -> list[Any]: ...

    def of(self, flat: Array | None = None) -> Parameters:
        """Parameters that are views of `flat`; None: zeros."""
        ...

    def initial(self, seed: int) -> Parameters: ...

    def write(self, folder: Path, flat: Array) -> tuple[Path, str]:
        """Write the file that an engine serves, named by its hash; return it and its SHA-256. Raises OSError."""
        ...


class Lora(Parameters):
    """The matrices of an adapter, or the gradients of them, as views of one flat vector.

    Args:
        scale: what the product B A is multiplied by: alpha / rank.
        flat: (`lora_size`,). None: zeros.

    Attributes:
        layers: for each layer, by name of the map, A (rank, inputs) and B (outputs, rank).
    """

    def __init__(self, architecture: Architecture, rank: int, scale: float, flat: Array | None = None) -> None:
        self.rank, self.scale = rank, scale
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
    """Trains adapters of one architecture, rank and alpha."""

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

    def write(self, folder: Path, flat: Array) -> tuple[Path, str]:
        return write_lora(folder, self.architecture, self.of(flat))


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


class SoftPrompt(Parameters):
    """The vectors of a soft prompt, or the gradients of them.

    Args:
        ids: the tokens whose places the vectors take, (n,).
        flat: (n x width,), which the vectors are views of.

    Attributes:
        vectors: (n, width).
    """

    def __init__(self, base: BaseModel, ids: Array, flat: Array) -> None:
        self.ids, self.flat, self.scale = ids, flat, 1.0
        self.vectors: Array = flat.reshape(len(ids), -1)
        self.layers: list[dict[str, Matrices]] = [{} for _ in base.layers]

    def embedded(self, base: BaseModel, ids: Array) -> Array:
        """The base's vectors of the tokens, and these in the places of theirs, (T, width)."""
        x: Array = base.embedding[ids]
        places, which = (ids[:, None] == self.ids).nonzero()
        x[places] = self.vectors[which]
        return x

    def add_embedded(self, derivative: Array, ids: Array) -> None:
        """Adds the derivative at the places of the vectors to these gradients."""
        places, which = (ids[:, None] == self.ids).nonzero()
        np.add.at(self.vectors, which, derivative[places])


@dataclass(frozen=True, slots=True)
class SoftMethod:
    """Soft prompts of one model in the place of some of its tokens."""

    base: BaseModel
    tokens: SoftTokens

    @property
    def size(self) -> int:
        return len(self.tokens.ids) * self.base.architecture.width

    @property
    def decides(self) -> list[Any]:
        return ["soft prompt", list(self.tokens.ids)]

    def of(self, flat: Array | None = None) -> SoftPrompt:
        flat = np.zeros(self.size, self.base.embedding.dtype) if flat is None else flat
        return SoftPrompt(self.base, np.array(self.tokens.ids), flat)

    def initial(self, seed: int) -> SoftPrompt:
        """Vectors of other tokens, drawn from the vocabulary. Source: Lester et al. (2021), section 3.2."""
        others = np.setdiff1d(np.arange(self.base.architecture.vocabulary), self.tokens.ids)
        drawn = np.random.default_rng(seed).choice(others, len(self.tokens.ids), replace=False)
        return self.of(self.base.embedding[drawn].ravel())

    def write(self, folder: Path, flat: Array) -> tuple[Path, str]:
        """`soft-prompt-HASH.gguf`: for each token a rank that is 1 there, times what its vector differs by."""
        count, architecture = len(self.tokens.ids), self.base.architecture
        first = np.zeros((architecture.vocabulary, count), np.float32)
        first[list(self.tokens.ids), range(count)] = 1
        second = (self.of(flat).vectors - self.base.embedding[list(self.tokens.ids)]).T
        more = {TOKENS: json.dumps(self.tokens.texts), BASE: self.base.sha256}
        tensors = {EMBEDDING + FIRST: first, EMBEDDING + SECOND: second}
        return write_adapter(folder, "soft-prompt", architecture.family, float(count), tensors, more)
