"""A candidate of the kind `prompt`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

from agent.prompt.parts.kinds import held
from agent.types import Candidate, Demo, FormatName, Summary, Task, TechniqueName, Tool

if TYPE_CHECKING:
    from agent.retrieval.passages import Passages


@dataclass(frozen=True, slots=True)
class PromptCandidate(Candidate):
    """One prompt variant.

    `model`: the fine-tuned model that answers; "" for that of the task. `settings`: of its parts (`parts/`), by name.
    """

    kind: ClassVar[str] = "prompt"

    technique: TechniqueName
    format: FormatName
    instruction: str
    role: str = ""
    demos: tuple[Demo, ...] = ()
    model: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def parts(self) -> dict[str, Any]:
        return {
            "technique": self.technique,
            "format": self.format,
            "instruction": self.instruction,
            "role": self.role,
            "demos": [],
            **{kind.name: kind.as_dict(settings) for kind, settings in held(self)},
            **({"model": self.model} if self.model else {}),
        }

    @property
    def n_examples(self) -> int:
        """The largest number of examples, fixed and picked."""
        return sum(kind.examples(settings) for kind, settings in held(self))

    @property
    def must_prove(self) -> bool:
        return any(kind.must_prove for kind, _ in held(self))

    @property
    def reads_tokens(self) -> bool:
        return any(kind.only_reads for kind, _ in held(self))

    @property
    def varies(self) -> bool:
        return any(kind.made.mark for kind, _ in held(self))

    @property
    def needs_vectors(self) -> bool:
        """Whether a part compares rows by vectors."""
        return any(kind.needs_vectors(settings) for kind, settings in held(self))

    def learnt_from(self, task: Task) -> set[str]:
        """Return the ids of rows whose right answers its parts use or show."""
        return {row for kind, settings in held(self) for row in kind.learnt_from(settings, task)}

    def marks(self, place: str) -> list[str]:
        """Return the marks that its parts fill at a `place`.

        It is before the input ("examples") or in the instruction ("context").
        """
        return [kind.made.mark for kind, _ in held(self) if kind.made.place == place]

    def shown(self, tools: Sequence[Tool] = ()) -> Summary:
        """Summarize the candidate for people; `tools`: the task's own."""
        notes = [f"answered by the fine-tuned model {self.model}"] if self.model else []
        shown: dict[str, Any] = {}
        for kind, settings in held(self):
            shown |= kind.shown(settings, tools)
            notes += [shown.pop("note")] if "note" in shown else []
        text = "\n".join([self.instruction, *(f"({note})" for note in notes)])
        return Summary(self.id, self.technique, self.format, text, self.role, n_examples=self.n_examples, **shown)

    def with_demos(self, demos: Sequence[Demo], reasoning: bool | None = None) -> PromptCandidate:
        """Return the candidate with other fixed examples; `reasoning`: None to keep it."""
        from agent.prompt.techniques import TECHNIQUES

        if reasoning is None:
            reasoning = TECHNIQUES[self.technique].reasoning
        kept = demos if reasoning else [Demo(demo.example_id, demo.inputs, demo.outputs) for demo in demos]
        made = replace(self, demos=tuple(kept))
        names = {(one.demos, one.reasoning): name for name, one in TECHNIQUES.items()}
        return replace(made, technique=names[made.n_examples > 0, reasoning])

    def part(self, name: str) -> Any:
        """Return the settings of a part; None without it."""
        return self.settings.get(name)

    def having(self, **settings: Any) -> PromptCandidate:
        """Return the candidate with other settings of parts; None removes one."""
        made = {**self.settings, **settings}
        return replace(self, settings={name: own for name, own in made.items() if own is not None})


@dataclass(frozen=True, slots=True)
class TunedCandidate(PromptCandidate):
    """A prompt for a base model with a LoRA adapter, by the SHA-256 of its file (64 hex digits)."""

    kind: ClassVar[str] = "tuned"

    @staticmethod
    def of(prompt: PromptCandidate, adapter: str) -> TunedCandidate:
        """Combine the prompt of any candidate with an adapter."""
        made = prompt.having(adapter=adapter)
        return TunedCandidate(**{each.name: getattr(made, each.name) for each in fields(made) if each.init})


def as_prompt(candidate: Candidate) -> PromptCandidate:
    return cast(PromptCandidate, candidate)


def baseline(task: Task, passages: Passages | None = None) -> PromptCandidate:
    """Return the user's own prompt: zero-shot, the input as the user's turn."""
    return PromptCandidate("zero-shot", "turns", task.instruction).having(passages=passages)
