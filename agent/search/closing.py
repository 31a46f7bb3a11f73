"""What is said at the end of a search, besides the score: what carries the gain, and what it costs. Knows no SQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from agent.errors import BudgetExhausted
from agent.scoring import breakdown
from agent.scoring.breakdown import Pair
from agent.search.analysis.attribution import attribution
from agent.search.analysis.effects import Observed
from agent.search.analysis.pareto import Offer, Prefer, counted, front_table, prefer
from agent.search.board import Board
from agent.search.context import SearchContext
from agent.search.program import Program, Proposal
from agent.types import Candidate, Outcome, Task, Usage


def observed(program: Program, board: Board) -> list[Observed]:
    """Every candidate that was tried, with its scores."""
    return [
        Observed(i, program.features(board.candidate(i)), [o.value for o in seen]) for i, seen in board.outcomes.items()
    ]


def offers(context: SearchContext, price: Callable[[Usage], float] | None, seconds: Mapping[str, float]) -> list[Offer]:
    """The candidates that saw the whole of dev, the user's own prompt first, with what a call of each costs."""
    board, found = context.board, []
    for candidate_id in [context.baseline.id, *(i for i in board.in_state("complete") if i != context.baseline.id)]:
        usage = context.evaluator.usage_of(candidate_id)
        found.append(
            Offer(
                candidate_id,
                [outcome.value for outcome in board.outcomes.get(candidate_id, ())],
                context.program.prompt_tokens(board.candidate(candidate_id)),
                price(usage) if price else None,
                seconds.get(candidate_id),
            )
        )
    return found


def chosen(context: SearchContext, offered: list[Offer], how: Prefer) -> Candidate:
    """The candidate that meets the sealed test. Equal scores go to the baseline, then to the shortest prompt. A dev row
    that only others got a score on counts as 0."""
    offered = counted(offered)
    found = prefer(offered, how)
    best = max((offer.mean for offer in offered), default=0.0)
    if how == "best" and offered and offered[0].mean >= best:
        return context.baseline
    return context.board.candidate(found.candidate_id) if found else context.baseline


def pareto(offered: list[Offer], winner: Candidate) -> list[dict[str, Any]]:
    """The front; who stands on it does not depend on the clock, as a resumed or reproduced run must tell the same."""
    seconds = {offer.candidate_id: offer.latency_s for offer in offered}
    rows = front_table([replace(offer, latency_s=None) for offer in offered], winner.id)
    return [{**row, "latency_s": seconds[row["candidate_id"]]} for row in rows]


async def ablate(context: SearchContext, winner: Candidate) -> None:
    """Sees the winner with one part as in the user's own prompt, each part in turn, as far as the budget goes.

    A cap that `left` does not know of (time) ends this and not the run: the sealed test has its own share.
    """
    try:
        await _ablate(context, winner)
    except BudgetExhausted:
        await context.gateway.drain()


async def _ablate(context: SearchContext, winner: Candidate) -> None:
    for ablation in context.program.ablations(winner, context.baseline):
        made = ablation.candidate
        rows = context.plan.dev_rows - len(context.board.outcomes.get(made.id, ()))
        cost = context.costs.of_rows(winner.id, rows) + context.costs.through_test(winner.id)
        if rows > context.spare() or cost > context.costs.affordable():
            continue
        if made.id not in context.board.proposals:
            where = context.board.proposals[winner.id].place
            reason = f"the winner with the {ablation.part} of the user's own prompt: what does that part carry?"
            context.admit([Proposal(made, where, f"without:{ablation.part}", winner.id, reason)])
        if made.id in context.board.proposals:
            await context.see([made.id], context.plan.dev_rows)


def carried(context: SearchContext, winner: Candidate, corrected: float | None) -> list[dict[str, Any]]:
    """The attribution of the winner's gain, JSON-ready; empty when the user's own prompt won."""
    if winner.id == context.baseline.id:
        return []
    mean = context.board.mean(winner.id) or 0.0
    optimism = max(0.0, mean - corrected) if corrected is not None else 0.0
    ablations = context.program.ablations(winner, context.baseline)
    program, table = context.program, observed(context.program, context.board)
    parts = attribution(winner, ablations, table, program.features, optimism, context.seed)
    return [part.as_dict() for part in parts]


def explained(
    task: Task,
    pair: Pair,
    samples: Mapping[str, Sequence[Sequence[Outcome]]],
    judges: Sequence[Mapping[str, Any]],
    seed: int,
) -> dict[str, Any]:
    """The score on the sealed test taken apart, JSON-ready. `samples`: by side the answers to some rows, asked again
    and again; `judges`: what is known of each."""
    texts = [field.name for field in task.signature.outputs if field.type == "text"]
    sides = {"winner": pair.won, "baseline": pair.based}
    steady = {side: breakdown.consistency(asked) for side, asked in samples.items()}
    return {
        "metrics": breakdown.by_metric(pair, task.metrics, seed),
        "slices": breakdown.by_slice(pair, task.slices, seed),
        "consistency": steady if task.repeats > 1 else None,
        "variety": [
            {"field": name, **{side: breakdown.variety(seen, name) for side, seen in sides.items()}} for name in texts
        ],
        "judges": list(judges),
    }
