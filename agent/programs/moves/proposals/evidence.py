"""What is known when the proposer is asked: good candidates, where they fail, and which labels they mix up. Pure."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agent.programs.moves.pool import as_prompt
from agent.programs.moves.proposals.parts import Assembled, Book, labels_of_task
from agent.programs.moves.propose import PERFECT, ScoredInstruction, cut, inputs_of
from agent.search.program import Parent
from agent.types import Example, Outcome, Task

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
        task: the task.
        dev: the dev rows of the search, by id.
        parent: the candidate that is to be changed.
        parents: good candidates, the best first.
        book: the parts of instructions so far.
        rng: draws rows.
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
        """The instruction of a candidate, in parts."""
        return self.book.of(as_prompt(parent.proposal.candidate).instruction)

    def wrong(self) -> list[Wrong]:
        """The rows that the best candidate got wrong: below half a point, else the worst first."""
        known = [(o.value, o) for o in self.best.outcomes if o.value is not None and o.example_id in self.dev]
        failed = [o for value, o in known if value < 0.5]
        worst = [o for value, o in sorted(known, key=lambda pair: pair[0]) if value < PERFECT]
        return [Wrong(self.dev[o.example_id], o) for o in failed or worst]

    def right(self) -> list[str]:
        """The ids of the rows that the best candidate got right."""
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
    """A text in one line, cut."""
    return cut(" ".join(text.split()), MOST_OF_A_TEXT)


def listed(rows: Sequence[Example]) -> str:
    """Rows as a list, one line each."""
    return "\n".join(f"- {line_of(inputs_of(row))}" for row in rows)


def nouns(task: Task) -> str:
    """What the inputs are called, in the plural: `messages`; `inputs` where there are several."""
    names = [each.name for each in task.signature.inputs]
    word = names[0].replace("_", " ") if len(names) == 1 else "input"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return f"{word[:-1]}ies"
    return word if word.endswith("s") else f"{word}s"
