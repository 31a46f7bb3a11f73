"""How the search makes prompts: new designs, changes of good ones, and instructions that the proposer writes."""

from __future__ import annotations

from collections.abc import Sequence

from agent.programs.moves.author import proposed, rationales
from agent.programs.moves.compress import compressions
from agent.programs.moves.pool import CandidateGenerator, prompt_of, redraws
from agent.programs.moves.reasons import recombined
from agent.search.analysis.effects import Effect, demo_effects, recombine
from agent.search.closing import observed
from agent.search.context import SearchContext
from agent.search.program import PROPOSED, Parent, Proposal
from agent.search.study import Place

FEWEST_FITTED = 12  # candidates, before effects of single demos are fitted


class PromptMoves:
    """The `Moves` of one run."""

    def __init__(self, context: SearchContext, generator: CandidateGenerator) -> None:
        self._context, self._generator = context, generator
        self._asked = 0
        self._fitted, self._known_effects = -1, dict[str, Effect]()

    def designs(self) -> list[Proposal]:
        return self._generator.designs()

    def space(self) -> dict[str, tuple[str, ...]]:
        return self._generator.space()

    def fresh(self, place: Place) -> Proposal | None:
        return self._generator.fresh(place)

    def operators(self, parent: Parent | None) -> list[str]:
        context, operators = self._context, list[str]()
        if parent is not None:
            operators += self._generator.operators(parent)
            if redraws(parent.proposal.candidate) and len(context.board.outcomes) >= FEWEST_FITTED:
                operators.append("attributed")
        if context.proposer is not None and self._asked < context.plan.proposals:
            operators.append(PROPOSED)
        return operators

    def due(self, parent: Parent | None) -> str:
        """The proposer is asked as soon as there is a candidate to build on."""
        return PROPOSED if parent is not None and not self._asked and PROPOSED in self.operators(parent) else ""

    async def made(self, operator: str, parent: Parent | None, parents: Sequence[Parent]) -> list[Proposal]:
        generator = self._generator
        if operator == PROPOSED:
            self._asked += 1
            rewrite = await proposed(self._context, parents, self._asked)
            if rewrite is None:
                return []
            generator.rewrites.append(rewrite)
            made = [generator.instructed(parent, rewrite) if parent else None, generator.alone(rewrite)]
            return [proposal for proposal in made if proposal]
        assert parent is not None
        if operator == "attributed":
            proposal = self._attributed(parent)
        elif operator == "compress":
            shorter = compressions(parent.proposal, self._context.task, self._effects())
            proposal = self._context.rng.choice(shorter) if shorter else None
        else:
            proposal = generator.child(operator, parent, parents)
        return [proposal] if proposal is not None else []

    async def warmed(self, rows: int) -> None:
        """Worked solutions of the target, where a chain of thought did anything: demos for few-shot-cot."""
        most = 3 * max(self._generator.counts, default=0)
        self._generator.rationales.update(await rationales(self._context, min(rows, most)))

    def _attributed(self, parent: Parent) -> Proposal | None:
        """As many demos as the parent has, drawn by what each is believed to add (`effects.py`)."""
        effects = self._effects()
        k = len(prompt_of(parent.proposal.candidate).demos)
        ids = recombine(effects, self._generator.groups, k, self._context.rng)
        return self._generator.listed(parent, ids, "attributed", recombined(ids, effects)) if ids else None

    def _effects(self) -> dict[str, Effect]:
        """What each demo is believed to add, fitted once a step."""
        if self._fitted != self._context.round:
            self._fitted, self._known_effects = (
                self._context.round,
                demo_effects(observed(self._context.program, self._context.board)),
            )
        return self._known_effects
