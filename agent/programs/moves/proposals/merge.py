"""Operator `merge`: two good instructions, part by part. It asks nobody: the parts were bought before."""

from __future__ import annotations

from dataclasses import dataclass

from agent.programs.moves.proposals.asking import Asks, Draft
from agent.programs.moves.proposals.evidence import Evidence
from agent.programs.moves.proposals.parts import Assembled, Part


@dataclass(frozen=True, slots=True)
class Merge:
    """The words of the better one with the parts of both; of two parts for the same labels the one that adds more, and
    no other part than a definition that is believed to cost anything."""

    name: str = "merge"

    def applies(self, evidence: Evidence) -> bool:
        return bool(self._pairs(evidence))

    async def make(self, evidence: Evidence, ask: Asks) -> list[Draft]:
        pairs = self._pairs(evidence)
        if not pairs:
            return []
        one, two = evidence.rng.choice(pairs)
        made = merged(one, two, evidence)
        if made.text(evidence.task) in evidence.book.instructions:
            return []
        taken = len([part for part in made.parts if part not in one.parts])
        left = len([part for part in one.parts if part not in made.parts])
        hypothesis = f"two good instructions add up: {taken} parts of the other one"
        return [Draft(made, hypothesis + (f", without {left} that cost points" if left else ""))]

    def _pairs(self, evidence: Evidence) -> list[tuple[Assembled, Assembled]]:
        """The better and the other of two instructions of good candidates, of which the other has parts of its own."""
        texts = dict.fromkeys(evidence.instruction(parent) for parent in evidence.parents)
        good = list(texts)
        return [(one, two) for at, one in enumerate(good) for two in good[at + 1 :] if set(two.parts) - set(one.parts)]


def merged(one: Assembled, two: Assembled, evidence: Evidence) -> Assembled:
    """The words of `one` with the parts of both; a part whose effect is not known counts as one of 0 points."""
    effects = evidence.effects()

    def points(part: Part) -> float:
        return effects.get(part.text, 0.0)

    kept = Assembled(one.words)
    for part in sorted({*one.parts, *two.parts}, key=lambda part: (points(part), part.kind, part.text)):
        if part.kind == "definition" or points(part) >= 0:  # a definition also names its label
            kept = kept.having([part])
    return kept
