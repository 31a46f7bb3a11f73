"""The two low-rank matrices beside each linear map of a model, as views of one flat vector.

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021), section 4.1.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from agent.tuning.base_model import MAPS, Architecture, BaseModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


class Lora:
    """The matrices of an adapter, or the gradients of them.

    Args:
        flat: (`lora_size`,), which the matrices are views of; None: zeros.
        scale: what the product B A is multiplied by: alpha / rank.

    Attributes:
        layers: for each layer, by name of the map, A (rank, inputs) and B (outputs, rank).
    """

    __slots__ = ("flat", "layers", "rank", "scale")

    def __init__(self, architecture: Architecture, rank: int, scale: float, flat: Array | None = None) -> None:
        import numpy as np

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
        """Nothing: the base's vectors stay as they are."""


def lora_size(architecture: Architecture, rank: int) -> int:
    """How many numbers an adapter has."""
    return architecture.layers * rank * sum(sum(architecture.shape(name)) for name in MAPS)


def initial_lora(architecture: Architecture, rank: int, scale: float, seed: int) -> Lora:
    """An adapter that changes nothing yet: A uniform within 1 / sqrt(inputs), B zero."""
    import numpy as np

    rng = np.random.default_rng(seed)
    lora = Lora(architecture, rank, scale)
    for layer in lora.layers:
        for a, _ in layer.values():
            a[:] = rng.uniform(-1, 1, a.shape) / math.sqrt(a.shape[1])
    return lora
