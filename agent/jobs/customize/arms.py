"""The arms of a comparison: what answers the same sealed rows, and what of a finished search takes part. Calls nothing.

A search has chosen its prompts on dev; none is taken for what it scored on the sealed test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from agent.errors import InputError, Problem
from agent.jobs.recorded import recorded_prompt
from agent.ledger.query import History, Row, is_calibrated
from agent.models.adapters import free_tokens, split_adapter
from agent.models.gguf import read_gguf
from agent.programs import TUNED_ARMS
from agent.prompt.prompt_candidate import PromptCandidate
from agent.prompt.template import label_text
from agent.results.customize import Family
from agent.training.base_model import read_architecture
from agent.training.rows import require_soft_tokens
from agent.training.settings import SoftPromptSettings
from agent.types import LM, Message, Task

if TYPE_CHECKING:
    from agent.jobs.customize.settings_search import SettingsChoice

Method = Literal["prompt", "lora", "soft prompt", "full", "hosted", "no model"]


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
class PromptArm:
    """A prompt of the search: the arm that it takes part as, and its trial there."""

    spec: ArmSpec
    candidate: PromptCandidate
    trial: int


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

    @property
    def is_tuned(self) -> bool:
        """Whether a model was trained for it."""
        return self.spec.family == "tuned"


def require_arms(names: Sequence[str]) -> tuple[list[ArmSpec], list[Problem]]:
    """The arms of these names, in the order of the table, with `yours`, and the names that no arm has.

    Args:
        names: as asked for; none: all arms.
    """
    from agent.task.words import near

    unknown = [
        Problem(f"--arms {name:.60}", f"no arm of this name{near(name, list(ARMS))}")
        for name in names
        if name not in ARMS
    ]
    wanted = names or [spec.name for spec in ARMS.values() if spec.by_default]
    return [spec for spec in ARMS.values() if spec.name in wanted or spec.name == "yours"], unknown


def prompt_arms(history: History, run: Row, specs: Sequence[ArmSpec]) -> list[PromptArm]:
    """The prompts of a finished search that take part as arms: of each kind the best on dev.

    An arm that the search has nothing for is left out: no candidate picks examples, say."""
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
    return [
        PromptArm(spec, recorded_prompt(rows[found[0]["candidate_id"]]), found[0]["number"])
        for spec in specs
        if (found := groups.get(spec.name))
    ]


# -- what a tuned arm asks --------------------------------------------------------------------------------------------


def bare_prompt(task: Task) -> PromptCandidate:
    """One word before the input: a tuned model has its task in its weights."""
    is_choice = len(task.signature.outputs) == 1 and bool(task.signature.outputs[0].choices)
    return PromptCandidate("zero-shot", "turns", "Classify." if is_choice else "Answer.")


def instructed_prompt(best: PromptCandidate) -> PromptCandidate:
    """The instruction and the layout of a prompt without its examples, which the training rows take the place of."""
    return replace(best, technique="zero-shot", demos=(), calibration=None, picks=None)


def training_answer(task: Task, labels: Mapping[str, object]) -> str:
    """The reply that is trained: the answer as a demo of the layout `turns` shows it. Only one output is tuned."""
    return label_text(labels[task.signature.outputs[0].name])


def rows_a_label(task: Task) -> dict[str, int]:
    """Train rows of each choice; of all together under "" for other answers."""
    output = task.signature.outputs[0]
    if len(task.signature.outputs) != 1 or not output.choices:
        return {"": len(task.train)}
    counts = dict.fromkeys(output.choices, 0)
    for row in task.train:
        counts[str(row.labels[output.name])] += 1
    return counts


def why_no_soft_prompt(base: Path, messages: Sequence[Message] = ()) -> str:
    """Why no soft prompt can be trained for a model file; "" where one can, or where the file is not here yet.

    Args:
        messages: that a soft prompt is to stand before, for which the engine is asked to cut them into tokens; none: it
            is not.
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
