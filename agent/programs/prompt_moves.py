"""How the search makes prompts: new designs, changes of good ones, and instructions that the proposer writes."""

from __future__ import annotations

from collections.abc import Sequence

from agent.search.author import proposed, rationales
from agent.search.closing import observed
from agent.search.compress import compressions
from agent.search.effects import Effect, demo_effects, recombine
from agent.search.lab import Lab
from agent.search.pool import Breeder, prompt_of, redraws
from agent.search.program import Entry, Parent
from agent.search.reasons import recombined
from agent.search.study import Place

FEWEST_FITTED = 12  # candidates, before effects of single demos are fitted


class PromptMoves:
    """The `Moves` of one run."""

    def __init__(self, lab: Lab, breeder: Breeder) -> None:
        self._lab, self._breeder = lab, breeder
        self._asked = 0
        self._fitted, self._known_effects = -1, dict[str, Effect]()

    def designs(self) -> list[Entry]:
        return self._breeder.designs()

    def space(self) -> dict[str, tuple[str, ...]]:
        return self._breeder.space()

    def fresh(self, place: Place) -> Entry | None:
        return self._breeder.fresh(place)

    def operators(self, parent: Parent | None) -> list[str]:
        lab, found = self._lab, list[str]()
        if parent is not None:
            found += self._breeder.operators(parent)
            if redraws(parent.entry.candidate) and len(lab.board.outcomes) >= FEWEST_FITTED:
                found.append("attributed")
        if lab.proposer is not None and self._asked < lab.plan.proposals:
            found.append("proposed")
        return found

    def due(self, parent: Parent | None) -> str:
        """The proposer is asked as soon as there is a candidate to build on."""
        return "proposed" if parent is not None and not self._asked and "proposed" in self.operators(parent) else ""

    async def made(self, operator: str, parent: Parent | None, parents: Sequence[Parent]) -> list[Entry]:
        breeder = self._breeder
        if operator == "proposed":
            self._asked += 1
            rewrite = await proposed(self._lab, parents, self._asked)
            if rewrite is None:
                return []
            breeder.rewrites.append(rewrite)
            made = [breeder.instructed(parent, rewrite) if parent else None, breeder.alone(rewrite)]
            return [entry for entry in made if entry]
        assert parent is not None
        if operator == "attributed":
            entry = self._attributed(parent)
        elif operator == "compress":
            shorter = compressions(parent.entry, self._lab.task, self._effects())
            entry = self._lab.rng.choice(shorter) if shorter else None
        else:
            entry = breeder.child(operator, parent, parents)
        return [entry] if entry is not None else []

    async def warmed(self, rows: int) -> None:
        """Worked solutions of the target, where a chain of thought did anything: demos for few-shot-cot."""
        most = 3 * max(self._breeder.counts, default=0)
        self._breeder.rationales.update(await rationales(self._lab, min(rows, most)))

    def _attributed(self, parent: Parent) -> Entry | None:
        """As many demos as the parent has, drawn by what each is believed to add (`effects.py`)."""
        effects = self._effects()
        k = len(prompt_of(parent.entry.candidate).demos)
        ids = recombine(effects, self._breeder.groups, k, self._lab.rng)
        return self._breeder.listed(parent, ids, "attributed", recombined(ids, effects)) if ids else None

    def _effects(self) -> dict[str, Effect]:
        """What each demo is believed to add, fitted once a step."""
        if self._fitted != self._lab.round:
            self._fitted, self._known_effects = self._lab.round, demo_effects(observed(self._lab.board))
        return self._known_effects
