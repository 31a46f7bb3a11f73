"""A candidate of the kind `prompt`."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

from agent.prompt.calibration import LabelCalibration
from agent.prompt.tool_texts import ToolTexts
from agent.retrieval.passages import Passages
from agent.retrieval.pick import Picks
from agent.types import Candidate, Demo, FormatName, Shown, Task, TechniqueName


@dataclass(frozen=True, slots=True)
class PromptCandidate(Candidate):
    """One prompt variant.

    Args:
        role: an opening sentence of the role technique, or "".
        examples: the same for each input.
        calibration: decides among the labels when the reply is read; None: the reply itself says the answer.
        picks: how more examples are picked for each input, which follow `examples`.
        passages: how passages of the task's documents are looked up for each input; they go where the instruction has
            `{{context}}`, else before the input.
        tool_texts: replace the texts of the task's tools.
        model: the provider's fine-tuned model that answers; "" for the model of the task.
    """

    kind: ClassVar[str] = "prompt"

    technique: TechniqueName
    format: FormatName
    instruction: str
    role: str = ""
    demos: tuple[Demo, ...] = ()
    calibration: LabelCalibration | None = None
    picks: Picks | None = None
    passages: Passages | None = None
    tool_texts: ToolTexts | None = None
    model: str = ""

    def _given(self, *names: str) -> dict[str, Any]:
        return {name: part.as_dict() for name in names if (part := getattr(self, name)) is not None}

    def parts(self) -> dict[str, Any]:
        return {
            "technique": self.technique,
            "format": self.format,
            "instruction": self.instruction,
            "role": self.role,
            "demos": [demo.as_dict() for demo in self.demos],
            **self._given("calibration", "picks", "passages", "tool_texts"),
            **({"model": self.model} if self.model else {}),
        }

    @property
    def n_examples(self) -> int:
        """The largest number of examples, fixed and picked."""
        return len(self.demos) + (self.picks.k if self.picks else 0)

    def shown(self) -> Shown:
        """The candidate as people read it."""
        by = f"\n(answered by the fine-tuned model {self.model})" if self.model else ""
        return Shown(
            self.id,
            self.technique,
            self.format,
            self.instruction + by,
            self.role,
            self.demos,
            self.n_examples,
            **self._given("calibration", "picks", "passages"),
        )


@dataclass(frozen=True, slots=True)
class TunedCandidate(PromptCandidate):
    """A prompt that a base model answers with a LoRA adapter: its parts are those of the prompt, and the SHA-256 of the
    adapter's file (64 hex digits)."""

    kind: ClassVar[str] = "tuned"

    adapter: str = ""

    @staticmethod
    def of(prompt: PromptCandidate, adapter: str) -> TunedCandidate:
        """Make one of the prompt of any candidate."""
        own = {each.name: getattr(prompt, each.name) for each in fields(PromptCandidate) if each.init}
        return TunedCandidate(**own, adapter=adapter)

    def parts(self) -> dict[str, Any]:
        return PromptCandidate.parts(self) | {"adapter": self.adapter}

    def shown(self) -> Shown:
        shown = PromptCandidate.shown(self)
        return replace(shown, text=f"{shown.text}\n(answered with the adapter {self.adapter[:12]})")


def baseline(task: Task, passages: Passages | None = None) -> PromptCandidate:
    """Return the user's own prompt: zero-shot, the input as the user's turn."""
    return PromptCandidate(technique="zero-shot", format="turns", instruction=task.instruction, passages=passages)
