"""The plan of a comparison, and what stops one that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from agent.cluster import LOCAL
from agent.errors import Problem
from agent.extras import command, is_here, missing
from agent.jobs.customize.arms import ArmSpec, PromptArm
from agent.jobs.customize.elsewhere import QUESTIONS
from agent.jobs.customize.hosted import HostedPlan
from agent.options.jobs import CustomizeOptions
from agent.prompt.prompt_candidate import PromptCandidate
from agent.scoring.llm_judge import judge_calls
from agent.training.hf_files import folder_fault
from agent.training.settings import FullSettings, LoraSettings, SoftPromptSettings, Trainer, TrainingSettings
from agent.types import LM, Task

LATENCY_ROWS = 5
"""Dev rows that are asked one after the other, for the time of a call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomizePlan:
    """What is compared.

    Args:
        run: the search that the prompts come from.
        prompts: those that take part, `yours` first.
        base: the file of the model, where adapters are trained.
        folder: of the ledger; adapters, checkpoints and releases are kept in it.
        sizes: numbers of train rows that the arms learn from besides all, ascending.
        hosted: the arm that the model's provider trains, if any.
        others: shipped tasks, with the rows that tuned arms are asked in addition.
    """

    task: Task
    lm: LM
    judges: tuple[LM, ...]
    run: str
    best: PromptCandidate
    prompts: tuple[PromptArm, ...]
    specs: Sequence[ArmSpec]
    base: Path
    folder: Path
    asked: CustomizeOptions
    seed: int
    sizes: Sequence[int]
    hosted: HostedPlan | None
    others: tuple[Task, ...]

    @property
    def tuned(self) -> list[ArmSpec]:
        """The arms to train here."""
        return [spec for spec in self.specs if spec.is_trained_here]

    @property
    def has_classic(self) -> bool:
        """Whether methods without a language model take part."""
        return any(spec.method == "no model" for spec in self.specs)

    @property
    def is_local(self) -> bool:
        """Whether a call costs no dollars."""
        return self.lm.name.startswith("local/")

    @property
    def ray(self) -> str | None:
        """The address of the Ray cluster that trains. None: this process does."""
        return (self.asked.ray or (LOCAL if self.asked.tune else None)) if self.tuned else None

    @property
    def train_seconds(self) -> float | None:
        """The cap of one arm."""
        return None if self.asked.train_time is None else float(self.asked.train_time)

    def settings_of(self, spec: ArmSpec) -> TrainingSettings:
        if spec.method == "soft prompt":
            return SoftPromptSettings(seed=self.seed, max_seconds=self.train_seconds)
        kind = FullSettings if spec.method == "full" else LoraSettings
        return kind(seed=self.seed, max_seconds=self.train_seconds)

    def trainer_of(self, spec: ArmSpec) -> Trainer:
        return "peft" if spec.method == "full" else self.asked.trainer

    @property
    def picking(self) -> PromptArm | None:
        """The prompt that picks its examples out of train, which so learns from more rows; None: no arm does."""
        picks = [arm for arm in self.prompts if arm.candidate.picks]
        return next((arm for arm in picks if arm.spec.name == "retrieved"), picks[0] if picks else None)

    @property
    def calls(self) -> int:
        """How many it takes at most."""
        judged, trained = 1 + judge_calls(self.task), len(self.tuned)
        rows = (len(self.task.test) + LATENCY_ROWS) * judged
        tuned = trained + (self.hosted is not None)
        general = (len(QUESTIONS) + sum(len(task.dev) for task in self.others)) * (1 + tuned) if tuned else 0
        seeds = trained * (self.asked.seeds - 1) * len(self.task.test) * judged
        learning = trained + (self.picking is not None)
        points = len(self.sizes) * learning * len(self.task.test) * judged
        return rows * (len(self.prompts) + tuned) + general + points + seeds


def trainings(tuned: Sequence[ArmSpec], asked: CustomizeOptions, sizes: Sequence[int]) -> tuple[int, str]:
    """How many trainings a comparison begins, and a line about them.

    Settings that dev gives up are trained for an epoch or two.
    """
    if not tuned:
        return 0, "no training here"
    count = len(tuned) * (asked.tried + asked.seeds - 1 + len(sizes))
    parts = [f"{asked.tried} settings on dev"] * (asked.tried > 1) + [f"{asked.seeds} seeds"] * (asked.seeds > 1)
    parts += [f"{len(sizes)} fewer numbers of rows"] * bool(sizes)
    names = ", ".join(spec.name for spec in tuned)
    return count, f"{count} trainings ({names}{': ' if parts else ''}{', '.join(parts)})"


# -- obstacles --------------------------------------------------------------------------------------------------------


def require_trainer(asked: CustomizeOptions, specs: Sequence[ArmSpec], base: Path | None) -> list[Problem]:
    """All that speaks against the trainer that was asked for.

    Args:
        specs: the arms to train that were asked for by name.
    """
    problems, folder, is_peft = [], asked.hf_folder, asked.trainer == "peft"
    if folder is not None and (fault := folder_fault(folder, base)):
        problems.append(Problem("--hf-folder", fault))
    soft = [spec.name for spec in specs if spec.method == "soft prompt"]
    if soft and is_peft:
        problems.append(Problem(f"--arms {soft[0]}", "trained in numpy alone; leave it or --trainer peft out"))
    full = [f"--arms {spec.name}" for spec in specs if spec.method == "full"]
    needs = [*(["--trainer peft"] if is_peft else []), *full, *(["--hf-folder"] if folder is not None else [])]
    if needs and not is_here("tune"):
        problems.append(Problem(", ".join(needs), missing("tune")))
    return problems


def require_ray(asked: CustomizeOptions, tuned: Sequence[ArmSpec]) -> list[Problem]:
    """All that speaks against trainings on Ray; `tuned` are the arms to train."""
    needs = [*(["--ray"] if asked.ray is not None else []), *([f"--tune {asked.tune}"] if asked.tune else [])]
    problems = []
    if needs and not tuned:
        problems.append(Problem(", ".join(needs), "no arm is trained here; name one with --arms, or leave it out"))
    if needs and not is_here("ray"):
        problems.append(Problem(", ".join(needs), missing("ray")))
    elif asked.tune and find_spec("pyarrow") is None:  # which Ray Tune needs and Ray alone does not bring
        problems.append(Problem(f"--tune {asked.tune}", f"needs the whole extra; {command('ray')}"))
    return problems
