"""The arms and the plan of a comparison: what answers the same sealed rows, and what speaks against it. Calls nothing.

A search has chosen its prompts on dev; none is taken for what it scored on the sealed test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from agent.cluster import LOCAL
from agent.errors import InputError, Problem
from agent.extras import command, is_here, missing
from agent.jobs.customize.forgetting import QUESTIONS
from agent.jobs.recorded import recorded_prompt
from agent.ledger.query import History, Row, is_calibrated
from agent.models.adapters import free_tokens, split_adapter
from agent.models.gguf import read_gguf
from agent.options.jobs import CustomizeOptions
from agent.programs import TUNED_ARMS
from agent.prompt.prompt_candidate import PromptCandidate
from agent.results.customize import Family
from agent.safe_text import near
from agent.scoring.llm_judge import judge_calls
from agent.training.base_model import read_architecture
from agent.training.hf_files import folder_fault
from agent.training.rows import require_soft_tokens
from agent.training.settings import FullSettings, LoraSettings, SoftPromptSettings, Trainer, TrainingSettings
from agent.types import LM, Message, Task

if TYPE_CHECKING:
    from agent.jobs.customize.hosted import HostedPlan
    from agent.jobs.customize.settings_search import SettingsChoice

Method = Literal["prompt", "lora", "soft prompt", "full", "hosted", "no model"]
LATENCY_ROWS = 5
"""Dev rows that are asked one after the other, for the time of a call."""


@dataclass(frozen=True, slots=True)
class ArmSpec:
    """An arm as one can ask for it (`--arms`). One that is not `by_default` takes part only where it is named."""

    name: str
    method: Method
    about: str
    by_default: bool = True

    @property
    def family(self) -> Family:
        if self.method in ("prompt", "no model"):
            return self.method
        return "tuned"

    @property
    def is_trained_here(self) -> bool:
        """Whether it takes a training on this machine."""
        return self.family == "tuned" and self.method != "hosted"


ARMS: Mapping[str, ArmSpec] = {
    spec.name: spec
    for spec in (
        ArmSpec("yours", "prompt", "your prompt as it is"),
        ArmSpec("best", "prompt", "the best prompt that the search found"),
        ArmSpec("retrieved", "prompt", "the best prompt that picks its examples for each input"),
        ArmSpec("calibrated", "prompt", "the best prompt with calibration"),
        ArmSpec("soft-prompt", "soft prompt", "trained vectors before the bare input", by_default=False),
        ArmSpec(TUNED_ARMS[0], "lora", "a LoRA adapter, asked with the bare input"),
        ArmSpec(TUNED_ARMS[1], "lora", "a LoRA adapter trained with the instruction of the best prompt"),
        ArmSpec(TUNED_ARMS[2], "full", "a copy with all weights trained, asked with the bare input", by_default=False),
        ArmSpec("hosted", "hosted", "the model trained at its provider, with the best instruction", by_default=False),
        ArmSpec("no-model", "no model", "largest class, classifier, nearest rows"),
    )
}
"""Every arm by its name, in the order of the table. `yours` always takes part."""


@dataclass(frozen=True, slots=True)
class MadeArm:
    """An arm that can be asked: its prompt, the model that answers, and what it took to make it.

    Args:
        usd: of its training at a provider; None: the price is not known.
    """

    spec: ArmSpec
    candidate: PromptCandidate
    model: LM
    labels: int
    train_s: float = 0.0
    seconds: float = 0.0
    usd: float | None = 0.0
    megabytes: float = 0.0
    seed: int = 0
    choice: SettingsChoice | None = None
    job: str = ""


def require_arms(names: Sequence[str]) -> tuple[list[ArmSpec], list[Problem]]:
    """The arms of these names (none: the default ones) with `yours`, in the order of the table, and unknown names."""
    unknown = [
        Problem(f"--arms {name:.60}", f"no arm of this name{near(name, list(ARMS))}")
        for name in names
        if name not in ARMS
    ]
    wanted = names or [spec.name for spec in ARMS.values() if spec.by_default]
    return [spec for spec in ARMS.values() if spec.name in wanted or spec.name == "yours"], unknown


def prompt_arms(history: History, run: Row, specs: Sequence[ArmSpec]) -> dict[str, PromptCandidate]:
    """The prompts of a finished search that take part, by arm: of each kind the best on dev, if any."""
    trials = [
        trial
        for trial in history.trials(run["id"])
        if trial["mean"] is not None and (trial["state"] == "complete" or trial["number"] == 0)
    ]
    best = sorted(trials, key=lambda trial: (-trial["mean"], trial["number"]))
    winner = (run["result"] or {})["winner"]["candidate_id"]
    rows = {trial["candidate_id"]: history.candidate(trial["candidate_id"]) for trial in best}
    groups = {
        "yours": [trial for trial in best if trial["number"] == 0],
        "best": [trial for trial in best if trial["candidate_id"] == winner],
        "retrieved": [trial for trial in best if rows[trial["candidate_id"]]["picks"]],
        "calibrated": [trial for trial in best if is_calibrated(trial)],
    }
    return {
        spec.name: recorded_prompt(rows[found[0]["candidate_id"]]) for spec in specs if (found := groups.get(spec.name))
    }


def bare_prompt(task: Task) -> PromptCandidate:
    """One word before the input: a tuned model has its task in its weights."""
    is_choice = len(task.signature.outputs) == 1 and bool(task.signature.outputs[0].choices)
    return PromptCandidate("zero-shot", "turns", "Classify." if is_choice else "Answer.")


def instructed_prompt(best: PromptCandidate) -> PromptCandidate:
    """The instruction and the layout of a prompt without its examples, which the training rows take the place of."""
    return replace(best, technique="zero-shot", demos=(), calibration=None, picks=None)


def rows_a_label(task: Task) -> dict[str, int]:
    """Train rows of each choice; of all together under "" for other answers."""
    output = task.signature.outputs[0]
    if len(task.signature.outputs) != 1 or not output.choices:
        return {"": len(task.train)}
    counts = dict.fromkeys(output.choices, 0)
    for row in task.train:
        counts[str(row.labels[output.name])] += 1
    return counts


# -- the plan ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomizePlan:
    """What is compared.

    Args:
        run: the search that the prompts come from.
        prompts: those that take part by arm, `yours` first.
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
    prompts: Mapping[str, PromptCandidate]
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
    def ray(self) -> str | None:
        """The address of the Ray cluster that trains. None: this process does."""
        return (self.asked.ray or (LOCAL if self.asked.tune else None)) if self.tuned else None

    @property
    def train_seconds(self) -> float | None:
        """The cap of one arm."""
        return None if self.asked.train_time is None else float(self.asked.train_time)

    def settings_of(self, spec: ArmSpec) -> TrainingSettings:
        kinds: dict[Method, type[TrainingSettings]] = {"soft prompt": SoftPromptSettings, "full": FullSettings}
        return kinds.get(spec.method, LoraSettings)(seed=self.seed, max_seconds=self.train_seconds)  # type: ignore[call-arg]

    def trainer_of(self, spec: ArmSpec) -> Trainer:
        return "peft" if spec.method == "full" else self.asked.trainer

    @property
    def picking(self) -> str:
        """The arm whose prompt picks its examples out of train, so that it learns from more rows; "" for none."""
        picks = [name for name, prompt in self.prompts.items() if prompt.picks]
        return "retrieved" if "retrieved" in picks else next(iter(picks), "")

    @property
    def calls(self) -> int:
        """How many it takes at most."""
        judged, trained = 1 + judge_calls(self.task), len(self.tuned)
        tuned = trained + (self.hosted is not None)
        rows = (len(self.task.test) + LATENCY_ROWS) * judged * (len(self.prompts) + tuned)
        general = (len(QUESTIONS) + sum(len(task.dev) for task in self.others)) * (1 + tuned) if tuned else 0
        learning = trained + bool(self.picking)
        again = trained * (self.asked.seeds - 1) + len(self.sizes) * learning
        return rows + general + again * len(self.task.test) * judged


def planned_trainings(tuned: Sequence[ArmSpec], asked: CustomizeOptions, sizes: Sequence[int]) -> tuple[int, str]:
    """How many trainings a comparison begins, and a line about them; most settings are trained for an epoch or two."""
    if not tuned:
        return 0, "no training here"
    count = len(tuned) * (asked.tried + asked.seeds - 1 + len(sizes))
    parts = [f"{asked.tried} settings on dev"] * (asked.tried > 1) + [f"{asked.seeds} seeds"] * (asked.seeds > 1)
    parts += [f"{len(sizes)} fewer numbers of rows"] * bool(sizes)
    names = ", ".join(spec.name for spec in tuned)
    return count, f"{count} trainings ({names}{': ' if parts else ''}{', '.join(parts)})"


# -- obstacles --------------------------------------------------------------------------------------------------------


def why_no_soft_prompt(base: Path, messages: Sequence[Message] = ()) -> str:
    """Why no soft prompt can be trained for a model file; "" where one can, or where the file is not here yet.

    Args:
        messages: that a soft prompt is to stand before; the engine is asked to cut them into tokens.
    """
    if not base.is_file():
        return ""
    tokens = free_tokens(read_gguf(base), SoftPromptSettings().vectors)
    if not tokens.ids:
        return f"{base}: its vocabulary has no free control token for a soft prompt; leave the arm out"
    try:
        if messages:
            require_soft_tokens(base, messages, tokens)
    except InputError as error:
        return f"{error}; leave the arm out"
    return ""


def why_not_tuned(task: Task, model: str, base: Path | None) -> str:
    """Why no adapter can be trained for this task and model; "" where one can, as far as is known without the file."""
    if not model.startswith("local/"):
        return f"{model} is not trained here; name an embedded model (local/NAME or local/PATH.gguf)"
    if split_adapter(model.removeprefix("local/"))[1]:
        return f"{model} has an adapter already; name the model without it"
    if len(task.signature.outputs) != 1:
        return "only tasks with one output are tuned; leave the tuned arms out with --arms"
    try:
        if base is not None and base.is_file():
            read_architecture(read_gguf(base))
    except InputError as error:
        return str(error)
    return ""


def require_trainer(asked: CustomizeOptions, specs: Sequence[ArmSpec], base: Path | None) -> list[Problem]:
    """All that speaks against the trainer that was asked for; `specs` are the arms to train that were named."""
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
