"""A training as it is handed to another machine: what it takes, and what a node does with it."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.errors import InputError
from agent.files import new_file, sha256_of
from agent.ledger.provenance import tool_version
from agent.run.customize.trainer import versions_of
from agent.tuning.settings import TrainedAdapter, Trainer, TrainingPair, TrainingSettings
from agent.tuning.train import train_pairs
from agent.tuning.training import OnEpoch, OnStep

Files = Sequence[tuple[str, bytes]]
"""By name what a folder holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOrder:
    """A training for a node.

    Args:
        base: the model's file, which lies under the same absolute path on each node.
        digest: SHA-256 of it, in hex digits.
        pairs: of an epoch.
        validation: pairs to stop early by.
        settings: how, with the seed.
        folder: for the result and its checkpoints, an absolute path.
        marker: a file of ours; a node that sees it has our disk, and sends no files.
        trainer: what computes it.
        weights: a Hugging Face folder to train on, an absolute path; None: the weights of `base`.
        versions: of the packages that decide the result; a node with others is refused.
        kept: checkpoints that a node without our disk goes on from.
    """

    base: Path
    digest: str
    pairs: Sequence[TrainingPair]
    validation: Sequence[TrainingPair]
    settings: TrainingSettings
    folder: Path
    marker: Path
    trainer: Trainer
    weights: Path | None
    versions: Mapping[str, str]
    kept: Files = ()


def deciding_versions(trainer: Trainer) -> dict[str, str]:
    """Of the packages here that decide what a training gives."""
    return {"promptassay": tool_version(), **versions_of(trainer)}


def carry_out(order: TrainingOrder, on_step: OnStep, on_epoch: OnEpoch | None = None) -> TrainedAdapter:
    """What a node does: trains, from the checkpoint in its folder where there is one.

    Raises:
        InputError: the node has not the same model or packages, or the training is refused as `train_pairs` refuses it.
    """
    node = f"node {platform.node()}"
    if not order.base.is_file() or sha256_of(order.base) != order.digest:
        what = "is another file there" if order.base.is_file() else "is not there"
        raise InputError(f"{node}: {order.base}: {what}; give every node the same file under this path")
    here = deciding_versions(order.trainer)
    if other := [f"{name} {here[name]}, not {known}" for name, known in order.versions.items() if here[name] != known]:
        raise InputError(f"{node}: has {', '.join(other)}; install the same versions on every node")
    write_files(order.folder, order.kept)
    return train_pairs(
        order.base,
        order.pairs,
        order.settings,
        folder=order.folder,
        trainer=order.trainer,
        weights=order.weights,
        validation=order.validation,
        on_step=on_step,
        on_epoch=on_epoch,
    )


def checkpoints(folder: Path, training: str) -> Files:
    """What a training goes on from."""
    return [(path.name, path.read_bytes()) for path in sorted(folder.glob(f"{training}-*.npz"))]


def files_to_send(order: TrainingOrder, made: TrainedAdapter) -> Files:
    """The result and its checkpoints; none where the node and we see one disk."""
    if order.marker.is_file():
        return []
    return [(made.path.name, made.path.read_bytes()), *checkpoints(order.folder, made.training)]


def write_files(folder: Path, files: Files) -> None:
    """Puts files into a folder, which is made if need be; those that are there stay."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files:
        path = folder / Path(name).name
        if not path.exists():
            with new_file(path) as file:
                file.write(content)
