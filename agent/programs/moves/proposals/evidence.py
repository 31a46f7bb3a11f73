"""What an operator of the proposer may look at: good candidates, where they fail, and instructions as lists of parts.

An instruction is put together from parts, of which a proposer writes one. The text is what a candidate has and what its
hash is of; the parts are kept by the text, in a `Book`. Pure.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from agent.programs.moves.author import PERFECT, ScoredInstruction, cut, inputs_of
from agent.programs.moves.pool import as_prompt
from agent.prompt.techniques import form_sentence
from agent.prompt.template import escape, marks
from agent.search.program import Parent
from agent.types import Example, Outcome, Task

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
    """One part of an instruction; `about` are its labels, `text` is one line, of a procedure several.

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
        return tuple(part for part in self.parts if part.kind == kind)

    def having(self, parts: Iterable[Part]) -> Assembled:
        """With these parts too; of definitions and contrasts each replaces that of the same labels, and there is one
        procedure and one form."""
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
        places = {label: place for place, label in enumerate(labels_of_task(task))}
        return sorted(self.of(kind), key=lambda part: places.get(part.about[0], 0) if kind == "definition" else 0)


def _is_replaced(old: Part, new: Part) -> bool:
    if old.kind != new.kind:
        return False
    if new.kind in ("procedure", "form"):
        return True
    return old == new or (new.kind != "rule" and set(old.about) == set(new.about))


def _block(kind: PartKind, parts: Sequence[Part], names: Sequence[str]) -> str:
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
        """Keep an instruction; returns its text."""
        text = made.text(self.task)
        self.instructions.setdefault(text, made)
        return text


MOST_OF_A_TEXT = 240  # letters that are shown of a row or a reply


@dataclass(frozen=True, slots=True)
class Wrong:
    """A dev row that a candidate got wrong."""

    row: Example
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an operator of the proposer may look at.

    Args:
        dev: the dev rows of the search, by id.
        parent: the candidate that is to be changed.
        parents: good candidates, the best first.
        asked: how often each operator was used so far.
        effects: gives by the text of a part what it is believed to add, in points.
        tried: instructions with their scores, the worst first.
        is_strong: whether the latest whole instruction passed the checks.
    """

    task: Task
    dev: Mapping[str, Example]
    parent: Parent
    parents: Sequence[Parent]
    book: Book
    rng: random.Random
    asked: Mapping[str, int]
    effects: Callable[[], Mapping[str, float]]
    tried: Sequence[ScoredInstruction] = ()
    is_strong: bool = False

    @property
    def best(self) -> Parent:
        """The candidate whose failures are looked at."""
        return self.parents[0] if self.parents else self.parent

    @property
    def field(self) -> str:
        """The name of the output with labels; "" without one."""
        return next((each.name for each in self.task.signature.outputs if each.choices), "")

    def instruction(self, parent: Parent) -> Assembled:
        return self.book.of(as_prompt(parent.proposal.candidate).instruction)

    def wrong(self) -> list[Wrong]:
        """The rows that the best candidate got wrong: below half a point, else the worst first."""
        known = [(o.value, o) for o in self.best.outcomes if o.value is not None and o.example_id in self.dev]
        failed = [o for value, o in known if value < 0.5]
        worst = [o for value, o in sorted(known, key=lambda pair: pair[0]) if value < PERFECT]
        return [Wrong(self.dev[o.example_id], o) for o in failed or worst]

    def right(self) -> list[str]:
        return [o.example_id for o in self.best.outcomes if (o.value or 0.0) >= PERFECT and o.example_id in self.dev]

    def confusions(self) -> Counter[tuple[str, str]]:
        """How often the best candidate said the second label where the first one is right."""
        labels, mixed = labels_of_task(self.task), Counter[tuple[str, str]]()
        for wrong in self.wrong() if labels else ():
            right, said = str(wrong.row.labels[self.field]), str(wrong.outcome.prediction.fields.get(self.field))
            if said in labels and said != right:
                mixed[right, said] += 1
        return mixed

    def mixed_pairs(self) -> list[tuple[str, str]]:
        """Pairs of labels that are mixed up, in either direction, the worst first; in each the rarer answer first."""
        both, places = Counter[tuple[str, str]](), {name: at for at, name in enumerate(labels_of_task(self.task))}
        for (right, said), times in self.confusions().items():
            both[(right, said) if places[right] < places[said] else (said, right)] += times
        return [pair for pair, _ in both.most_common()]

    def rows_of(self, label: str, count: int) -> list[Example]:
        """Up to `count` train rows of a label, drawn."""
        rows = [row for row in self.task.train if str(row.labels[self.field]) == label]
        return self.rng.sample(rows, min(count, len(rows)))


def line_of(text: str) -> str:
    return cut(" ".join(text.split()), MOST_OF_A_TEXT)


def listed(rows: Sequence[Example]) -> str:
    return "\n".join(f"- {line_of(inputs_of(row))}" for row in rows)


def nouns(task: Task) -> str:
    """What the inputs are called, in the plural: `messages`; `inputs` where there are several."""
    names = [each.name for each in task.signature.inputs]
    word = names[0].replace("_", " ") if len(names) == 1 else "input"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return f"{word[:-1]}ies"
    return word if word.endswith("s") else f"{word}s"
