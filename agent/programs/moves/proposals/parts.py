"""An instruction as a list of parts: what a proposer writes is one part, and we put them together. Pure.

The text is what a candidate has and what its hash is of. The parts stand beside it in a `Book`, by the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from agent.prompt.techniques import form_sentence
from agent.prompt.template import escape, marks
from agent.types import Task

PartKind = Literal["definition", "contrast", "rule", "procedure", "form"]
HEADINGS: dict[PartKind, str] = {
    "definition": "What each label means:",
    "contrast": "Labels that are easily mixed up:",
    "rule": "Rules:",
    "procedure": "How to go about it:",
    "form": "",
}
"""The line before the parts of each kind, in the order in which they stand."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of an instruction; `about` are the labels that it is about, `text` is one line, of a procedure several.

    A definition without text only names its label.
    """

    kind: PartKind
    text: str
    about: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Assembled:
    """An instruction of the words that it begins with and of parts."""

    words: str
    parts: tuple[Part, ...] = ()

    def of(self, kind: PartKind) -> tuple[Part, ...]:
        """The parts of one kind."""
        return tuple(part for part in self.parts if part.kind == kind)

    def having(self, parts: Iterable[Part]) -> Assembled:
        """With these parts too; of definitions and contrasts each takes the place of that of the same labels, and there
        is one procedure and one form."""
        kept = list(self.parts)
        for new in parts:
            kept = [old for old in kept if not _is_replaced(old, new)] + [new]
        return replace(self, parts=tuple(kept))

    def text(self, task: Task) -> str:
        """The instruction. Where the words have places for the inputs, they come last, as they are a layout."""
        names = [each.name for each in task.signature.inputs]
        blocks = [block for kind in HEADINGS if (block := _block(kind, self._ordered(kind, task), names))]
        words = self.words.strip()
        order = [*blocks, words] if marks(words, names) else [words, *blocks]
        return "\n".join(order)

    def _ordered(self, kind: PartKind, task: Task) -> list[Part]:
        """The parts of a kind; definitions in the order of the labels."""
        places = {label: place for place, label in enumerate(labels_of_task(task))}
        return sorted(self.of(kind), key=lambda part: places.get(part.about[0], 0) if kind == "definition" else 0)


def _is_replaced(old: Part, new: Part) -> bool:
    if old.kind != new.kind:
        return False
    if new.kind in ("procedure", "form"):
        return True
    return old == new or (new.kind != "rule" and set(old.about) == set(new.about))


def _block(kind: PartKind, parts: Sequence[Part], names: Sequence[str]) -> str:
    """The parts of one kind as they stand in an instruction."""
    if not parts:
        return ""
    lines = [_line(part, names) for part in parts]
    return "\n".join([HEADINGS[kind], *lines] if HEADINGS[kind] else lines)


def _line(part: Part, names: Sequence[str]) -> str:
    if part.kind == "definition":
        label = escape(part.about[0], names)
        return f"- {label}: {part.text}" if part.text else f"- {label}"
    return part.text if part.kind in ("procedure", "form") else f"- {part.text}"


def labels_of_task(task: Task) -> tuple[str, ...]:
    """The labels of the first output with choices; () for a task without one."""
    return next((each.choices for each in task.signature.outputs if each.choices), ())


def goal(task: Task, definitions: Iterable[Part]) -> Assembled | None:
    """An instruction without the user's words: the goal, every label (defined where it is) and the form of the answer.

    None for a task without labels, and where the user's words lay out the input.
    """
    names, labels = [each.name for each in task.signature.inputs], labels_of_task(task)
    if not labels or marks(task.instruction, names):
        return None
    words = escape(task.description.strip(), names) or f"Given {', '.join(names)}, give the answer.".replace("_", " ")
    given = {part.about[0]: part for part in definitions if part.kind == "definition"}
    listed = [given.get(label, Part("definition", "", (label,))) for label in labels]
    return Assembled(words, (*listed, Part("form", form_sentence(task.signature))))


@dataclass(slots=True)
class Book:
    """The parts of the instructions of a run, by the text of each, and the parts that were bought."""

    task: Task
    instructions: dict[str, Assembled] = field(default_factory=dict)
    definitions: dict[str, list[Part]] = field(default_factory=dict)
    """By label, the latest last: one that was bought is never bought again."""
    tools: dict[str, str] = field(default_factory=dict)
    """By tool, what it is called for: the latest sentence."""
    tools_asked: set[tuple[str, str, str]] = field(default_factory=set)
    """What was asked for: the operator, the tool, and the other tool, the argument or the description."""

    def of(self, instruction: str) -> Assembled:
        """The parts of an instruction; one of another origin is words alone."""
        return self.instructions.get(instruction) or Assembled(instruction)

    def add(self, made: Assembled) -> str:
        """Keeps an instruction; returns its text."""
        text = made.text(self.task)
        self.instructions.setdefault(text, made)
        return text
