"""The state of a training at the end of an epoch, as a file from which it goes on with the same bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.files import new_files, sha256_of
from agent.tuning.adam import Adam

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


@dataclass(slots=True)
class TrainingState:
    """How far a training is.

    Args:
        parameters: the adapter's, flat.
        best: those of the epoch with the best validation score; where nothing was validated, the latest.
        best_epoch: that epoch; 0: none has ended.
        epoch: epochs that have ended.
        seconds: of training, without validation.
        tokens: through the model.
        losses: of each step.
        scores: of each epoch that was validated.
    """

    parameters: Array
    adam: Adam
    best: Array
    best_epoch: int = 0
    epoch: int = 0
    seconds: float = 0.0
    tokens: int = 0
    losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)


def save_checkpoint(folder: Path, training: str, progress: TrainingState) -> None:
    """Writes `TRAINING-epochN-HASH.npz` and takes out those of earlier epochs.

    Args:
        training: a name of hex digits for what is trained, on what, how.

    Raises:
        OSError: the disk refuses.
    """
    import numpy as np

    with new_files(folder) as beside:
        with (beside / "state").open("wb") as file:
            np.savez(
                file,
                allow_pickle=False,
                parameters=progress.parameters,
                best=progress.best,
                mean=progress.adam.mean,
                square=progress.adam.square,
                counts=np.array([progress.adam.step, progress.epoch, progress.best_epoch, progress.tokens]),
                seconds=np.array(progress.seconds),
                losses=np.array(progress.losses),
                scores=np.array(progress.scores),
            )
        name = f"{training}-epoch{progress.epoch}-{_digest(beside / 'state')}.npz"
        (beside / "state").rename(beside / name)
    path = folder / name
    for _, earlier in _kept(folder, training):
        if earlier != path:
            earlier.unlink(missing_ok=True)  # the same training on another node may have been first


def load_checkpoint(folder: Path, training: str, size: int) -> TrainingState | None:
    """The latest state of a training that is whole; None where there is none.

    Args:
        size: how many parameters the adapter has.
    """
    import numpy as np

    for _, path in sorted(_kept(folder, training), reverse=True):
        if not path.stem.endswith(_digest(path)):
            continue  # damaged: an earlier one leads to the same adapter
        with np.load(path, allow_pickle=False) as file:
            if file["parameters"].shape != (size,):
                continue
            step, epoch, best_epoch, tokens = (int(count) for count in file["counts"])
            return TrainingState(
                parameters=file["parameters"],
                adam=Adam(file["mean"], file["square"], step),
                best=file["best"],
                best_epoch=best_epoch,
                epoch=epoch,
                seconds=float(file["seconds"]),
                tokens=tokens,
                losses=file["losses"].tolist(),
                scores=file["scores"].tolist(),
            )
    return None


def _kept(folder: Path, training: str) -> list[tuple[int, Path]]:
    name = re.compile(rf"{training}-epoch(\d+)-[0-9a-f]{{16}}\.npz")
    found = ((name.fullmatch(path.name), path) for path in folder.glob(f"{training}-epoch*.npz"))
    return [(int(match[1]), path) for match, path in found if match]


def _digest(path: Path) -> str:
    return sha256_of(path)[:16]
