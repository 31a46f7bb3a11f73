"""Which trainer a comparison uses, and what stands in the way of it; imports no package of an extra."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from agent.errors import Problem
from agent.extras import command, is_here, missing
from agent.run.customize.arms import ArmSpec
from agent.task.words import near
from agent.tuning.peft.folder import folder_fault
from agent.tuning.settings import MOST_DRAWN, Trainer

OPTION, FOLDER = "--trainer", "--hf-folder"


def require_trainer(
    trainer: str, weights: Path | None, specs: Sequence[ArmSpec], base: Path | None
) -> tuple[Trainer, list[Problem]]:
    """The trainer of adapters, and all that speaks against what was asked for.

    Args:
        trainer: its name, as asked for.
        weights: a Hugging Face folder to train on. None: the weights of the model's own file.
        specs: the arms to train that were asked for by name.
        base: the model's own file. None: it has none here.
    """
    problems = []
    known: tuple[Trainer, ...] = get_args(Trainer)
    found = next((name for name in known if name == trainer), None)
    if found is None:
        problems.append(Problem(f"{OPTION} {trainer:.60}", f"no trainer of this name{near(trainer, list(known))}"))
    if weights is not None and (fault := folder_fault(weights, base)):
        problems.append(Problem(FOLDER, fault))
    soft = [spec.name for spec in specs if spec.method == "soft prompt"]
    if soft and found == "peft":
        problems.append(Problem(f"--arms {soft[0]}", f"trained in numpy alone; leave it or {OPTION} peft out"))
    full = [f"--arms {spec.name}" for spec in specs if spec.method == "full"]
    asked = [*([f"{OPTION} peft"] if found == "peft" else []), *full, *([FOLDER] if weights is not None else [])]
    if asked and not is_here("tune"):
        problems.append(Problem(", ".join(asked), missing("tune")))
    return found or "numpy", problems


def require_ray(is_asked: bool, tune: int, tuned: Sequence[ArmSpec]) -> list[Problem]:
    """All that speaks against trainings on Ray.

    Args:
        is_asked: whether `--ray` was.
        tune: how many settings are to be drawn; 0: none.
        tuned: the arms to train.
    """
    asked = [*(["--ray"] if is_asked else []), *([f"--tune {tune}"] if tune else [])]
    problems = []
    if tune and not 2 <= tune <= MOST_DRAWN:
        problems.append(Problem(f"--tune {tune}", f"write a number from 2 to {MOST_DRAWN}"))
    if asked and not tuned:
        problems.append(Problem(", ".join(asked), "no arm is trained here; name one with --arms, or leave it out"))
    if asked and not is_here("ray"):
        problems.append(Problem(", ".join(asked), missing("ray")))
    elif tune and find_spec("pyarrow") is None:  # which Ray Tune needs and Ray alone does not bring
        problems.append(Problem(f"--tune {tune}", f"needs the whole extra; {command('ray')}"))
    return problems


def versions_of(trainer: Trainer) -> dict[str, str]:
    """Of the packages that compute a training."""
    names = {"numpy": ("numpy",), "peft": ("numpy", "torch", "transformers", "peft")}[trainer]
    return {name: version(name) for name in names}
