"""Operator `merge`: two good instructions, part by part. It asks nobody: the parts were bought before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent.programs.moves.proposals.asking import Asks, Draft
from agent.programs.moves.proposals.evidence import Evidence
from agent.programs.moves.proposals.parts import Assembled

NOISE = 1.0  # points that a part may seem to cost


@dataclass(frozen=True, slots=True)
class Merge:
    """The words of the better one with the parts of both; of two parts for the same labels the one that adds more, and
    no rule or contrast that is believed to cost more than `NOISE` points."""

    name: str = "merge"

    def applies(self, evidence: Evidence) -> bool:
        return bool(self._pairs(evidence))

    async def make(self, evidence: Evidence, ask: Asks) -> list[Draft]:
        pairs = self._pairs(evidence)
        if not pairs:
            return []
        one, two = evidence.rng.choice(pairs)
        made = merged(one, two, evidence.effects())
        taken = len([part for part in made.parts if part not in one.parts])
        left = len([part for part in one.parts if part not in made.parts])
        hypothesis = f"two good instructions add up: {taken} parts of the other one"
        return [Draft(made, hypothesis + (f", without {left} that cost points" if left else ""))]

    def _pairs(self, evidence: Evidence) -> list[tuple[Assembled, Assembled]]:
        """The better and the other of two instructions of good candidates that make a third one."""
        good = list(dict.fromkeys(evidence.instruction(parent) for parent in evidence.parents))
        known = {*evidence.book.instructions, *(one.text(evidence.task) for one in good)}
        pairs = [(one, two) for at, one in enumerate(good) for two in good[at + 1 :] if two.parts]
        return [(one, two) for one, two in pairs if merged(one, two, {}).text(evidence.task) not in known]


def merged(one: Assembled, two: Assembled, effects: Mapping[str, float]) -> Assembled:
    """The words of `one` with the parts of both; a part whose effect in points is not known counts as one of 0."""
    kept = Assembled(one.words)
    for part in sorted({*one.parts, *two.parts}, key=lambda part: (effects.get(part.text, 0.0), part.kind, part.text)):
        if part.kind == "definition" or effects.get(part.text, 0.0) > -NOISE:  # a definition also names its label
            kept = kept.having([part])
    return kept
