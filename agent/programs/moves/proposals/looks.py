"""A look at a proposal before it is tried: the rows that it is for, and as many that were right and must stay so."""

from __future__ import annotations

from agent.programs.moves.proposals.asking import Draft
from agent.search.context import SearchContext
from agent.search.program import Parent
from agent.types import Proposal


async def is_worth_trying(context: SearchContext, draft: Draft, proposal: Proposal, parent: Parent) -> bool:
    """Whether a draft mends more of its rows than it breaks of its guard set, against the candidate that it changes.

    Args:
        context: the search; its log gets the scores before and after.
        draft: one without a guard set is always worth it.
        proposal: the candidate with it; its place names it.
        parent: the candidate that it changes, which has outcomes on the rows of the draft.
    """
    seen = {outcome.example_id for outcome in context.board.outcomes.get(context.baseline.id, ())}
    wanted = [i for i in (*draft.rows, *draft.guard) if i in seen]
    rows = [row for row in context.dev if row.id in wanted]
    left = min(context.left_by_calls() - context.plan.kept_rows, context.payable())
    if (
        not draft.guard
        or len(rows) > left
        or context.costs.of_rows(parent.proposal.candidate.id, len(rows)) > (context.costs.affordable())
    ):
        return True
    after = {outcome.example_id: outcome.value for outcome in await context.look(proposal, rows)}
    before = {outcome.example_id: outcome.value for outcome in parent.outcomes}
    pairs = [(before[i], after[i]) for i in after if before[i] is not None and after[i] is not None]
    gain = sum((new or 0.0) - (old or 0.0) for old, new in pairs)
    is_kept = gain > 0
    record = next(r for r in reversed(context.proposal_log.records) if r.instruction in proposal.place.values())
    body = {"number": record.number, "operator": record.operator, "rows": list(draft.rows), "guard": list(draft.guard)}
    scores = _means(pairs)
    context.proposal_log.change(record.number, **scores, is_kept=is_kept)
    context.note("proposal_look", {**body, **scores, "kept": is_kept})
    return is_kept


def _means(pairs: list[tuple[float | None, float | None]]) -> dict[str, float | None]:
    if not pairs:
        return {"before": None, "after": None}
    return {
        "before": sum(old or 0.0 for old, _ in pairs) / len(pairs),
        "after": sum(new or 0.0 for _, new in pairs) / len(pairs),
    }
