"""The default strategy: many candidates on few rows, the best of them on more, children of good ones.

    designs -> steps of (promote, make new candidates) -> finalists on the whole of dev

Significantly worse candidates are pruned, and the search stops when no further gain is expected (`decisions.py`). Few
rows flatter the best of many: so at the end the leader climbs rung by rung, and when it falls the next one does; only
then is the whole of dev paid for.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext

from agent.search.context import SearchContext
from agent.search.evolve import decisions
from agent.search.evolve.choosing import TRIES, ByBandit, ByStudy
from agent.search.evolve.decisions import PlannedRows, Scores, close_to_best, mean
from agent.search.program import Moves, Parent
from agent.search.registered import BANDIT, DEFAULT, WILCOXON, strategy
from agent.types import Proposal

ROUNDS = 500


@strategy(
    DEFAULT,
    about="Ours: many candidates on few rows, the best of them on more, changes of good ones.",
    uses_logprobs=True,
    races_baseline=True,
)
async def search(context: SearchContext) -> None:
    await Search(context, context.program.moves(context)).run()


async def search_from(context: SearchContext, seeds: Sequence[Proposal]) -> None:
    """Search from the released prompt (trial 0) and prompts of its run, best first."""
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
    """One run of the strategy. `seeds`: its first candidates; None: designs of the kind."""

    def __init__(self, context: SearchContext, moves: Moves, seeds: Sequence[Proposal] | None = None) -> None:
        self._context, self._trials, self._seeds = context, context.trials, seeds
        self._moves = moves
        self._choosing = (ByBandit if context.options.sampler == BANDIT else ByStudy)(context, moves)
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
            # nothing before the first step decides what it asks, so its calls may go out together
            with context.gateway.together() if step == 1 else nullcontext():
                await context.see_all(dict(planned))
            self._learn(planned)
            if step == 1 and self._seeds is None:  # few calls are for prompts that are there
                await self._moves.warmed(self._room() // 8)
            if why := self._stop_reason():
                context.stopped = why
                context.note("search_stopped", {"step": step, "why": why})
                break
        context.failed = self._cut() or self._untried()
        await finish(context, self._out)
        self._choosing.learn({})

    async def _next(self) -> list[PlannedRows]:
        plan, first = self._context.plan, self._context.plan.rungs[0]
        wanted: dict[str, int] = {}  # rows of each that are to be paid
        planned: list[PlannedRows] = []

        def take(candidate_id: str, goal: int) -> bool:
            rows = goal - len(self._trials.outcomes.get(candidate_id, ()))
            if not self._fits({**wanted, candidate_id: rows}):
                return False
            wanted[candidate_id] = rows
            planned.append((candidate_id, goal))
            return True

        for each in self._climbers():
            if len(planned) < plan.batch:
                take(*each)
        while len(planned) < plan.batch and sum(wanted.values()) + first <= self._room():
            newest = await self._newest(plan.batch - len(planned))
            if newest is None or not take(newest, first):
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
        """Return the rows that the finalists leave to the steps. The first alone if calls or dollars are few."""
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

    def _untried(self) -> str:
        context = self._context
        has_asked = context.proposer is None or context.proposal_log.calls > 0
        if set(self._trials.by_id) - {context.baseline.id} or (self._room() >= context.plan.rungs[0] and has_asked):
            return ""
        calls = context.plan.calls_a_row
        takes = f"a row takes about {calls} calls; " if calls > 1 else ""
        return f"{takes}what the baseline and the sealed test leave paid no trial; give more calls (--max-calls)"

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
        planned = decisions.promotions(rungs, alive, self._out, rows)
        far = [i for i in alive if rungs[-2:][0] <= rows[i] < rungs[-1] and trials.mean(i) == 1.0]
        first = [(i, rungs[-1]) for i in far[:1] if (i, rungs[-1]) not in planned]  # a flawless one may end the search
        best = [i for i in trials.ranked() if i not in {*self._out, self._context.baseline.id}]
        rival = rival_of(self._context, best)
        if rival and trials.candidate(best[0]).must_prove:
            has, goal = (len(trials.outcomes[i]) for i in (rival, best[0]))
            first += [(rival, rung) for rung in rungs[:-1] if has < rung <= goal][:1]
        return [*first, *planned]

    def _best(self) -> Parent | None:
        return next(iter(self._trials.parents(1)), None)

    def _learn(self, planned: Sequence[PlannedRows]) -> None:
        climbing = {candidate_id for candidate_id, _ in self._climbers()}
        new = [candidate_id for candidate_id, rows in planned if rows == self._context.plan.rungs[0]]
        scores = self._trials.compared()
        race = decisions.clearly_behind
        if self._context.options.pruner == WILCOXON:
            from agent.search.samplers import behind_by_wilcoxon

            race = behind_by_wilcoxon
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
        return decisions.stop_reason(others, best, self._room() // (2 * plan.rungs[0]), plan.dev_rows, plain)


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
    """Promote the leader to the last rung but one. Return leaders that could not be paid."""
    plan, low = context.plan, list[str]()
    while True:
        best = [i for i in context.trials.ranked() if i not in {*out, *low, context.baseline.id}]
        rows = {i: len(context.trials.outcomes[i]) for i in best}
        if not best:  # none can climb that far
            return []
        if rows[best[0]] >= plan.rungs[-2:][0]:
            return low
        rung = next(rung for rung in plan.rungs if rung > rows[best[0]])
        must_prove = plan.finalists > 1 and context.trials.candidate(best[0]).must_prove
        rival = rival_of(context, best) if must_prove else ""  # no other leader gives way to one that is worse
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
    # beyond the planned finalists, some rows are left for `ablate`
    payable, whole = context.payable(), context.plan.dev_rows
    return payable - whole if place >= context.plan.finalists and payable >= whole else payable


def finalists(context: SearchContext, out: Collection[str]) -> list[str]:
    """Return the candidates close to the best, in the order of payment.

    The user's own prompt is among them if it is indistinguishable from the best: second if the rows so far favour it.
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

    The best without picked examples, never the user's own, comes second, or first if one with them has seen all of dev
    or both cannot be paid.
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
