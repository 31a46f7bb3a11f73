"""The candidate that leads the user's own prompt on dev and does not go to the sealed test, and why not."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from agent.search.context import SearchContext
from agent.search.pareto import Prefer
from agent.search.plan import DEV_SHARE, calls_to_finish
from agent.stats.intervals import paired_difference
from agent.stats.preflight import rows_to_show
from agent.types import Budget

SIGNIFICANT = 0.05
OTHER_CAPS = ("max_tokens", "max_cost", "time_limit")
Scores = Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Lead:
    """How far one prompt is ahead of another on the dev rows that both saw: their means, and the paired p-value."""

    rows: int
    mean: float
    other: float
    p_value: float

    @property
    def is_significant(self) -> bool:
        return self.p_value < SIGNIFICANT


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A candidate that leads the user's own prompt on dev and is not tested.

    `is_chance`: whether chance explains the lead: it saw a part of dev, and no candidate that saw all of dev leads.
    `why`: follows "because". `options`: those with which a run may test it; "": none is known.
    """

    candidate_id: str
    lead: Lead
    is_chance: bool
    why: str
    options: str


def lead(one: Scores, other: Scores, seed: int) -> Lead | None:
    """The lead of one prompt over another, by dev row in the common order; None where it has none.

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


def untested(context: SearchContext, tested: Collection[str], how: Prefer, budget: Budget) -> LeftOut | None:
    """Find the best candidate that leads the user's own prompt on dev and is not tested.

    Where another candidate is `tested`, only the one that it replaced (`context.unproved`) counts. `how`: the user's
    preference.
    """
    board, own, unproved = context.board, context.baseline.id, context.unproved
    ids = [i for i in board.trials if i not in tested and i != own]
    if set(tested) - {own}:
        ids = [i for i in ids if i == unproved]
    scores = {i: [outcome.value for outcome in board.outcomes.get(i, ())] for i in (own, *ids)}
    leads = [(i, found) for i in ids if (found := lead(scores[i], scores[own], context.seed))]
    if not leads:
        return None

    def rank(pair: tuple[str, Lead]) -> tuple[bool, bool, int, float]:
        is_whole = board.trials[pair[0]].state == "complete"
        return is_whole, pair[1].is_significant, pair[1].rows, pair[1].mean - pair[1].other

    candidate_id, best = max(leads, key=rank)
    others = set(board.in_state("complete")) - {own}
    is_whole = candidate_id in others
    is_chance = bool(others) and not is_whole and not best.is_significant
    why, options = _because(context, candidate_id, how, candidate_id == unproved)
    if options.startswith("--max-calls"):
        caps = [f"--{cap.replace('_', '-')} MORE" for cap in OTHER_CAPS if getattr(budget, cap) is not None]
        options = " ".join([options, *caps])
    return LeftOut(candidate_id, best, is_chance, why, "" if is_chance else options)


def _because(context: SearchContext, candidate_id: str, how: Prefer, is_unproved: bool) -> tuple[str, str]:
    """Why a candidate is not tested, and the option of a run that may test it, or ""."""
    trial = context.board.trials[candidate_id]
    if trial.state == "failed":
        return f"it failed: {trial.reason}", ""
    if is_unproved:
        why = "it picks its examples and dev does not show it to be better than the best prompt that does not"
        return why, _to_prove(context, candidate_id)
    if trial.state == "complete":
        return f"--prefer {how} takes another prompt within noise of the best", "--prefer best"
    why = "the search ended before it had seen all of dev"
    if trial.state == "pruned":
        why = f"its trial ended early: {trial.reason}"
    spent = context.calls_so_far()
    calls = calls_to_finish(len(context.board.outcomes[candidate_id]), spent, context.task, context.plan)
    return why, f"--max-calls {calls}" if calls else ""


def _to_prove(context: SearchContext, candidate_id: str) -> str:
    """The calls of a plan with as many dev rows as show the lead over the best that does not pick; "" without rows."""
    board, picks, plan = context.board, context.program.picks, context.plan
    fixed = [i for i in board.in_state("complete") if not picks(board.candidate(i))]
    rival = [o.value or 0.0 for o in board.outcomes[max(fixed, key=lambda i: board.mean(i) or 0.0)]]
    mine = [o.value or 0.0 for o in board.outcomes[candidate_id]]
    gain = (sum(mine) - sum(rival)) / len(rival) if len(mine) == len(rival) else 0.0
    needed = rows_to_show(gain, rival) if gain > 0 else None
    there = len(context.task.dev)
    if plan.dev_rows >= there:
        return ""
    rows = min(there, max(plan.dev_rows + 1, needed or there))
    return f"--max-calls {math.ceil(rows * plan.calls_a_row / DEV_SHARE / 10) * 10}"
