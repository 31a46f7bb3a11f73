"""The default strategy: many candidates on few rows, the best of them on more, children of good ones.

    designs -> steps of (promote, make new candidates) -> finalists on the whole of dev

Each step evaluates `batch` candidates: first the promoted candidates, then new ones. `choosing.py` proposes the next
one: a new design at a place that Optuna proposes, or one of the moves of the kind of candidate. Significantly worse
candidates are pruned, and the search stops when no further gain is expected. The decisions are in `decisions.py`.

Few rows flatter the best of many. So at the end the leader climbs rung by rung, and when it falls the next one does,
until the leader has as many rows as all but the last rung asks for; only then is the whole of dev paid for.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence

from agent.search.context import SearchContext
from agent.search.evolve.choosing import TRIES, choosing
from agent.search.evolve.decisions import (
    Ladder,
    PlannedRows,
    Scores,
    clearly_behind,
    close_to_best,
    mean,
    stop_reason,
)
from agent.search.program import Moves, Parent
from agent.search.registered import DEFAULT, WILCOXON, strategy
from agent.search.study import behind_by_wilcoxon
from agent.types import Proposal

ROUNDS = 500


@strategy(
    DEFAULT,
    about="Ours: many candidates on few rows, the best of them on more, changes of good ones.",
    uses_logprobs=True,
    races_baseline=True,
)
async def search(context: SearchContext) -> None:
    """Run the default strategy. Raises BudgetExhausted when a cap ends it early."""
    await Search(context, context.program.moves(context)).run()


async def search_from(context: SearchContext, seeds: Sequence[Proposal]) -> None:
    """Search from the released prompt (trial 0) and `seeds`, prompts of its run, best first.

    The released prompt has no advantage: the whole of dev is for those that survive the race. Raises BudgetExhausted
    when a cap ends it early.
    """
    baseline = context.baseline
    context.stage("the released prompt", 0)
    place = context.program.place(baseline)
    context.adopt(Proposal(baseline, place, "released", None, "the released prompt as it is"))
    limit, demos = context.task.constraints.max_examples, context.program.shown(baseline).n_examples
    if limit is not None and demos > limit:  # this run may have another limit than the one that released it
        context.trials.open(baseline.id, 0)
        context.trials.settle(baseline.id, "failed", f"{demos} examples, more than the {limit} of this run: skipped")
    else:
        await context.see([baseline.id], context.plan.rungs[0])
    await Search(context, context.program.moves(context), seeds).run()


class Search:
    """One run of the strategy over its context. `seeds`: its first candidates. None: designs of the kind."""

    def __init__(self, context: SearchContext, moves: Moves, seeds: Sequence[Proposal] | None = None) -> None:
        self._context, self._trials, self._seeds = context, context.trials, seeds
        self._ladder = Ladder(context.plan.rungs)
        self._moves = moves
        self._choosing = choosing(context, moves)
        self._waiting: deque[str] = deque()
        self._out: set[str] = set()

    async def run(self) -> None:
        context = self._context
        context.stage("designs", 1)
        self._waiting += context.admit(self._moves.designs() if self._seeds is None else self._seeds)
        for step in range(1, ROUNDS):
            if not context.more():
                context.stopped = "the cap on trials was reached"
                break
            context.stage(f"step {step}", step)
            planned = await self._next()
            if not planned:
                context.stopped = "the remaining calls pay for the finalists only"
                break
            wanted = {each.candidate_id: each.rows for each in planned}
            if step == 1:  # nothing before it decides what these are
                with context.gateway.together():
                    await context.see_all(wanted)
            else:
                await context.see_all(wanted)
            self._learn(planned)
            if step == 1 and self._seeds is None:  # few calls are for prompts that are there
                await self._moves.warmed(self._room() // 8)
            if why := self._stop_reason():
                context.stopped = why
                context.note("search_stopped", {"step": step, "why": why})
                break
        context.failed = self._cut()
        await finish(context, self._out)
        self._choosing.learn({})

    async def _next(self) -> list[PlannedRows]:
        """Plan the affordable rows of a step: promotions first, then new candidates."""
        plan, first = self._context.plan, self._context.plan.rungs[0]
        wanted: dict[str, int] = {}  # rows of each that are to be paid
        planned: list[PlannedRows] = []

        def take(each: PlannedRows) -> bool:
            rows = each.rows - len(self._trials.outcomes.get(each.candidate_id, ()))
            if not self._fits({**wanted, each.candidate_id: rows}):
                return False
            wanted[each.candidate_id] = rows
            planned.append(each)
            return True

        for each in self._climbers():
            if len(planned) < plan.batch:
                take(each)
        while len(planned) < plan.batch and sum(wanted.values()) + first <= self._room():
            newest = await self._newest(plan.batch - len(planned))
            if newest is None or not take(PlannedRows(newest, first)):
                break
            self._waiting.popleft()
        return planned

    async def _newest(self, count: int) -> str | None:
        first = self._context.plan.rungs[0]
        for _ in range(TRIES * count):
            if not self._waiting:
                self._waiting += await self._choosing.made(count)
            elif len(self._trials.by_id) > 1 and self._moves.due(self._best()):  # the first designs come before it
                self._waiting.extendleft(reversed(await self._choosing.made(1)))
            if not self._waiting or first > self._room():  # the proposer was paid, too
                return None
            if self._fits({self._waiting[0]: first}):
                return self._waiting[0]
            self._waiting.popleft()
        return None

    def _fits(self, wanted: Mapping[str, int]) -> bool:
        cost = sum(self._context.costs.of_rows(i, rows) for i, rows in wanted.items())
        return sum(wanted.values()) <= self._room() and cost <= self._affordable(wanted)

    def _room(self) -> int:
        """Rows that the finalists leave to the steps.

        The first finalist alone if attempts are lost or dollars are few.
        """
        context = self._context
        of_first = context.payable() - context.plan.last_climb
        return int(min(self._planned_room(), of_first, self._affordable()))

    def _planned_room(self) -> int:
        return self._context.left_by_calls() - self._context.plan.kept_rows

    def _cut(self) -> str:
        least = 2 * self._context.plan.rungs[0]
        planned = min(self._planned_room(), self._affordable())
        if self._room() >= least or planned < least:
            return ""
        return "of the calls under the cap too many brought nothing, or the cap is lower than the plan's"

    def _affordable(self, wanted: Iterable[str] = ()) -> float:
        context = self._context
        if context.costs.affordable() == math.inf:
            return math.inf
        best = [parent.proposal.candidate.id for parent in self._trials.parents(context.plan.finalists)]
        return context.costs.affordable() - context.costs.through_test(*best, *wanted)

    def _climbers(self) -> list[PlannedRows]:
        trials, rungs = self._trials, self._context.plan.rungs
        alive = {i: trials.evidence(i) for i, trial in trials.by_id.items() if trial.state != "failed"}
        rows = {i: len(trials.outcomes.get(i, ())) for i in alive}
        planned = self._ladder.promotions(alive, self._out, rows)
        far = [i for i in alive if rungs[-2:][0] <= rows[i] < rungs[-1] and trials.mean(i) == 1.0]
        flawless = [each for each in (PlannedRows(i, rungs[-1]) for i in far[:1]) if each not in planned]
        return [*flawless, *self._rival(), *planned]  # a flawless candidate may end the search

    def _rival(self) -> list[PlannedRows]:
        trials, rungs = self._trials, self._context.plan.rungs
        best = [i for i in trials.ranked() if i not in {*self._out, self._context.baseline.id}]
        rival = rival_of(self._context, best)
        if not rival or not trials.candidate(best[0]).must_prove:
            return []
        has, goal = (len(trials.outcomes[i]) for i in (rival, best[0]))
        above = [rung for rung in rungs[:-1] if has < rung <= goal]
        return [PlannedRows(rival, above[0])] if above else []

    def _best(self) -> Parent | None:
        return next(iter(self._trials.parents(1)), None)

    def _learn(self, planned: Sequence[PlannedRows]) -> None:
        climbing = {each.candidate_id for each in self._climbers()}
        new = [each.candidate_id for each in planned if each.rows == self._context.plan.rungs[0]]
        scores = self._trials.compared()
        race = behind_by_wilcoxon if self._context.pruner == WILCOXON else clearly_behind
        for candidate_id, why in race(scores, self._context.plan.rungs).items():
            if self._trials.by_id[candidate_id].state == "incomplete":
                self._out.add(candidate_id)
                self._trials.settle(candidate_id, "pruned", why)
        self._choosing.learn({candidate_id: candidate_id in climbing for candidate_id in new})

    def _stop_reason(self) -> str:
        plan, trials = self._context.plan, self._trials
        scores = {i: score for i, score in trials.estimates().items() if score.n}
        full = [i for i in trials.in_state("complete") if i in scores]
        leader = max(full, key=lambda i: scores[i].mean, default="")
        others = [score for i, score in scores.items() if i != leader]
        best, plain = scores[leader].mean if leader else 0.0, max((trials.mean(i) or 0.0 for i in full), default=0.0)
        return stop_reason(others, best, self._room() // (2 * plan.rungs[0]), plan.dev_rows, plain)


async def finish(context: SearchContext, out: Collection[str]) -> None:
    """Score the finalists on the whole of dev and close every trial. `out`: those clearly behind."""
    trials = context.trials
    context.stage("finalists", context.round)
    low = await _climb(context, out)
    unpaid = set[str]()
    for place, candidate_id in enumerate([*finalists(context, {*out, *low}), *low]):
        rows = context.plan.dev_rows - len(trials.outcomes[candidate_id])
        if not rows:
            continue
        is_affordable = context.costs.through_test(candidate_id) <= context.costs.affordable()
        if is_affordable and rows <= _for(place, context):
            await context.see([candidate_id], context.plan.dev_rows)
        else:
            unpaid.add(candidate_id)  # a cheaper one may be paid
    for candidate_id, trial in list(trials.by_id.items()):
        if trial.state == "incomplete":
            why = "the budget did not pay the rest of dev" if candidate_id in unpaid else "not among the best"
            trials.settle(candidate_id, "pruned", f"{why} after {len(trials.outcomes.get(candidate_id, ()))} rows")
    if unpaid and not context.failed and not set(trials.in_state("complete")) - {context.baseline.id}:
        context.failed = "what was left did not pay any of the best on all of dev"


async def _climb(context: SearchContext, out: Collection[str]) -> list[str]:
    """Promote the leader to the last rung but one.

    Return leaders that could not be paid. Keeps the calls from there to the whole of dev, and those of its rival.
    """
    plan, low = context.plan, list[str]()
    while True:
        best = [i for i in context.trials.ranked() if i not in {*out, *low, context.baseline.id}]
        rows = {i: len(context.trials.outcomes[i]) for i in best}
        if not best:  # none can climb that far
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
    """Return the best without picked examples if the leader has some (`selection.chosen`), or the second."""
    picks = {i: context.trials.candidate(i).must_prove for i in best}
    return next((i for i in best[1:] if not (picks[i] and picks[best[0]])), "")


def _for(place: int, context: SearchContext) -> int:
    """Beyond the planned finalists, some rows are left for `ablate`."""
    payable, whole = context.payable(), context.plan.dev_rows
    return payable - whole if place >= context.plan.finalists and payable >= whole else payable


def finalists(context: SearchContext, out: Collection[str]) -> list[str]:
    """Return the candidates close to the best, in the order of payment.

    The user's own prompt is among them if it is indistinguishable from the best: before the others if the rows so far
    prefer it. Else those rows are enough.
    """
    trials, baseline = context.trials, context.baseline.id
    compared = trials.compared()
    scores = {i: compared[i] for i in trials.ranked() if i not in out}
    others = {i: row for i, row in scores.items() if i != baseline}
    if not others:
        return []
    order = _ordered(context, others)
    if baseline not in scores:
        return order
    first = next((row for row in others.values() if len(row) >= len(scores[baseline])), others[order[0]])
    if len(close_to_best({"": first, baseline: scores[baseline]}, context.seed)) == 2:
        is_ahead = mean(scores[baseline][: len(first)]) >= mean(first[: len(scores[baseline])])
        order.insert(1 if is_ahead else len(order), baseline)
    return order


def _ordered(context: SearchContext, scores: Mapping[str, Scores]) -> list[str]:
    close = close_to_best(scores, context.seed)
    picks = {i for i in scores if context.trials.candidate(i).must_prove}
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
    """Order finalists so that a prompt with picked examples meets its rival in time.

    The best without picked examples, which those with must beat (`selection.chosen`), comes second, or first if one
    with has seen all of dev or both cannot be paid. The user's own prompt is no rival.
    """
    picks = {i for i in best if context.trials.candidate(i).must_prove}
    if not picks:
        return list(best)
    left = {i: context.plan.dev_rows - len(context.trials.outcomes.get(i, ())) for i in best}
    order = [i for i in best if i != context.baseline.id]
    rival = next((i for i in order if i not in picks), "")
    first, *later = [i for i in order if left[i]] or [""]
    if rival not in later:
        return order
    is_second = picks <= {first, *later} and left[first] + left[rival] <= context.payable()
    place = order.index(first) + is_second
    return [*order[:place], rival, *(i for i in order[place:] if i != rival)]
