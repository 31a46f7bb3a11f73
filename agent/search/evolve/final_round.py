"""The end of the default search: those that are close to the best see the whole of dev, as far as calls pay.

Few rows flatter the best of many. So the first of them climbs rung by rung, and when it falls the next one does, until
the first has as many rows as all but the last rung asks for; only then is the whole of dev paid for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from agent.search.context import SearchContext
from agent.search.evolve.decisions import Scores, close_to_best, mean, with_rival


async def finish(context: SearchContext, out: Collection[str]) -> None:
    """Score the finalists on the whole of dev, one after the other, and close every trial.

    `out`: candidates that are clearly behind.
    """
    board = context.board
    context.stage("finalists", context.round)
    low = await _climb(context, out)
    unpaid = set[str]()
    for place, candidate_id in enumerate([*finalists(context, {*out, *low}), *low]):
        rows = context.plan.dev_rows - len(board.outcomes[candidate_id])
        if not rows:
            continue
        if context.costs.through_test(candidate_id) > context.costs.affordable():  # a cheaper one may be paid
            unpaid.add(candidate_id)
        elif rows <= _for(place, context):
            await context.see([candidate_id], context.plan.dev_rows)
        else:
            unpaid.add(candidate_id)
    for candidate_id, trial in list(board.trials.items()):
        if trial.state == "incomplete":
            why = "what was left did not pay the rest of dev" if candidate_id in unpaid else "not among the best"
            board.settle(candidate_id, "pruned", f"{why} after {len(board.outcomes.get(candidate_id, ()))} rows")
    if unpaid and not context.failed and not set(board.in_state("complete")) - {context.baseline.id}:
        context.failed = "what was left did not pay any of the best on all of dev"


async def _climb(context: SearchContext, out: Collection[str]) -> list[str]:
    """Take the best to its next rung until it is on the last but one; return those that were the best and could not be
    paid. Its way from there to the whole of dev is kept, and that of its rival."""
    plan, low = context.plan, list[str]()
    while True:
        best = [i for i in context.board.ranked() if i not in {*out, *low, context.baseline.id}]
        rows = {i: len(context.board.outcomes[i]) for i in best}
        if not best:  # none can climb so far beside what is kept
            return []
        if rows[best[0]] >= plan.rungs[-2:][0]:
            return low
        rung = next(rung for rung in plan.rungs if rung > rows[best[0]])
        rival = rival_of(context, best) if plan.finalists > 1 else ""
        kept = plan.last_climb + plan.dev_rows - rows.get(rival, plan.dev_rows)
        is_affordable = context.costs.through_test(best[0]) <= context.costs.affordable()
        if is_affordable and rung - rows[best[0]] <= context.payable() - kept:
            await context.see(best[:1], rung)
        else:
            low.append(best[0])


def rival_of(context: SearchContext, best: Sequence[str]) -> str:
    """The best without picked examples where the first has some (`selection.chosen`), else the second; "" for none.

    `best`: ids of candidates, the best first.
    """
    picks = {i: context.program.picks(context.board.candidate(i)) for i in best}
    return next((i for i in best[1:] if not (picks[i] and picks[best[0]])), "")


def _for(place: int, context: SearchContext) -> int:
    """Rows that may be paid for the finalist of this place: those beyond the planned ones leave as many as tell what a
    part of the winner adds, where there are so many."""
    payable, whole = context.payable(), context.plan.dev_rows
    return payable - whole if place >= context.plan.finalists and payable >= whole else payable


def finalists(context: SearchContext, out: Collection[str]) -> list[str]:
    """Those that are close to the best, in the order in which they are paid.

    The user's own prompt is among them where it cannot be told from the best: before the others where it would be
    preferred on the rows so far. Else those rows are enough.
    """
    board, own = context.board, context.baseline.id
    compared = board.compared()
    scores = {i: compared[i] for i in board.ranked() if i not in out}
    others = {i: row for i, row in scores.items() if i != own}
    if not others:
        return []
    order = _ordered(context, others)
    if own not in scores:
        return order
    first = next((row for row in others.values() if len(row) >= len(scores[own])), others[order[0]])
    if len(close_to_best({"": first, own: scores[own]}, context.seed)) == 2:
        is_ahead = mean(scores[own][: len(first)]) >= mean(first[: len(scores[own])])
        order.insert(1 if is_ahead else len(order), own)
    return order


def _ordered(context: SearchContext, scores: Mapping[str, Scores]) -> list[str]:
    """Those of `scores`, the best first, that are close to the best, with a rival for those with picked examples, or
    the best of these where none is close."""
    close = close_to_best(scores, context.seed)
    picks = {i for i in scores if context.program.picks(context.board.candidate(i))}
    fixed = [i for i in scores if i not in picks]
    if fixed and {*close} <= picks:
        payable = context.payable() - context.plan.dev_rows + len(scores[close[0]])
        both = (i for i in fixed if context.plan.dev_rows - len(scores[i]) <= payable)  # the best that can be paid, too
        close.append(next(both, fixed[0]))
    picking = next((i for i in scores if i in picks), None)
    if picking is not None and picks.isdisjoint(close):  # only its twin with neighbours shows what picking is worth
        close.insert(1, picking)
    return rival_placed(context, close)


def rival_placed(context: SearchContext, best: Sequence[str]) -> list[str]:
    """Order finalists, the best first, so that a rival of those with picked examples is paid in time."""
    board = context.board
    picks = {i for i in best if context.program.picks(board.candidate(i))}
    left = {i: context.plan.dev_rows - len(board.outcomes.get(i, ())) for i in best if i != context.baseline.id}
    return with_rival(left, picks, context.payable()) if picks else list(best)
