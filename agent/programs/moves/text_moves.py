"""What moves have in common: candidates of texts, one for each place where a text stands, and of examples in one."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from agent.programs.moves.demos import DemoMaker, DemoSet
from agent.prompt.techniques import Rewrite
from agent.search.program import PROPOSED, Choices, Parent
from agent.search.study import Place
from agent.types import Candidate, Demo, Example, Proposal, Task


def credit_of(rewrite: Rewrite, otherwise: str) -> str:
    """The operator that learns from a candidate with this text; `otherwise` where no model wrote it."""
    return rewrite.credit or PROPOSED if rewrite.is_proposed else otherwise


class TextMoves:
    """New designs and changes of good candidates of one kind.

    `texts`: by where a text stands, those so far, the user's own first; "" is the only place of a prompt.
    """

    def __init__(self, task: Task, rng: random.Random, choices: Choices, texts: Mapping[str, list[Rewrite]]) -> None:
        self._task, self._rng, self._choices, self.texts = task, rng, choices, texts
        self._dev: Mapping[str, Example] = {example.id: example for example in task.dev}

    def text_of(self, candidate: Candidate, name: str) -> str:
        raise NotImplementedError

    def with_text(self, candidate: Candidate, name: str, text: str) -> Candidate:
        raise NotImplementedError

    def demos_of(self, candidate: Candidate) -> tuple[Demo, ...]:
        raise NotImplementedError

    def with_demos(self, candidate: Candidate, demos: tuple[Demo, ...]) -> Candidate | None:
        """The candidate with these examples; None where it has no room for them."""
        raise NotImplementedError

    def places(self) -> Sequence[Place]:
        """The places of the first candidates."""
        raise NotImplementedError

    def fresh(self, place: Place) -> Proposal | None:
        raise NotImplementedError

    def designs(self) -> list[Proposal]:
        return [proposal for place in self.places() if (proposal := self.fresh(place)) is not None]

    def text_at(self, name: str, operator: str) -> Rewrite:
        return next(text for text in self.texts[name] if text.operator == operator)

    def reworded(self, parent: Parent) -> Proposal | None:
        """Change one text of a good candidate to another of those so far."""
        old = parent.proposal.candidate
        here = {name: self.text_of(old, name) for name in self.texts}
        others = [(name, text) for name in here for text in self.texts[name] if text.instruction != here[name]]
        if not others:
            return None
        name, text = self._choices.one("words", others, lambda other: at(other[0], other[1].operator))
        return self.instructed(parent, text, name)

    def instructed(self, parent: Parent, text: Rewrite, name: str = "") -> Proposal:
        """Put a text into a good candidate."""
        made = self.with_text(parent.proposal.candidate, name, text.instruction)
        operator, credit = f"instruction:{text.operator}", credit_of(text, "instruction")
        return self.child_of(parent, made, operator, at(name, text.reason), credit, {coordinate(name): text.operator})

    def redrawn(self, maker: DemoMaker, operator: str, parent: Parent, parents: Sequence[Parent]) -> Proposal | None:
        """Change the examples of a good candidate by one of `demos.OPERATORS`."""

        def demo_set(of: Parent) -> DemoSet:
            return DemoSet(self.demos_of(of.proposal.candidate), of.proposal.operator)

        others = [demos for other in parents if other is not parent and (demos := demo_set(other)).demos]
        old = demo_set(parent)
        drawn = maker.child(operator, old, parent.outcomes, self._dev, others)
        if drawn is None or not drawn.demos or drawn.demos == old.demos:
            return None
        made = self.with_demos(parent.proposal.candidate, drawn.demos)
        return self.child_of(parent, made, drawn.operator, drawn.reason) if made else None

    def child_of(
        self, parent: Parent, made: Candidate, operator: str, reason: str, credit: str = "", place: Place | None = None
    ) -> Proposal:
        where = {**parent.proposal.place, **(place or {})}
        return Proposal(made, where, operator, parent.proposal.candidate.id, reason, credit or operator)


def at(name: str, words: str) -> str:
    return f"{name}: {words}" if name else words


def coordinate(name: str) -> str:
    """Name the text of a place in the space of designs."""
    return f"text of {name}" if name else "instruction"
