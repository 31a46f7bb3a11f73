"""Which trainer a comparison uses, and what stands in the way of it; imports no package of an extra."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from agent.errors import Problem
from agent.extras import is_here, missing
from agent.run.customize.arms import ArmSpec
from agent.task.words import near
from agent.tuning.peft.folder import folder_fault
from agent.tuning.settings import Trainer

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
