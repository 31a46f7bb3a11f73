"""Selection of the winner among those that saw the whole of dev, and the best untested one."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from statistics import stdev
from typing import Literal

from agent.evaluate import breakdown
from agent.options.run import Prefer
from agent.results.run_parts import NotWorse, ParetoRow, Untested
from agent.search.context import SearchContext
from agent.search.plan import DEV_SHARE, calls_to_finish
from agent.stats.intervals import both_scored, loss_bound, paired_difference
from agent.stats.power import SIGNIFICANT
from agent.stats.preflight import rows_to_show
from agent.stats.selection import best_of_many, selection_corrected
from agent.types import Candidate, Usage

PROVED = 0.1  # picked examples must beat fixed ones on dev at this two-sided p-value: 0.05 one-sided

CHOOSABLE = ("complete", "pruned")
Scores = Sequence[float | None]
NOT_PROVED = "picks_not_proved"
"""The event of a leader with picked examples that is not significantly better than fixed ones."""
MARGIN = 0.01


@dataclass(frozen=True, slots=True)
class Finalist:
    """A candidate with its scores by dev row and its costs: tokens without the row, dollars of a row, means of a call.

    `row_tokens`: the measured tokens of a row, where the number of its calls varies; else 0.
    """

    candidate_id: str
    scores: Sequence[float | None]
    prompt_tokens: int
    usd: float | None
    latency_s: float | None = None
    tokens_a_call: int = 0
    row_tokens: int = 0

    @property
    def costs(self) -> tuple[float, ...]:
        """What the cheapest has least of, in order."""
        return self.usd or 0.0, self.row_tokens, self.prompt_tokens, -self.mean

    @property
    def mean(self) -> float:
        return self.over(len(self.scores))

    def over(self, rows: int) -> float:
        scored = [value for value in self.scores[:rows] if value is not None]
        return sum(scored) / len(scored) if scored else 0.0


def counted(finalists: Sequence[Finalist]) -> list[Finalist]:
    """Count 0 for a missing score that others have, as the sealed test does."""
    scored = [any(value is not None for value in row) for row in zip_longest(*(each.scores for each in finalists))]

    def filled(scores: Sequence[float | None]) -> list[float | None]:
        return [0.0 if has and value is None else value for has, value in zip(scored, scores, strict=False)]

    return [replace(each, scores=filled(each.scores)) for each in finalists]


def front(finalists: Sequence[Finalist]) -> list[Finalist]:
    """Return the Pareto front, best score first. Latency counts only if all have one."""
    timed = all(each.latency_s is not None for each in finalists)

    def costs(each: Finalist) -> tuple[float, ...]:
        return -each.mean, each.prompt_tokens, each.usd or 0.0, (each.latency_s or 0.0) if timed else 0.0

    every = list(map(costs, finalists))

    def is_beaten(mine: tuple[float, ...]) -> bool:
        return any(other != mine and all(a <= b for a, b in zip(other, mine, strict=True)) for other in every)

    return sorted((each for each in finalists if not is_beaten(costs(each))), key=lambda each: costs(each)[:2])


def prefer(finalists: Sequence[Finalist], how: Prefer = "best") -> Finalist | None:
    """Choose the finalist to ship, the first of equals.

    `best`: the highest score, then the fewest tokens. Among those `within_noise` of the best, `cheap` takes the fewest
    dollars, then tokens, and `short` the fewest tokens, then dollars.
    """
    best = min(finalists, key=lambda each: (-each.mean, each.prompt_tokens), default=None)
    if best is None or how == "best":
        return best
    good = [each for each in finalists if each is best or within_noise(each.scores, best.scores)]
    if how == "cheap":
        return min(good, key=lambda each: each.costs)
    return min(good, key=lambda each: (each.prompt_tokens, each.usd or 0.0, -each.mean))


def within_noise(scores: Scores, best: Scores, optimism: float = 0.0) -> bool:
    """Tell whether a candidate loses at most max(MARGIN, one standard error of the paired difference).

    `optimism`: how much the choice of the best flatters it on these rows.
    """
    steps = [mine - theirs for mine, theirs in both_scored(scores, best)]
    if not steps:
        return False
    error = stdev(steps) / math.sqrt(len(steps)) if len(steps) > 1 else 0.0
    return sum(steps) / len(steps) >= -max(MARGIN, error) - optimism - 1e-12


def finalists(
    context: SearchContext, price: Callable[[Usage], float] | None, seconds: Mapping[str, float]
) -> list[Finalist]:
    """Return the user's own prompt, then those that saw all of dev. `seconds`: latency by id."""
    trials, baseline, evaluator = context.trials, context.baseline.id, context.evaluator

    def finalist(candidate_id: str) -> Finalist:
        calls = 1.0 if context.program.is_fixed else evaluator.calls_a_row(candidate_id)
        tokens = evaluator.tokens_a_call(candidate_id)
        return Finalist(
            candidate_id,
            trials.scores(candidate_id),
            context.program.prompt_tokens(trials.candidate(candidate_id)),
            price(evaluator.usage_of(candidate_id)) * calls if price else None,
            seconds.get(candidate_id),
            tokens,
            0 if context.program.is_fixed else round(tokens * calls),
        )

    return [finalist(each) for each in [baseline, *(i for i in trials.in_state("complete") if i != baseline)]]


def chosen(context: SearchContext, candidates: list[Finalist], how: Prefer) -> Candidate:
    """Choose the candidate for the sealed test; the baseline wins ties, then the shortest prompt.

    Picked examples cost more, in production too, and depend on the pool: against a rival with fixed examples, other
    than the user's own prompt, such a prompt must be significantly better on dev, corrected for the choice among all
    that pick.
    """
    compared = counted(candidates)
    winner = _preferred(context, compared, how)
    if not winner.must_prove:
        return winner
    candidate = context.trials.candidate
    picking = {each.candidate_id: each.scores for each in compared if candidate(each.candidate_id).must_prove}
    others = [each for each in compared if each.candidate_id not in picking]
    rival = _preferred(context, others, "best")
    rival_scores = next(each.scores for each in others if each.candidate_id == rival.id)
    if rival.id == context.baseline.id or _is_proved(picking, winner.id, rival_scores, context.seed):
        return winner
    context.unproved = winner.id
    context.note(NOT_PROVED, {"candidate_id": winner.id, "against": rival.id})
    return _preferred(context, others, how)


def selected(context: SearchContext, candidates: list[Finalist]) -> tuple[Candidate, CheaperChoice | None]:
    """Choose the candidate for the sealed test by `--prefer`, and how it is cheaper."""
    options, rows = context.options, len(context.dev)
    if options.prefer != "cheap":
        return chosen(context, candidates, options.prefer), None
    best = chosen(context, candidates, "best")
    if (found := cheaper(context, candidates, best)) is not None:
        return found.winner, found
    context.observer.on_message(
        f"prefer cheap: no cheaper prompt is shown to lose less than {options.accepted} on {rows} dev rows, so the "
        f"best is tested (two equally good ones pass with about {options.passed_on(rows)} or more)"
    )
    context.plan = replace(context.plan, tested=context.plan.tested - 1)  # what a third prompt would take may be spent
    return best, None


@dataclass(frozen=True, slots=True)
class CheaperChoice:
    """A cheaper winner than the best on dev; `bound`: its loss by dev, `saved`: the share of the cost."""

    winner: Candidate
    best: Candidate
    bound: NotWorse
    saved: float
    saved_in: Literal["dollars", "tokens"]


def cheaper(context: SearchContext, candidates: Sequence[Finalist], best: Candidate) -> CheaperChoice | None:
    """Return the cheapest (dollars, then tokens) that dev shows to lose less than accepted.

    One that picks its examples takes part only if the best does.
    """
    compared, found = counted(candidates), list[tuple[Finalist, NotWorse]]()
    reference = next(each for each in compared if each.candidate_id == best.id)
    for each in compared:
        if each.costs >= reference.costs or len(each.scores) != len(reference.scores):
            continue
        if context.trials.candidate(each.candidate_id).must_prove and not best.must_prove:
            continue
        bound = loss_bound(each.scores, reference.scores, context.options.accepted_loss, context.seed)
        if bound is not None and bound.shown:
            found.append((each, bound))
    if not found:
        return None
    one, bound = min(found, key=lambda pair: pair[0].costs)
    winner = context.trials.candidate(one.candidate_id)
    if one.usd is not None and reference.usd and one.usd < reference.usd:
        return CheaperChoice(winner, best, bound, 1 - one.usd / reference.usd, "dollars")
    mine, theirs = (each.row_tokens or each.prompt_tokens for each in (one, reference))
    return CheaperChoice(winner, best, bound, 1 - mine / theirs, "tokens")


def _is_proved(picking: Mapping[str, Scores], winner: str, rival: Scores, seed: int) -> bool:
    gain = breakdown.difference(picking[winner][: len(rival)], rival, seed)
    if gain.diff is None or gain.diff <= 0 or gain.p_value is None or gain.p_value > PROVED:
        return False
    scored = [at for at, value in enumerate(rival) if value is not None]
    tables = [[scores[at] or 0.0 for at in scored] for scores in picking.values()]
    family = best_of_many(tables, list(picking).index(winner), [rival[at] or 0.0 for at in scored], seed)
    return family <= PROVED / 2


def _preferred(context: SearchContext, compared: Sequence[Finalist], how: Prefer) -> Candidate:
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
    return context.trials.candidate(preferred.candidate_id) if preferred else context.baseline


def corrected(context: SearchContext, winner: Candidate) -> float | None:
    """Correct the winner's dev score for the choice among all tried candidates. None if it cannot be."""
    trials = context.trials
    tried = trials.prefixes([i for i, trial in trials.by_id.items() if trial.n and trial.state in CHOOSABLE])
    if winner.id == context.baseline.id or not tried.get(winner.id) or uncorrected(context, winner):
        return None
    return selection_corrected(list(tried.values()), list(tried).index(winner.id), context.seed)


def uncorrected(context: SearchContext, winner: Candidate) -> str:
    """Return why the dev score cannot be corrected; "" if it can."""
    trials = context.trials
    if winner.id != context.baseline.id and context.pruned_externally:
        return f"{context.options.strategy} dropped programs by parts of dev, and what that adds is not known"
    better = any((trials.mean(i) or 0.0) > (trials.mean(winner.id) or 0.0) for i in trials.in_state("complete"))
    if better and context.noted[NOT_PROVED]:
        higher = "a prompt that picks its examples scored higher on dev"
        return f"{higher}, and is not shown there to be better than the best with fixed ones"
    return "the best found was chosen by another rule than the best on dev" if better else ""


def pareto(candidates: list[Finalist], winner: Candidate) -> list[ParetoRow]:
    """Return the Pareto front of those that saw all of dev. Latency is only shown, so that a rerun gives the same."""
    seconds = {each.candidate_id: each.latency_s for each in candidates}
    most = max(len(each.scores) for each in candidates)
    whole = [each for each in candidates if len(each.scores) == most or each.candidate_id == winner.id]
    whole = [replace(each, latency_s=None) for each in whole]
    kept = front(whole)
    return [
        ParetoRow(
            candidate_id=each.candidate_id,
            dev=each.mean,
            prompt_tokens=each.prompt_tokens,
            usd_per_1000=None if each.usd is None else 1000 * each.usd,
            latency_s=seconds[each.candidate_id],
            chosen=each.candidate_id == winner.id,
            tokens_a_call=each.tokens_a_call,
        )
        for each in kept + [each for each in whole if each.candidate_id == winner.id and each not in kept]
    ]


OTHER_CAPS = ("max_tokens", "max_cost", "time_limit")


@dataclass(frozen=True, slots=True)
class Lead:
    """The lead of one prompt over another on common dev rows."""

    rows: int
    mean: float
    other: float
    p_value: float

    @property
    def is_significant(self) -> bool:
        return self.p_value < SIGNIFICANT


def lead(one: Scores, other: Scores, seed: int) -> Lead | None:
    """Compare two prompts by dev row in the common order; None without a lead.

    A row that only one has a score for counts as 0; either may have seen fewer rows.

    >>> lead([1.0] * 9, [0.0] * 8, seed=0)
    Lead(rows=8, mean=1.0, other=0.0, p_value=0.0078125)
    """
    both = [(a, b) for a, b in zip(one, other, strict=False) if a is not None or b is not None]
    mine, theirs = [a or 0.0 for a, _ in both], [b or 0.0 for _, b in both]
    if sum(mine) <= sum(theirs) + 1e-9:
        return None
    found = paired_difference(mine, theirs, seed)
    return Lead(len(both), sum(mine) / len(both), sum(theirs) / len(both), found.p_value)


def untested(context: SearchContext, tested: Collection[str]) -> Untested | None:
    """Return the best untested candidate that leads the user's own. Next to a tested one only the unproved."""
    trials, own, unproved = context.trials, context.baseline.id, context.unproved
    ids = [i for i in trials.by_id if i not in tested and i != own]
    if set(tested) - {own}:
        ids = [i for i in ids if i == unproved]
    scores = {i: trials.scores(i) for i in (own, *ids)}
    leads = {i: found for i in ids if (found := lead(scores[i], scores[own], context.seed))}
    if not leads:
        return None
    others = set(trials.in_state("complete")) - {own}

    def rank(candidate_id: str) -> tuple[bool, bool, int, float]:
        found = leads[candidate_id]
        return candidate_id in others, found.is_significant, found.rows, found.mean - found.other

    candidate_id = max(leads, key=rank)
    best = leads[candidate_id]
    is_chance = bool(others) and candidate_id not in others and not best.is_significant
    why, options = _because(context, candidate_id, candidate_id == unproved)
    if options.startswith("--max-calls"):
        budget = context.account.budget
        caps = [f"--{cap.replace('_', '-')} MORE" for cap in OTHER_CAPS if getattr(budget, cap) is not None]
        options = " ".join([options, *caps])
    return Untested(
        candidate_id=candidate_id,
        dev=best.mean,
        baseline=best.other,
        rows=best.rows,
        dev_rows=len(context.dev),
        p_value=best.p_value,
        is_chance=is_chance,
        why=why,
        next="" if is_chance else options,
    )


def _because(context: SearchContext, candidate_id: str, is_unproved: bool) -> tuple[str, str]:
    trial, spent = context.trials.by_id[candidate_id], context.account.total_used.calls
    if trial.state == "failed":
        return f"it failed: {trial.reason}", ""
    if is_unproved:
        why = "it picks its examples and dev does not show it to be better than the best prompt that does not"
        return why, _to_prove(context, candidate_id)
    if trial.state == "complete":
        return f"--prefer {context.options.prefer} takes another prompt within noise of the best", "--prefer best"
    early = f"its trial ended early: {trial.reason}" if trial.state == "pruned" else ""
    calls = calls_to_finish(len(context.trials.outcomes[candidate_id]), spent, context.task, context.plan)
    return early or "the search ended before it had seen all of dev", f"--max-calls {calls}" if calls else ""


def _to_prove(context: SearchContext, candidate_id: str) -> str:
    trials, plan = context.trials, context.plan
    fixed = [i for i in trials.in_state("complete") if not trials.candidate(i).must_prove]
    rival = [o.value or 0.0 for o in trials.outcomes[max(fixed, key=lambda i: trials.mean(i) or 0.0)]]
    mine = [o.value or 0.0 for o in trials.outcomes[candidate_id]]
    gain = (sum(mine) - sum(rival)) / len(rival) if len(mine) == len(rival) else 0.0
    needed, there = rows_to_show(gain, rival) if gain > 0 else None, len(context.task.dev)
    rows = min(there, max(plan.dev_rows + 1, needed or there))
    calls = math.ceil(rows * plan.calls_a_row / DEV_SHARE / 10) * 10
    return f"--max-calls {calls}" if plan.dev_rows < there else ""
