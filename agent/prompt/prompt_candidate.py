"""A candidate of the kind `prompt`."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

from agent.prompt.label_weights import LabelWeights
from agent.prompt.tool_texts import ToolTexts
from agent.retrieval.passages import Passages
from agent.retrieval.pick import Picks
from agent.types import Candidate, Demo, FormatName, Shown, Task, TechniqueName


@dataclass(frozen=True, slots=True)
class PromptCandidate(Candidate):
    """One prompt variant. `role` is an opening sentence of the role technique ("" = none).

    `demos` are the same for each input; with `picks`, more are picked for each input, and stand after them. With
    `passages`, passages of the task's documents are looked up for each input: they stand where the instruction has
    `{{context}}`, else before the input. `weights` decide among the labels when the reply is read (None: the reply is
    read as it stands). `tool_texts` stand in the place of the texts of the task's tools (None: these).
    """

    kind: ClassVar[str] = "prompt"

    technique: TechniqueName
    format: FormatName
    instruction: str
    role: str = ""
    demos: tuple[Demo, ...] = ()
    weights: LabelWeights | None = None
    picks: Picks | None = None
    passages: Passages | None = None
    tool_texts: ToolTexts | None = None

    def parts(self) -> dict[str, Any]:
        parts = {
            "technique": self.technique,
            "format": self.format,
            "instruction": self.instruction,
            "role": self.role,
            "demos": [demo.as_dict() for demo in self.demos],
            **({"weights": self.weights.as_dict()} if self.weights else {}),
        }
        given = {"picks": self.picks, "passages": self.passages, "tool_texts": self.tool_texts}
        return parts | {name: how.as_dict() for name, how in given.items() if how is not None}

    @property
    def n_demos(self) -> int:
        """The most demos that it shows, fixed and picked."""
        return len(self.demos) + (self.picks.k if self.picks else 0)

    def shown(self) -> Shown:
        """The candidate as people read it."""
        return Shown(
            self.id,
            self.technique,
            self.format,
            self.instruction,
            self.role,
            self.demos,
            self.n_demos,
            weights=self.weights.as_dict() if self.weights else None,
            picks=self.picks.as_dict() if self.picks else None,
            passages=self.passages.as_dict() if self.passages else None,
        )


@dataclass(frozen=True, slots=True)
class TunedCandidate(PromptCandidate):
    """A prompt that a base model answers with a LoRA adapter: its parts are those of the prompt, and the SHA-256 of the
    adapter's file (64 hex digits)."""

    kind: ClassVar[str] = "tuned"

    adapter: str = ""

    @staticmethod
    def of(prompt: PromptCandidate, adapter: str) -> TunedCandidate:
        """The prompt of any candidate with this adapter."""
        parts = {each.name: getattr(prompt, each.name) for each in fields(PromptCandidate) if each.init}
        return TunedCandidate(**parts, adapter=adapter)

    def parts(self) -> dict[str, Any]:
        return PromptCandidate.parts(self) | {"adapter": self.adapter}

    def shown(self) -> Shown:
        """The candidate as people read it, with the adapter after the instruction."""
        shown = PromptCandidate.shown(self)
        return replace(shown, text=f"{shown.text}\n(answered with the adapter {self.adapter[:12]})")


@dataclass(frozen=True, slots=True)
class FineTunedCandidate(PromptCandidate):
    """A prompt that a provider's fine-tuned model answers: its parts are those of the prompt, and that model's name."""

    model: str = ""

    @staticmethod
    def of(prompt: PromptCandidate, model: str) -> FineTunedCandidate:
        """The prompt with this model."""
        parts = {each.name: getattr(prompt, each.name) for each in fields(PromptCandidate) if each.init}
        return FineTunedCandidate(**parts, model=model)

    def parts(self) -> dict[str, Any]:
        return PromptCandidate.parts(self) | {"model": self.model}

    def shown(self) -> Shown:
        """The candidate as people read it, with the model after the instruction."""
        shown = PromptCandidate.shown(self)
        return replace(shown, text=f"{shown.text}\n(answered by the fine-tuned model {self.model})")


def baseline(task: Task, passages: Passages | None = None) -> PromptCandidate:
    """The user's own prompt as it is: zero-shot, the input as the user's turn."""
    return PromptCandidate(technique="zero-shot", format="turns", instruction=task.instruction, passages=passages)
