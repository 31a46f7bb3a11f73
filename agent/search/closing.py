"""The end of a search: the choice of the winner, which parts carry its gain, and the Pareto front."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from agent.errors import BudgetExhausted
from agent.prompt.tool_texts import tool_changes
from agent.scoring import answer_counts, breakdown
from agent.scoring.breakdown import Pair
from agent.search.analysis.attribution import attribution
from agent.search.analysis.effects import ScoredCandidate
from agent.search.analysis.pareto import Finalist, Prefer, counted, front_table, prefer
from agent.search.board import Board
from agent.search.context import SearchContext
from agent.search.program import PROPOSED, Program
from agent.search.proposal_log import by_operator
from agent.stats.family import best_of_many
from agent.stats.noninferiority import LossBound, loss_bound
from agent.types import Candidate, Outcome, Proposal, Task, Usage

PROVED = 0.1
"""The two-sided p-value on dev up to which picked examples are better than fixed ones: 0.05 for the one direction."""

Scores = Sequence[float | None]
NOT_PROVED = "picks_not_proved"
"""The event of a best on dev that picks examples and is not shown to be better than the best with fixed ones."""


def scored_candidates(program: Program, board: Board) -> list[ScoredCandidate]:
    """Every candidate that was tried, with its scores."""
    return [
        ScoredCandidate(i, program.features(board.candidate(i)), [o.value for o in outcomes])
        for i, outcomes in board.outcomes.items()
    ]


def finalists(
    context: SearchContext, price: Callable[[Usage], float] | None, seconds: Mapping[str, float]
) -> list[Finalist]:
    """The candidates that were scored on the whole of dev, and before them the user's own prompt, on all that it saw.

    Args:
        context: the search.
        price: of the target model; None: not known.
        seconds: mean latency of a call by candidate id.
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
    """The candidate that goes to the sealed test. Equal scores go to the baseline, then to the shortest prompt; a dev
    row that only others have a score for counts as 0. A baseline that saw a part of dev is compared on that part.

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
    """A cheaper candidate in the place of the best.

    Args:
        winner: the candidate that goes to the sealed test.
        best: the best on dev, which it is compared with there.
        bound: how much the winner may lose against the best, by dev.
        saved: the share of the cost of a call that it saves, in [0, 1].
        saved_in: what the cost is counted in.
    """

    winner: Candidate
    best: Candidate
    bound: LossBound
    saved: float
    saved_in: Literal["dollars", "tokens"]


def cheaper(
    context: SearchContext, candidates: Sequence[Finalist], best: Candidate, margin: float
) -> CheaperChoice | None:
    """The cheapest of those that are shown on dev to lose less than a margin against the best; None where no other one
    is cheaper. Dollars decide, then prompt tokens. One that picks its examples takes part only where the best does.

    Args:
        context: a search that is over.
        candidates: those that saw the whole of dev.
        best: the one of them that would go to the sealed test by its score.
        margin: the loss that is accepted, in (0, 1).
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
    if gain["diff"] is None or gain["diff"] <= 0 or gain["p_value"] > PROVED:
        return False
    scored = [at for at, value in enumerate(rival) if value is not None]
    tables = [[scores[at] or 0.0 for at in scored] for scores in picking.values()]
    family = best_of_many(tables, list(picking).index(winner), [rival[at] or 0.0 for at in scored], seed)
    return family <= PROVED / 2


def _preferred(context: SearchContext, compared: Sequence[Finalist], how: Prefer) -> Candidate:
    """The baseline, which is the first, where no other is better on the rows that both have, or than it by `how`."""
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


def pareto(candidates: list[Finalist], winner: Candidate) -> list[dict[str, Any]]:
    """The Pareto front of those that saw all of dev, JSON-ready; latency is shown and does not decide, as a reproduced
    run must give the same."""
    seconds = {each.candidate_id: each.latency_s for each in candidates}
    most = max(len(each.scores) for each in candidates)
    candidates = [each for each in candidates if len(each.scores) == most or each.candidate_id == winner.id]
    rows = front_table([replace(each, latency_s=None) for each in candidates], winner.id)
    return [{**row, "latency_s": seconds[row["candidate_id"]]} for row in rows]


async def ablate(context: SearchContext, winner: Candidate) -> None:
    """Scores the winner with one part as in the user's own prompt, each part in turn, as far as the budget goes.

    A cap that `spare` does not cover (time) ends this and not the run: the sealed test has its own share.
    """
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
            try:
                await context.see([made.id], context.plan.dev_rows)
            except BudgetExhausted:
                await context.gateway.drain()
                return


def carried(context: SearchContext, winner: Candidate, corrected: float | None) -> list[dict[str, Any]]:
    """What each part of the winner contributes to its gain, JSON-ready; empty when the user's own prompt won.

    Args:
        context: the search.
        winner: the candidate that goes to the sealed test.
        corrected: its dev score without the optimism of the choice, in [0, 1]; None: not known.
    """
    if winner.id == context.baseline.id:
        return []
    mean = context.board.mean(winner.id) or 0.0
    optimism = max(0.0, mean - corrected) if corrected is not None else 0.0
    ablations = context.program.ablations(winner, context.baseline)
    table = scored_candidates(context.program, context.board)
    parts = attribution(winner, ablations, table, context.program.features, optimism, context.seed)
    return [part.as_dict() for part in parts]


def changed(context: SearchContext, winner: Candidate) -> dict[str, Any] | None:
    """What the winner has that the user's own prompt has not, JSON-ready; None when that one won."""
    program, baseline = context.program, context.baseline
    if winner.id == baseline.id:
        return None

    def side(candidate: Candidate) -> dict[str, Any]:
        shown = program.shown(candidate)
        return {
            "technique": shown.technique,
            "format": shown.format,
            "n_demos": shown.n_demos,
            "prompt_tokens": program.prompt_tokens(candidate),
            "tokens_a_call": context.evaluator.tokens_a_call(candidate.id),
            "role": shown.role,
        }

    own, new = program.shown(baseline).text, program.shown(winner).text
    texts = program.shown(winner).tool_texts
    return {
        "instruction": new != own,
        **({"keeps": True} if new != own and own.strip() and own.strip() in new else {}),
        "tools": [change.what for change in tool_changes(texts)] if texts else [],
        "winner": side(winner),
        "baseline": side(baseline),
    }


def proposer_use(context: SearchContext, winner: Candidate, ended: str) -> dict[str, Any]:
    """What came of the proposer, JSON-ready.

    Args:
        context: the search.
        winner: the candidate that goes to the sealed test.
        ended: why the search ended before its plan did, or "".
    """
    board, noted = context.board, context.noted
    if context.proposer is None:
        return {"why_not": "there is no proposer"}

    def is_proposed(candidate_id: str) -> bool:
        place = board.proposals[candidate_id].place
        return any(choice.startswith(f"{PROPOSED}-") for choice in place.values())

    tried = [candidate_id for candidate_id in board.trials if is_proposed(candidate_id)]
    log = context.proposal_log
    is_counted = context.asked <= log.calls
    proposals = log.as_dicts(board, winner.id)
    why_not = ""
    if context.asked == 0:
        early = f"the search had ended before: {context.stopped}" if context.stopped else "the search asked for none"
        is_search = len(board.trials) > 1 or bool(context.stopped)
        why_not = (
            "the search ended before its plan was done" if ended else early if is_search else "nothing was searched"
        )
    return {
        "model": context.proposer.name,
        "planned": context.plan.proposals,
        "asked": context.asked,
        "refused": noted["proposal_refused"],
        "failed": noted["proposal_failed"],
        "tried": len(tried) if is_counted else None,
        "finalists": sum(board.trials[candidate_id].state == "complete" for candidate_id in tried),
        "won": winner.id in tried,
        "why_not": why_not,
        "points": _over_others(board, tried),
        "operators": by_operator(proposals),
        "proposals": proposals,
    }


def _over_others(board: Board, tried: Sequence[str]) -> float | None:
    """By how many points the best candidate with an instruction of the proposer is above the best without, on the dev
    rows that both have a score for; None where there is no such pair."""

    def best(ids: Iterable[str]) -> Sequence[Outcome]:
        seen = [i for i in ids if board.outcomes.get(i) and board.trials[i].state != "failed"]
        most = max((len(board.outcomes[i]) for i in seen), default=0)
        full = [i for i in seen if len(board.outcomes[i]) == most]
        return board.outcomes[max(full, key=lambda i: board.mean(i) or 0.0)] if full else ()

    pairs = zip(best(tried), best(i for i in board.trials if i not in tried), strict=False)
    gains = [one.value - two.value for one, two in pairs if one.value is not None and two.value is not None]
    return 100 * sum(gains) / len(gains) if gains else None


def explained(
    task: Task,
    pair: Pair,
    samples: Mapping[str, Sequence[Sequence[Outcome]]],
    judges: Sequence[Mapping[str, Any]],
    seed: int,
) -> dict[str, Any]:
    """The score on the sealed test by metric, slice and repeat, JSON-ready.

    Args:
        task: the task.
        pair: the outcomes of winner and baseline on the sealed test.
        samples: by side, repeated answers to some rows.
        judges: the trust record of each judge.
        seed: of the bootstrap.
    """
    texts = [field.name for field in task.signature.outputs if field.type == "text"]
    sides = {"winner": pair.won, "baseline": pair.based}
    steady = {side: breakdown.consistency(answers) for side, answers in samples.items()}
    return {
        "answers": answer_counts.row_counts(pair),
        "labels": answer_counts.by_label(pair, task.signature.outputs),
        "tools": answer_counts.by_tool(pair, task.signature.outputs[0], task.tools),
        "metrics": breakdown.by_metric(pair, task.metrics, seed),
        "slices": breakdown.by_slice(pair, task.slices, seed),
        "consistency": steady if task.repeats > 1 else None,
        "variety": [
            {"field": name, **{side: breakdown.variety(rows, name) for side, rows in sides.items()}} for name in texts
        ],
        "judges": list(judges),
    }
