"""What a comparison is asked for, and the plan that is made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from agent.errors import Problem
from agent.extras import command, is_here, missing
from agent.prompt.prompt_candidate import PromptCandidate
from agent.run.customize.arms import ArmSpec, PromptArm
from agent.run.customize.elsewhere import QUESTIONS
from agent.run.customize.hosted import HostedPlan
from agent.scoring.llm_judge import judge_calls
from agent.task.words import near
from agent.tuning.peft.folder import folder_fault
from agent.tuning.settings import MOST_DRAWN, FullSettings, LoraSettings, SoftPromptSettings, Trainer, TrainingSettings
from agent.types import LM, Task

LATENCY_ROWS = 5
"""Dev rows that are asked one after the other, for the time of a call."""


@dataclass(frozen=True, slots=True)
class Trainings:
    """The trainings of a comparison: names of arms, settings of each that dev is shown, seeds of those it chooses, and
    how many numbers of rows there are besides all."""

    arms: Sequence[str]
    tried: int
    seeds: int
    sizes: int

    @property
    def count(self) -> int:
        """How many are begun; settings that dev gives up are trained for an epoch or two."""
        return len(self.arms) * (self.tried + self.seeds - 1 + self.sizes)

    @property
    def line(self) -> str:
        """How many there are, and what for."""
        if not self.arms:
            return "no training here"
        parts = [f"{self.tried} settings on dev"] * (self.tried > 1) + [f"{self.seeds} seeds"] * (self.seeds > 1)
        parts += [f"{self.sizes} fewer numbers of rows"] * bool(self.sizes)
        return f"{self.count} trainings ({', '.join(self.arms)}{': ' if parts else ''}{', '.join(parts)})"


@dataclass(frozen=True, slots=True)
class CustomizePlan:
    """What is compared.

    Args:
        classic: whether methods without a language model take part.
        base: the file of the model, where adapters are trained.
        folder: of the ledger; adapters, checkpoints and releases are kept in it.
        weights: a Hugging Face folder to train on in the place of the weights of `base`; None: those of `base`.
        expected_calls: calls in the life of the prompt; None: as many as it takes.
        hosted: the arm that the model's provider trains, if any.
        tried: how many settings of each training are tried on dev, at least 1.
        seeds: how often each arm is trained with the settings that were chosen, at least 1.
        ray: the address of a Ray cluster that trains. None: this process does.
        is_drawn: whether the settings that are tried are drawn, and stopped by Ray Tune.
    """

    task: Task
    lm: LM
    judges: tuple[LM, ...]
    run: str
    best: PromptCandidate
    prompts: tuple[PromptArm, ...]
    tuned: tuple[ArmSpec, ...]
    classic: bool
    base: Path
    folder: Path
    settings: LoraSettings
    soft: SoftPromptSettings
    full: FullSettings
    trainer: Trainer = "numpy"
    weights: Path | None = None
    expected_calls: int | None = None
    curve: Sequence[int] = ()
    hosted: HostedPlan | None = None
    tried: int = 1
    seeds: int = 1
    others: tuple[Task, ...] = ()
    ray: str | None = None
    is_drawn: bool = False

    @property
    def is_local(self) -> bool:
        """Whether a call costs no dollars."""
        return self.lm.name.startswith("local/")

    def settings_of(self, spec: ArmSpec) -> TrainingSettings:
        return {"soft prompt": self.soft, "full": self.full}.get(spec.method, self.settings)

    def trainer_of(self, spec: ArmSpec) -> Trainer:
        return "peft" if spec.method == "full" else self.trainer

    @property
    def picking(self) -> PromptArm | None:
        """The prompt that picks its examples out of train, which so learns from more rows; None: no arm does."""
        picks = [arm for arm in self.prompts if arm.candidate.picks]
        return next((arm for arm in picks if arm.spec.name == "retrieved"), picks[0] if picks else None)

    @property
    def trainings(self) -> Trainings:
        return Trainings(tuple(spec.name for spec in self.tuned), self.tried, self.seeds, len(self.curve))

    @property
    def calls(self) -> int:
        """How many it takes at most."""
        judged = 1 + judge_calls(self.task)
        rows = (len(self.task.test) + LATENCY_ROWS) * judged
        tuned = len(self.tuned) + (self.hosted is not None)
        general = (len(QUESTIONS) + sum(len(task.dev) for task in self.others)) * (1 + tuned) if tuned else 0
        seeds = len(self.tuned) * (self.seeds - 1) * len(self.task.test) * judged
        learning = len(self.tuned) + (self.picking is not None)
        points = len(self.curve) * learning * len(self.task.test) * judged
        return rows * (len(self.prompts) + tuned) + general + points + seeds


# -- obstacles to a training ------------------------------------------------------------------------------------------

OPTION, FOLDER = "--trainer", "--hf-folder"


def require_trainer(
    trainer: str, weights: Path | None, specs: Sequence[ArmSpec], base: Path | None
) -> tuple[Trainer, list[Problem]]:
    """The trainer of adapters, and all that speaks against what was asked for.

    Args:
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
