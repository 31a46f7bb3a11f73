"""A candidate of the kind `prompt`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from agent.prompt.label_weights import LabelWeights
from agent.types import Candidate, Demo, FormatName, Shown, Task, TechniqueName


@dataclass(frozen=True, slots=True)
class PromptCandidate(Candidate):
    """One prompt variant. `role` is an opening sentence of the role technique ("" = none); `weights` decide among the
    labels when the reply is read (None: the reply is read as it stands)."""

    kind: ClassVar[str] = "prompt"

    technique: TechniqueName
    format: FormatName
    instruction: str
    role: str = ""
    demos: tuple[Demo, ...] = ()
    weights: LabelWeights | None = None

    def parts(self) -> dict[str, Any]:
        return {
            "technique": self.technique,
            "format": self.format,
            "instruction": self.instruction,
            "role": self.role,
            "demos": [demo.as_dict() for demo in self.demos],
            **({"weights": self.weights.as_dict()} if self.weights else {}),
        }

    def shown(self) -> Shown:
        """The candidate as people read it."""
        weights = self.weights.as_dict() if self.weights else None
        n = len(self.demos)
        return Shown(self.id, self.technique, self.format, self.instruction, self.role, self.demos, n, weights)


def baseline(task: Task) -> PromptCandidate:
    """The user's own prompt as it is: zero-shot, the input as the user's turn."""
    return PromptCandidate(technique="zero-shot", format="turns", instruction=task.instruction)
