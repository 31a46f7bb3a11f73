"""What is trained and by what, as the loop of a training sees it: one flat vector, its loss and its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from agent.tuning.packing import TokenPair

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


class LaidRows(Protocol):
    """Rows laid out for one step."""

    @property
    def tokens(self) -> int:
        """How many go through the model, without padding."""
        ...


B = TypeVar("B", bound=LaidRows)


class Learner(Protocol[B]):
    """A base, what is trained of it or beside it, and the library that computes it.

    Its parameters are one flat float32 vector in the layout of the file that it writes, so that loop, optimizer and
    checkpoints are the same for all.
    """

    @property
    def size(self) -> int:
        """How many parameters there are."""
        ...

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
        """The file that an engine serves, named by its hash, and its SHA-256. Raises OSError where the disk refuses."""
        ...

    def __enter__(self) -> Learner[B]: ...

    def __exit__(self, *_: object) -> None: ...
