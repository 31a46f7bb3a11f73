"""Evidence for the operators of the proposer: good candidates, their failures, and instructions as parts."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from agent.prompt.prompt_candidate import as_prompt
from agent.prompt.techniques import form_sentence
from agent.prompt.template import escape, label_text, marks
from agent.search.program import Parent
from agent.search.trials import Trials
from agent.types import Candidate, Example, Outcome, Task

T = TypeVar("T")
Tried = Sequence[tuple[str, float]]  # tried instructions with their best means, worst first
MOST_OF_A_FAILURE = 200  # letters of each of its parts
MOST_OF_A_TEXT = 240  # letters that are shown of a row or a reply
PERFECT = 0.999
FAILURE = "{} => {} (right: {}; {})"

# -- texts -------------------------------------------------------------------------------------------------------------


def words_of(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text.casefold()))


def inputs_of(row: Example) -> str:
    return " | ".join(row.inputs.values())


def labels_of(row: Example) -> str:
    return "; ".join(label_text(value) for value in row.labels.values())


def cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


def line_of(text: str, limit: int = MOST_OF_A_TEXT) -> str:
    return cut(" ".join(text.split()), limit)


def listed(rows: Sequence[Example]) -> str:
    return "\n".join(f"- {line_of(inputs_of(row))}" for row in rows)


def nouns(task: Task) -> str:
    """Name the inputs in the plural: `messages`; `inputs` for several."""
    names = [each.name for each in task.signature.inputs]
    word = names[0].replace("_", " ") if len(names) == 1 else "input"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return f"{word[:-1]}ies"
    return word if word.endswith("s") else f"{word}s"


# -- an instruction as parts -------------------------------------------------------------------------------------------

PartKind = Literal["definition", "contrast", "rule", "procedure", "form"]
HEADINGS: dict[PartKind, str] = {
    "definition": "What each label means:",
    "contrast": "Labels that are easily mixed up:",
    "rule": "Rules:",
    "procedure": "How to go about it:",
    "form": "",
}  # the line before the parts of each kind, in the order in which they stand
SINGLE = ("procedure", "form")  # kinds that occur once, without a dash before the lines


@dataclass(frozen=True, slots=True)
class InstructionPart:
    """One part of an instruction about labels; a definition without text only names its label."""

    kind: PartKind
    text: str
    about: tuple[str, ...] = ()

    def replaces(self, old: InstructionPart) -> bool:
        same_labels = self.kind != "rule" and set(old.about) == set(self.about)
        return old.kind == self.kind and (self.kind in SINGLE or old == self or same_labels)

    def line(self, names: Sequence[str]) -> str:
        if self.kind != "definition":
            return self.text if self.kind in SINGLE else f"- {self.text}"
        label = escape(self.about[0], names)
        return f"- {label}: {self.text}" if self.text else f"- {label}"


@dataclass(frozen=True, slots=True)
class Assembled:
    words: str
    parts: tuple[InstructionPart, ...] = ()

    def of(self, kind: PartKind) -> tuple[InstructionPart, ...]:
        return tuple(part for part in self.parts if part.kind == kind)

    def having(self, parts: Iterable[InstructionPart]) -> Assembled:
        """Add parts, replacing those of the same kind and labels."""
        kept = list(self.parts)
        for new in parts:
            kept = [old for old in kept if not new.replaces(old)] + [new]
        return replace(self, parts=tuple(kept))

    def text(self, task: Task) -> str:
        """Write the instruction; words with places for the inputs come last, as a layout."""
        names = [each.name for each in task.signature.inputs]
        places = {label: place for place, label in enumerate(labels_of_task(task))}
        ordered = sorted(self.parts, key=lambda part: places.get(part.about[0], 0) if part.kind == "definition" else 0)
        blocks = []
        for kind, heading in HEADINGS.items():
            if lines := [part.line(names) for part in ordered if part.kind == kind]:
                blocks.append("\n".join([heading, *lines] if heading else lines))
        words = self.words.strip()
        return "\n".join([*blocks, words] if marks(words, names) else [words, *blocks])


def labels_of_task(task: Task) -> tuple[str, ...]:
    return next((each.choices for each in task.signature.outputs if each.choices), ())


def goal(task: Task, definitions: Iterable[InstructionPart]) -> Assembled | None:
    """Write an instruction without the user's words. None without labels or if they lay out the input."""
    names, labels = [each.name for each in task.signature.inputs], labels_of_task(task)
    if not labels or marks(task.instruction, names):
        return None
    words = escape(task.description.strip(), names) or f"Given {', '.join(names)}, give the answer.".replace("_", " ")
    given = {part.about[0]: part for part in definitions if part.kind == "definition"}
    listed = [given.get(label, InstructionPart("definition", "", (label,))) for label in labels]
    return Assembled(words, (*listed, InstructionPart("form", form_sentence(task.signature))))


@dataclass(slots=True)
class InstructionHistory:
    """The parts of a run's instructions by text, and the parts that were bought."""

    task: Task
    instructions: dict[str, Assembled] = field(default_factory=dict)
    definitions: dict[str, list[InstructionPart]] = field(default_factory=dict)
    tools: set[str] = field(default_factory=set)
    asked: set[tuple[str, str, str]] = field(default_factory=set)
    """Earlier requests: the operator, the tool ("" for a field), and the other tool, argument, field or description."""

    def of(self, instruction: str) -> Assembled:
        """Return the parts of an instruction; an unknown one is words alone."""
        return self.instructions.get(instruction) or Assembled(instruction)

    def add(self, made: Assembled) -> str:
        text = made.text(self.task)
        self.instructions.setdefault(text, made)
        return text


# -- what candidates did -----------------------------------------------------------------------------------------------


def best_instructions(
    trials: Trials, text_of: Callable[[Candidate], str] = lambda candidate: as_prompt(candidate).instruction
) -> Tried:
    best: dict[str, float] = {}
    for candidate_id, trial in trials.by_id.items():
        if trial.mean is not None:
            text = text_of(trials.candidate(candidate_id))
            best[text] = max(best.get(text, 0.0), trial.mean)
    return sorted(best.items(), key=lambda item: item[1])


@dataclass(frozen=True, slots=True)
class Wrong:
    row: Example
    outcome: Outcome

    @property
    def line(self) -> str:
        """The row for the proposer: its inputs, the reply, the right answer and the fault."""
        said, scores = self.outcome.prediction, self.outcome.scores
        lost = [s.reason for s in scores if s.reason and s.value is not None and s.value < PERFECT]
        texts = (inputs_of(self.row), said.raw, labels_of(self.row), "; ".join(dict.fromkeys(lost)) or said.error)
        return FAILURE.format(*(line_of(text, MOST_OF_A_FAILURE) for text in texts))


def wrong_rows(rows: Iterable[Example], outcomes: Sequence[Outcome]) -> list[Wrong]:
    """Return the rows below half a point, or the worst rows of a graded score."""
    by_id = {row.id: row for row in rows}
    known = [(o.value, o) for o in outcomes if o.value is not None and o.value < PERFECT and o.example_id in by_id]
    failed = [outcome for value, outcome in known if value < 0.5]
    worst = [outcome for _, outcome in sorted(known, key=lambda pair: pair[0])]
    return [Wrong(by_id[outcome.example_id], outcome) for outcome in failed or worst]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an operator of the proposer knows.

    `parent` is to be changed; `parents` are good candidates, best first. `asked`: how often each operator was used;
    `effects`: points by part text; `is_strong`: whether the latest whole instruction passed the checks.
    """

    task: Task
    dev: Mapping[str, Example]
    parent: Parent
    parents: Sequence[Parent]
    history: InstructionHistory
    rng: random.Random
    asked: Mapping[str, int]
    effects: Callable[[], Mapping[str, float]]
    tried: Tried = ()
    is_strong: bool = False

    @property
    def best(self) -> Parent:
        return self.parents[0] if self.parents else self.parent

    @property
    def field(self) -> str:
        return next((each.name for each in self.task.signature.outputs if each.choices), "")

    def instruction(self, parent: Parent) -> Assembled:
        return self.history.of(as_prompt(parent.proposal.candidate).instruction)

    def wrong(self) -> list[Wrong]:
        return wrong_rows(self.dev.values(), self.best.outcomes)

    def labels(self, wrong: Wrong) -> tuple[str, str]:
        """Return the right label and the given one."""
        return str(wrong.row.labels[self.field]), str(wrong.outcome.prediction.fields.get(self.field))

    def confusions(self) -> Counter[tuple[str, str]]:
        """Count how often the best candidate said the second label for the first."""
        labels = labels_of_task(self.task)
        pairs = map(self.labels, self.wrong() if labels else ())
        return Counter((right, said) for right, said in pairs if said in labels and said != right)

    def drawn(self, rows: Sequence[T], count: int) -> list[T]:
        return self.rng.sample(rows, min(count, len(rows)))

    def rows_of(self, label: str, count: int) -> list[Example]:
        return self.drawn([row for row in self.task.train if str(row.labels[self.field]) == label], count)
