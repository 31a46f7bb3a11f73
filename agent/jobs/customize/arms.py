"""Arms of a comparison: their names and prompts.

A search chose its prompts on dev; their sealed test scores have no say in what takes part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from agent.jobs.recorded import recorded_prompt
from agent.ledger.query import History, Row, is_calibrated
from agent.programs import TUNED_ARMS
from agent.prompt.prompt_candidate import PromptCandidate
from agent.results.customize import Family
from agent.training.settings import FullSettings, LoraSettings, SoftPromptSettings, TrainingSettings
from agent.types import LM, Task

if TYPE_CHECKING:
    from agent.jobs.customize.training import SettingsChoice

Method = Literal["prompt", "lora", "soft prompt", "full", "hosted", "no model"]
SETTINGS: Mapping[Method, type[TrainingSettings]] = {
    "lora": LoraSettings,
    "soft prompt": SoftPromptSettings,
    "full": FullSettings,
}
"""By each method that is trained here."""


@dataclass(frozen=True, slots=True)
class ArmSpec:
    """An arm as named in `--arms`; unless `by_default` it takes part only when named."""

    name: str
    method: Method
    about: str
    by_default: bool = True

    @property
    def family(self) -> Family:
        return self.method if self.method in ("prompt", "no model") else "tuned"

    @property
    def is_trained_here(self) -> bool:
        """Whether it needs a training on this machine."""
        return self.method in SETTINGS


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
        # only when named: it uploads the train and dev rows, and costs money
        ArmSpec("hosted", "hosted", "the model trained at its provider, with the best instruction", by_default=False),
        ArmSpec("no-model", "no model", "largest class, classifier, nearest rows"),
    )
}
"""Arms by name, in the order of the table; `yours` always takes part."""


@dataclass(frozen=True, slots=True)
class MadeArm:
    """An arm ready to answer: its prompt, its model and the cost of making it.

    `usd`: of the training at a provider; None: the price is unknown.
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


# -- prompts ----------------------------------------------------------------------------------------------------------


def prompt_arms(history: History, run: Row, specs: Sequence[ArmSpec]) -> dict[str, PromptCandidate]:
    """Return the prompts of a finished search by arm, each kind's best on dev."""
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
    """Return a prompt of one word: a tuned model has its task in its weights."""
    is_choice = len(task.signature.outputs) == 1 and bool(task.signature.outputs[0].choices)
    return PromptCandidate("zero-shot", "turns", "Classify." if is_choice else "Answer.")


def instructed_prompt(best: PromptCandidate) -> PromptCandidate:
    """Return a prompt's instruction and layout; training rows replace its examples."""
    return replace(best, technique="zero-shot", demos=()).having(calibration=None, picks=None)


def prompt_of(arm: str, task: Task, best: PromptCandidate) -> PromptCandidate:
    """Return the prompt of an arm that is trained here."""
    return instructed_prompt(best) if arm == "lora+prompt" else bare_prompt(task)
