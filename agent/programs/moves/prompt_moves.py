"""How the search makes prompts: new designs, changes of good ones, and instructions that the proposer writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agent.programs.moves.author import rationales
from agent.programs.moves.pool import CandidateGenerator, as_prompt, redraws
from agent.programs.moves.prompt_parts import compressions
from agent.programs.moves.proposals.proposer import BY_CREDIT, Proposer, is_worth_trying
from agent.programs.passages import PassageLibrary
from agent.programs.picked_rows import PickedRows
from agent.prompt.tool_texts import ToolTexts
from agent.search.context import SearchContext
from agent.search.effects import Effect, demo_effects, recombine
from agent.search.explanation import scored_candidates
from agent.search.program import Parent
from agent.types import Proposal, Task

FEWEST_FITTED = 12  # candidates, before effects of single demos are fitted


class PromptMoves(CandidateGenerator):
    """The `Moves` of one run."""

    def __init__(
        self,
        task: Task,
        context: SearchContext,
        pool: PickedRows | None = None,
        library: PassageLibrary | None = None,
    ) -> None:
        super().__init__(task, context.rng, pool, library, context.choices)
        self._context, self._proposer = context, Proposer(context)
        self._fitted, self._known_effects = -1, dict[str, Effect]()

    def operators(self, parent: Parent | None) -> list[str]:
        context, operators = self._context, list[str]()
        if parent is not None:
            operators += super().operators(parent)
            if redraws(parent.proposal.candidate) and len(context.board.outcomes) >= FEWEST_FITTED:
                operators.append("attributed")
        return operators + self._proposer.operators(parent)

    def due(self, parent: Parent | None) -> str:
        return self._proposer.due(parent)

    async def made(self, operator: str, parent: Parent | None, parents: Sequence[Parent]) -> list[Proposal]:
        assert parent is not None
        if operator in BY_CREDIT:
            return await self._proposed(operator, parent)
        if operator == "attributed":
            proposal = self._attributed(parent)
        elif operator == "compress":
            shorter = compressions(parent.proposal, self._context.task, self._effects())
            proposal = self._context.rng.choice(shorter) if shorter else None
        else:
            proposal = self.child(operator, parent, parents)
        return [proposal] if proposal is not None else []

    async def _proposed(self, operator: str, parent: Parent) -> list[Proposal]:
        """The candidates with what an operator of the proposer makes, without those that a look drops."""
        made = []
        for draft, rewrite in await self._proposer.drafts(operator, parent):
            changed = draft.parent or parent
            if isinstance(draft.made, ToolTexts):
                proposal = self.with_tool_texts(changed, rewrite, draft.made)
                if await is_worth_trying(self._context, draft, proposal, changed):
                    self._tools.variants[rewrite.operator] = draft.made
                    made.append(proposal)
                continue
            proposal = self.instructed(changed, rewrite)
            if await is_worth_trying(self._context, draft, proposal, changed):
                self.rewrites.append(rewrite)
                made.append(proposal)
                if draft.alone and (without_demos := self.alone(rewrite)):
                    made.append(without_demos)
        return made

    async def warmed(self, rows: int) -> None:
        """Collect worked solutions of the target where a chain of thought scored: examples for few-shot-cot."""
        most = 3 * max(self.counts, default=0)
        self.rationales.update(await rationales(self._context, min(rows, most)))

    def _attributed(self, parent: Parent) -> Proposal | None:
        """As many examples as the parent has, drawn by what each is believed to add (`effects.py`)."""
        effects = self._effects()
        k = len(as_prompt(parent.proposal.candidate).demos)
        ids = recombine(effects, self.groups, k, self._context.rng)
        return self.listed(parent, ids, "attributed", recombined(ids, effects)) if ids else None

    def _effects(self) -> dict[str, Effect]:
        context = self._context
        if self._fitted != context.round:
            self._fitted = context.round
            self._known_effects = demo_effects(scored_candidates(context.program, context.board))
        return self._known_effects


def recombined(ids: Sequence[str], effects: Mapping[str, Effect]) -> str:
    """The reason of a set drawn by effects.

    >>> recombined(["train-3", "train-8"], {"train-3": Effect("demo", "train-3", 2.1, 0.5)})
    '2 rows, 1 of them tried before; most is expected of train-3 (+2.1)'
    """
    tried = sorted((effects[i] for i in ids if i in effects), key=lambda effect: -effect.points)
    best = " and ".join(f"{effect.name} ({effect.points:+.1f})" for effect in tried[:2] if effect.points > 0)
    known = f"{len(tried)} of them tried before" if tried else "not tried before"
    rows = f"{len(ids)} row{'' if len(ids) == 1 else 's'}"
    return f"{rows}, {known}{f'; most is expected of {best}' if best else ''}"
