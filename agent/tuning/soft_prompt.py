"""Soft prompts: trained vectors in the place of free tokens before the prompt; the model stays as it is.

Source: Lester et al., "The Power of Scale for Parameter-Efficient Prompt Tuning" (2021), sections 2 and 3.2.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agent.models.adapter_file import BASE, FIRST, SECOND, TOKENS, SoftTokens, write_adapter
from agent.models.gguf import EMBEDDING, Array
from agent.tuning.base_model import BaseModel
from agent.tuning.layers import Matrices


class SoftPrompt:
    """The vectors of a soft prompt, or the gradients of them.

    Args:
        ids: the tokens whose places the vectors take, (n,).
        flat: (n x width,), which the vectors are views of.

    Attributes:
        vectors: (n, width).
    """

    __slots__ = ("flat", "ids", "layers", "scale", "vectors")

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

    def write(self, folder: Path, parameters: SoftPrompt) -> tuple[Path, str]:
        """`soft-prompt-HASH.gguf`: for each token a rank that is 1 there, times what its vector differs by."""
        count, architecture = len(self.tokens.ids), self.base.architecture
        first = np.zeros((architecture.vocabulary, count), np.float32)
        first[list(self.tokens.ids), range(count)] = 1
        second = (parameters.vectors - self.base.embedding[list(self.tokens.ids)]).T
        more = {TOKENS: json.dumps(self.tokens.texts), BASE: self.base.sha256}
        tensors = {EMBEDDING + FIRST: first, EMBEDDING + SECOND: second}
        return write_adapter(folder, "soft-prompt", architecture.family, float(count), tensors, more)
