"""The choice of the winner among the candidates that saw the whole of dev, and the Pareto front."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from agent.results.run_parts import ParetoRow
from agent.scoring import breakdown
from agent.search.context import SearchContext
from agent.search.pareto import Finalist, Prefer, counted, front_table, prefer
from agent.stats.noninferiority import LossBound, loss_bound
from agent.stats.selection import best_of_many
from agent.types import Candidate, Usage

PROVED = 0.1
"""The two-sided p-value on dev up to which picked examples are better than fixed ones: 0.05 for the one direction."""

Scores = Sequence[float | None]
NOT_PROVED = "picks_not_proved"
"""The event of a best on dev that picks examples and is not shown to be better than the best with fixed ones."""


def finalists(
    context: SearchContext, price: Callable[[Usage], float] | None, seconds: Mapping[str, float]
) -> list[Finalist]:
    """The user's own prompt, on all rows that it saw, then the candidates that were scored on the whole of dev.

    `price`: of the target model; None: not known. `seconds`: mean latency of a call by candidate id.
    """
    board, baseline = context.board, context.baseline.id
    return [
        Finalist(
            candidate_id,
            [outcome.value for outcome in board.outcomes.get(candidate_id, ())],
            context.program.prompt_tokens(board.candidate(candidate_id)),
            price(context.evaluator.usage_of(candidate_id)) if price else None,
            seconds.get(candidate_id),
            context.evaluator.tokens_a_call(candidate_id),
        )
        for candidate_id in [baseline, *(i for i in board.in_state("complete") if i != baseline)]
    ]


def chosen(context: SearchContext, candidates: list[Finalist], how: Prefer) -> Candidate:
    """The candidate that goes to the sealed test. Equal scores go to the baseline, then to the shortest prompt.

    A dev row that only others have a score for counts as 0; a baseline that saw a part of dev is compared on that part.
    One whose examples are picked for each row costs more, in production too, and depends on its pool: against a rival
    with fixed examples it must be better on dev, row by row, and that not by being the best of many that pick
    (`PROVED`). The user's own prompt is no such rival, as the sealed test compares with it.
    """
    compared, picks = counted(candidates), context.program.picks
    winner = _preferred(context, compared, how)
    if not picks(winner):
        return winner
    picking = {each.candidate_id: each.scores for each in compared if picks(context.board.candidate(each.candidate_id))}
    others = [each for each in compared if each.candidate_id not in picking]
    rival = _preferred(context, others, "best")
    rival_scores = next(each.scores for each in others if each.candidate_id == rival.id)
    if rival.id == context.baseline.id or _is_proved(picking, winner.id, rival_scores, context.seed):
        return winner
    context.unproved = winner.id
    context.note(NOT_PROVED, {"candidate_id": winner.id, "against": rival.id})
    return _preferred(context, others, how)


@dataclass(frozen=True, slots=True)
class CheaperChoice:
    """A cheaper candidate in the place of the best on dev, which it is compared with on the sealed test.

    `bound`: how much the winner may lose, by dev. `saved`: the share of the cost of a call that it saves, in [0, 1].
    """

    winner: Candidate
    best: Candidate
    bound: LossBound
    saved: float
    saved_in: Literal["dollars", "tokens"]


def cheaper(
    context: SearchContext, candidates: Sequence[Finalist], best: Candidate, margin: float
) -> CheaperChoice | None:
    """The cheapest that is shown on dev to lose less than `margin` against the best; None where no other is cheaper.

    Dollars decide, then prompt tokens. One that picks its examples takes part only where the best does.
    """
    compared, picks = counted(candidates), context.program.picks
    reference = next(each for each in compared if each.candidate_id == best.id)
    found = [(reference, LossBound(0.0, 0.0, margin, 0))]
    for each in compared:
        whole = each is not reference and len(each.scores) == len(reference.scores)
        if not whole or (picks(context.board.candidate(each.candidate_id)) and not picks(best)):
            continue
        bound = loss_bound(each.scores, reference.scores, margin, context.seed)
        if bound is not None and bound.is_shown:
            found.append((each, bound))
    chosen_one, bound = min(found, key=lambda pair: (pair[0].usd or 0.0, pair[0].prompt_tokens, -pair[0].mean))
    if chosen_one is reference:
        return None
    saved, saved_in = _saved(chosen_one, reference)
    return CheaperChoice(context.board.candidate(chosen_one.candidate_id), best, bound, saved, saved_in)


def _saved(one: Finalist, best: Finalist) -> tuple[float, Literal["dollars", "tokens"]]:
    if one.usd is not None and best.usd and one.usd < best.usd:
        return 1 - one.usd / best.usd, "dollars"
    return 1 - one.prompt_tokens / best.prompt_tokens, "tokens"


def _is_proved(picking: Mapping[str, Scores], winner: str, rival: Scores, seed: int) -> bool:
    """Whether the winner is better than the rival, alone and as one of all that pick."""
    gain = breakdown.difference(picking[winner][: len(rival)], rival, seed)
    if gain.diff is None or gain.diff <= 0 or gain.p_value is None or gain.p_value > PROVED:
        return False
    scored = [at for at, value in enumerate(rival) if value is not None]
    tables = [[scores[at] or 0.0 for at in scored] for scores in picking.values()]
    family = best_of_many(tables, list(picking).index(winner), [rival[at] or 0.0 for at in scored], seed)
    return family <= PROVED / 2


def _preferred(context: SearchContext, compared: Sequence[Finalist], how: Prefer) -> Candidate:
    """The preferred one by `how`; the baseline, which is the first, where no other is better on the rows of both."""
    if not compared:
        return context.baseline
    own, *others = compared
    is_whole = len(own.scores) == context.plan.dev_rows
    best = max((each.mean for each in others), default=0.0)
    if not others or (how == "best" and is_whole and own.mean >= best):
        return context.baseline
    if is_whole:
        preferred = prefer(compared, how)
    else:  # the preferred of all, where it is better on the rows that the baseline saw
        better = [each for each in others if each.over(len(own.scores)) > own.mean]
        preferred = of_all if (of_all := prefer(others, how)) in better else prefer(better, how)
    return context.board.candidate(preferred.candidate_id) if preferred else context.baseline


def pareto(candidates: list[Finalist], winner: Candidate) -> list[ParetoRow]:
    """The Pareto front of those that saw all of dev.

    Latency is shown and does not decide, as a reproduced run must give the same.
    """
    seconds = {each.candidate_id: each.latency_s for each in candidates}
    most = max(len(each.scores) for each in candidates)
    candidates = [each for each in candidates if len(each.scores) == most or each.candidate_id == winner.id]
    rows = front_table([replace(each, latency_s=None) for each in candidates], winner.id)
    return [row.model_copy(update={"latency_s": seconds[row.candidate_id]}) for row in rows]
