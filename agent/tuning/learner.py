"""What is trained, and what computes it, as loop and decoder see them: a flat vector, its loss, its gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from agent.models.gguf import Array
from agent.tuning.base_model import BaseModel
from agent.tuning.layers import Matrices
from agent.tuning.packing import TokenPair


class LaidRows(Protocol):
    """Rows laid out for one step; `tokens` go through the model, without padding."""

    @property
    def tokens(self) -> int: ...


B = TypeVar("B", bound=LaidRows)


class Learner(Protocol[B]):
    """A base, what is trained of it or next to it, and the library that computes it.

    Its parameters are one flat float32 vector in the layout of the file that it writes, so that loop, optimizer and
    checkpoints are the same for all.
    """

    @property
    def size(self) -> int: ...

    @property
    def decides(self) -> list[Any]:
        """What decides the parameters after an epoch besides rows and the settings of all trainings, JSON-ready."""
        ...

    @property
    def base(self) -> str:
        """The SHA-256 of the base's weights, in hex digits."""
        ...

    def initial(self, seed: int) -> Array:
        """The parameters before the first step, (size,)."""
        ...

    def batch(self, rows: Sequence[TokenPair]) -> B:
        """One row or more for a step."""
        ...

    def gradient(self, parameters: Array, batch: B) -> tuple[float, Array]:
        """The mean loss of the batch's answer tokens, in nats, and its gradient, (size,), which may be overwritten."""
        ...

    def score(self, parameters: Array, rows: Sequence[TokenPair]) -> float:
        """Minus the mean loss of the answer tokens of rows; higher is better."""
        ...

    def write(self, folder: Path, parameters: Array) -> tuple[Path, str]:
        """The file that an engine serves, named by its hash, and its SHA-256. Raises OSError."""
        ...

    def __enter__(self) -> Learner[B]: ...

    def __exit__(self, *_: object) -> None: ...


# -- parameters next to fixed weights ---------------------------------------------------------------------------------


class Parameters(Protocol):
    """Parameters as views of one flat vector, or the gradients of them."""

    @property
    def flat(self) -> Array: ...

    @property
    def scale(self) -> float:
        """What the product of low-rank matrices is multiplied by."""
        ...

    @property
    def layers(self) -> Sequence[Mapping[str, Matrices]]:
        """For each layer the low-rank matrices by name of their map; a map may have none."""
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
    def size(self) -> int: ...

    @property
    def decides(self) -> list[Any]:
        """What of its settings decides the parameters after an epoch, JSON-ready."""
        ...

    def of(self, flat: Array | None = None) -> P:
        """Parameters that are views of `flat`; None: zeros."""
        ...

    def initial(self, seed: int) -> P: ...

    def write(self, folder: Path, parameters: P) -> tuple[Path, str]:
        """As of `Learner`."""
        ...
