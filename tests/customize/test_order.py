"""A training for another machine: what a node refuses, and how it goes on where it does not see our disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import InputError
from agent.jobs.customize.arms import ARMS
from agent.jobs.customize.on_ray import NodeOrder, carry_out, files_to_send, write_files
from agent.jobs.customize.trainer import require_ray
from agent.jobs.customize.training import deciding_versions
from agent.options.jobs import CustomizeOptions
from agent.safe_file import sha256_of
from agent.training.settings import LoraSettings, Step, TrainingPair
from agent.types import Message
from tests.training.tiny import speaking

PAIRS = [TrainingPair((Message("user", f"Sort: {word}"),), word[0]) for word in ("apple", "bear", "cat", "dog")]


def an_order(folder: Path, **changed: object) -> NodeOrder:
    base = speaking(folder / "tiny.gguf")
    order = NodeOrder(
        base=base,
        digest=sha256_of(base),
        rows=PAIRS * 4,
        validation=PAIRS,
        settings=LoraSettings(epochs=3, patience=9),
        folder=folder / "node",
        marker=folder / "marker",
        trainer="numpy",
        weights=None,
        versions=deciding_versions("numpy"),
    )
    return replace(order, **changed)  # type: ignore[arg-type]


def epochs_of(order: NodeOrder) -> tuple[str, list[int]]:
    """The adapter's hash, and the epochs that were trained for it now."""
    steps: list[Step] = []
    made = carry_out(order, steps.append)
    return made.sha256, sorted({step.epoch for step in steps})


def test_a_node_with_another_model_or_other_packages_is_refused(tmp_path: Path) -> None:
    order = an_order(tmp_path)
    with pytest.raises(InputError, match=r"tiny.gguf: is another file; give every node the same file"):
        carry_out(replace(order, digest="0" * 64), print)
    with pytest.raises(InputError, match=r"none.gguf: is missing"):
        carry_out(replace(order, base=tmp_path / "none.gguf"), print)
    with pytest.raises(InputError, match=r"has numpy .*, not 0.1; install the same versions on every node"):
        carry_out(replace(order, versions={**order.versions, "numpy": "0.1"}), print)


def test_without_a_shared_disk_files_come_back_and_the_next_node_goes_on_from_them(tmp_path: Path) -> None:
    order = an_order(tmp_path)
    whole, _ = epochs_of(order)
    begun = replace(order, folder=tmp_path / "one", settings=replace(order.settings, pause_after=1))
    made = carry_out(begun, lambda step: None)
    files = files_to_send(begun, made)
    assert [name for name, _ in files] == [made.path.name, *(path.name for path in begun.folder.glob("*.npz"))]
    write_files(tmp_path / "ours", files)
    assert {path.name for path in (tmp_path / "ours").iterdir()} == {name for name, _ in files}
    kept = [file for file in files if file[0].endswith(".npz")]
    assert epochs_of(replace(order, folder=tmp_path / "two", kept=kept)) == (whole, [2, 3])
    (tmp_path / "marker").touch()
    assert files_to_send(begun, made) == []


def test_each_validated_epoch_is_reported_once_and_those_of_a_checkpoint_first(tmp_path: Path) -> None:
    order, heard = an_order(tmp_path), list[tuple[int, float, float]]()
    carry_out(replace(order, settings=replace(order.settings, pause_after=2)), lambda step: None)
    made = carry_out(order, lambda step: None, lambda *epoch: heard.append(epoch))
    assert [(epoch, score) for epoch, score, _ in heard] == list(enumerate(made.scores, 1))
    assert heard[-1][2] == made.seconds


def test_what_speaks_against_ray_is_said_at_once() -> None:
    problems = [str(one) for one in require_ray(CustomizeOptions(ray="local", tune=2), [])]
    assert problems[0].startswith("--ray, --tune 2: no arm is trained here")
    assert require_ray(CustomizeOptions(), [ARMS["lora"]]) == []
