"""What is trained beside a model that stays as it is, as the decoder and the loop of a training see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.tuning.base_model import BaseModel
    from agent.tuning.layers import Matrices

    Array = NDArray[Any]


class Parameters(Protocol):
    """Parameters as views of one flat vector, or the gradients of them."""

    @property
    def flat(self) -> Array:
        """All of them, (size,)."""
        ...

    @property
    def scale(self) -> float:
        """What the product of low-rank matrices is multiplied by."""
        ...

    @property
    def layers(self) -> Sequence[Mapping[str, Matrices]]:
        """For each layer the low-rank matrices, by name of the map that they stand beside; a map may have none."""
        ...

    def embedded(self, base: BaseModel, ids: Array) -> Array:
        """What goes into the first layer for these tokens, (T, width); a new array."""
        ...

    def add_embedded(self, derivative: Array, ids: Array) -> None:
        """Adds the derivative by `embedded`, (T, width), to these gradients."""
        ...


P = TypeVar("P", bound=Parameters)


class Method(Protocol[P]):
    """A kind of parameters, with its settings: how they begin, and how they become a file."""

    @property
    def size(self) -> int:
        """How many numbers they are."""
        ...

    @property
    def decides(self) -> list[Any]:
        """What of its settings decides the parameters after an epoch, JSON-ready."""
        ...

    def of(self, flat: Array | None = None) -> P:
        """Parameters that are views of `flat`; None: zeros."""
        ...

    def initial(self, seed: int) -> P:
        """Those before the first step."""
        ...

    def write(self, folder: Path, parameters: P) -> tuple[Path, str]:
        """The file that an engine serves, named by its hash, and its SHA-256. Raises OSError where the disk refuses."""
        ...
