"""Evidence for the operators of the proposer: good candidates, their failures, and instructions as parts.

An instruction is assembled from parts, one of them by a proposer. A candidate has and hashes the text; the parts are
kept by the text, in an `InstructionHistory`.
"""

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
    """Cut a text to `limit` characters; a longer one ends in three dots."""
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
}
"""The line before the parts of each kind, in the order in which they stand."""
SINGLE = ("procedure", "form")
"""Kinds that occur once, without a dash before the lines."""


@dataclass(frozen=True, slots=True)
class InstructionPart:
    """One part of an instruction about labels; `text` is one line, of a procedure several.

    A definition without text only names its label.
    """

    kind: PartKind
    text: str
    about: tuple[str, ...] = ()

    def replaces(self, old: InstructionPart) -> bool:
        if old.kind != self.kind:
            return False
        same_labels = self.kind != "rule" and set(old.about) == set(self.about)
        return self.kind in SINGLE or old == self or same_labels

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
        """Add parts, replacing those of the same kind and labels. Only one procedure and one form."""
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
    """Return the labels of the first output with choices; () without one."""
    return next((each.choices for each in task.signature.outputs if each.choices), ())


def goal(task: Task, definitions: Iterable[InstructionPart]) -> Assembled | None:
    """Make an instruction of the goal, every label (with definition) and the answer's form.

    It has none of the user's words. None for a task without labels, and if the user's words lay out the input.
    """
    names, labels = [each.name for each in task.signature.inputs], labels_of_task(task)
    if not labels or marks(task.instruction, names):
        return None
    words = escape(task.description.strip(), names) or f"Given {', '.join(names)}, give the answer.".replace("_", " ")
    given = {part.about[0]: part for part in definitions if part.kind == "definition"}
    listed = [given.get(label, InstructionPart("definition", "", (label,))) for label in labels]
    return Assembled(words, (*listed, InstructionPart("form", form_sentence(task.signature))))


@dataclass(slots=True)
class InstructionHistory:
    """The parts of the instructions of a run, by the text of each, and the parts that were bought."""

    task: Task
    instructions: dict[str, Assembled] = field(default_factory=dict)
    definitions: dict[str, list[InstructionPart]] = field(default_factory=dict)
    """By label, the latest last; none is bought twice."""
    tools: dict[str, str] = field(default_factory=dict)
    """By tool, the latest sentence on its use."""
    tools_asked: set[tuple[str, str, str]] = field(default_factory=set)
    """Earlier requests: the operator, the tool, and the other tool, argument or description."""

    def of(self, instruction: str) -> Assembled:
        """Return the parts of an instruction; an unknown one is words alone."""
        return self.instructions.get(instruction) or Assembled(instruction)

    def add(self, made: Assembled) -> str:
        text = made.text(self.task)
        self.instructions.setdefault(text, made)
        return text


# -- what candidates did -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ScoredInstruction:
    """An instruction that was tried, with its best mean so far."""

    instruction: str
    mean: float


def best_instructions(
    trials: Trials, text_of: Callable[[Candidate], str] = lambda candidate: as_prompt(candidate).instruction
) -> list[ScoredInstruction]:
    """Return each instruction with the best mean of its candidates, worst first.

    `text_of` extracts it from a candidate.
    """
    best: dict[str, float] = {}
    for candidate_id, trial in trials.by_id.items():
        if trial.mean is not None:
            text = text_of(trials.candidate(candidate_id))
            best[text] = max(best.get(text, 0.0), trial.mean)
    return [ScoredInstruction(text, mean) for text, mean in sorted(best.items(), key=lambda item: item[1])]


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
    """Evidence for an operator of the proposer.

    Args:
        dev: the dev rows of the search, by id.
        parent: the candidate to change.
        parents: good candidates, the best first.
        asked: how often each operator was used so far.
        effects: the estimated contribution of parts, in points, by text.
        tried: instructions with their scores, the worst first.
        is_strong: whether the latest whole instruction passed the checks.
    """

    task: Task
    dev: Mapping[str, Example]
    parent: Parent
    parents: Sequence[Parent]
    history: InstructionHistory
    rng: random.Random
    asked: Mapping[str, int]
    effects: Callable[[], Mapping[str, float]]
    tried: Sequence[ScoredInstruction] = ()
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
        """Return the rows that the best candidate got wrong."""
        return wrong_rows(self.dev.values(), self.best.outcomes)

    def right(self) -> list[str]:
        return [o.example_id for o in self.best.outcomes if (o.value or 0.0) >= PERFECT and o.example_id in self.dev]

    def labels(self, wrong: Wrong) -> tuple[str, str]:
        """Return the right label and the given one."""
        return str(wrong.row.labels[self.field]), str(wrong.outcome.prediction.fields.get(self.field))

    def confusions(self) -> Counter[tuple[str, str]]:
        """Count how often the best candidate said the second label for the first."""
        labels, mixed = labels_of_task(self.task), Counter[tuple[str, str]]()
        for wrong in self.wrong() if labels else ():
            right, said = self.labels(wrong)
            if said in labels and said != right:
                mixed[right, said] += 1
        return mixed

    def mixed_pairs(self) -> list[tuple[str, str]]:
        """Return pairs of confused labels in either direction, worst first, the rarer answer first."""
        both, places = Counter[tuple[str, str]](), {name: at for at, name in enumerate(labels_of_task(self.task))}
        for (right, said), times in self.confusions().items():
            both[(right, said) if places[right] < places[said] else (said, right)] += times
        return [pair for pair, _ in both.most_common()]

    def drawn(self, rows: Sequence[T], count: int) -> list[T]:
        return self.rng.sample(rows, min(count, len(rows)))

    def rows_of(self, label: str, count: int) -> list[Example]:
        return self.drawn([row for row in self.task.train if str(row.labels[self.field]) == label], count)
