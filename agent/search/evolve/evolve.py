"""The default strategy: many candidates on few rows, the best of them on more, children of those that did well.

    designs -> steps of (climb the ladder, make new candidates) -> finalists on the whole of dev

Each step takes `batch` pulls: first the candidates that have earned the next rung, then new ones. A bandit says which
operator makes the next one: a new design at a place that TPE proposes (`study.py`), or one of the moves of the kind of
candidate. What is significantly worse is pruned, and the search stops where nothing more is to be expected. The
decisions are in `decisions.py`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from agent.search.context import SearchContext
from agent.search.evolve.decisions import Bandit, Ladder, Pull, clearly_behind, stop_reason, with_rival
from agent.search.program import Moves, Parent
from agent.search.registered import DEFAULT, strategy
from agent.search.study import MeanScore, Study, shrunk
from agent.types import FRESH, Proposal, content_id

PARENTS = 6
TRIES = 4  # to make one new candidate, before a step goes on with fewer
ROUNDS = 500


@strategy(
    DEFAULT,
    about="Ours: many candidates on few rows, the best of them on more, changes of those that did well.",
    uses_logprobs=True,
)
async def search(context: SearchContext) -> None:
    """The default strategy. Raises BudgetExhausted when a cap ends it early."""
    await Search(context, context.program.moves(context)).run()


class Search:
    """One run of the strategy over its context."""

    def __init__(self, context: SearchContext, moves: Moves) -> None:
        self._context, self._board = context, context.board
        self._ladder = Ladder(context.plan.rungs)
        self._moves = moves
        self._bandit = Bandit()
        self._waiting: deque[str] = deque()
        self._out: set[str] = set()

    async def run(self) -> None:
        """The whole search."""
        context = self._context
        context.stage("designs", 1)
        self._waiting += context.admit(self._moves.designs())
        for step in range(1, ROUNDS):
            if not context.more():
                context.stopped = "the cap on trials was reached"
                break
            context.stage(f"step {step}", step)
            pulls = await self._next()
            if not pulls:
                context.stopped = "what was left paid for no further prompt beside the finalists"
                break
            wanted = {pull.candidate_id: pull.rows for pull in pulls}
            if step == 1:  # nothing before it decides what these are
                with context.gateway.together():
                    await context.see_all(wanted)
            else:
                await context.see_all(wanted)
            self._learn(pulls)
            if step == 1:
                await self._moves.warmed(self._room() // 8)
            if why := self._stop_reason():
                context.stopped = why
                context.note("search_stopped", {"step": step, "why": why})
                break
        context.failed = self._cut()
        await self._finish()

    async def _next(self) -> list[Pull]:
        """The pulls of a step that can still be paid: climbers first, then new candidates."""
        plan, first = self._context.plan, self._context.plan.rungs[0]
        wanted: dict[str, int] = {}  # rows of each that are to be paid
        pulls: list[Pull] = []

        def take(pull: Pull) -> bool:
            rows = pull.rows - len(self._board.outcomes.get(pull.candidate_id, ()))
            if not self._fits({**wanted, pull.candidate_id: rows}):
                return False
            wanted[pull.candidate_id] = rows
            pulls.append(pull)
            return True

        for pull in self._climbers():
            if len(pulls) < plan.batch:
                take(pull)
        while len(pulls) < plan.batch and sum(wanted.values()) + first <= self._room():
            newest = await self._newest(plan.batch - len(pulls))
            if newest is None or not take(Pull(newest, first)):
                break
            self._waiting.popleft()
        return pulls

    async def _newest(self, count: int) -> str | None:
        """The first waiting candidate that can be paid; the caps on tokens and dollars drop those before it."""
        first = self._context.plan.rungs[0]
        for _ in range(TRIES * count):
            if not self._waiting:
                self._waiting += await self._new_candidates(count)
            if not self._waiting or first > self._room():  # the proposer was paid, too
                return None
            if self._fits({self._waiting[0]: first}):
                return self._waiting[0]
            self._waiting.popleft()
        return None

    def _fits(self, wanted: Mapping[str, int]) -> bool:
        """Whether so many rows of these candidates can be paid beside the finalists."""
        cost = sum(self._context.costs.of_rows(i, rows) for i, rows in wanted.items())
        return sum(wanted.values()) <= self._room() and cost <= self._affordable(wanted)

    def _room(self) -> int:
        """Rows that the finalists leave to the steps; the first of them, where attempts are lost or dollars are few."""
        context, plan = self._context, self._context.plan
        of_first = plan.final_rows // plan.finalists
        return int(min(context.left_by_calls() - plan.final_rows, context.payable() - of_first, self._affordable()))

    def _cut(self) -> str:
        """Why the steps end before the plan's calls do, or ""."""
        context, plan, least = self._context, self._context.plan, 2 * self._context.plan.rungs[0]
        planned = min(context.left_by_calls() - plan.final_rows, self._affordable())
        if self._room() >= least or planned < least:
            return ""
        return "of the calls under the cap too many brought nothing, or the cap is lower than the plan's"

    def _affordable(self, wanted: Iterable[str] = ()) -> float:
        """What the first finalist leaves of what is affordable, if it is the dearest of the best and of `wanted`."""
        context = self._context
        if context.costs.affordable() == math.inf:
            return math.inf
        best = [parent.proposal.candidate.id for parent in self._board.parents(context.plan.finalists)]
        return context.costs.affordable() - context.costs.through_test(*best, *wanted)

    def _climbers(self) -> list[Pull]:
        board = self._board
        alive = {i: board.evidence(i) for i, trial in board.trials.items() if trial.state != "failed"}
        rows = {i: len(board.outcomes.get(i, ())) for i in alive}
        return self._ladder.promotions(alive, self._out, rows)

    async def _new_candidates(self, count: int) -> list[str]:
        """About `count` new candidates, each by the operator that the bandit draws; a proposal may give two."""
        context, made = self._context, list[str]()
        parents = self._board.parents(PARENTS)
        seed = int(content_id("s", [context.seed, context.round])[2:], 16)
        study = Study(self._moves.space(), self._scored_designs(), seed)
        for _ in range(TRIES * count):
            if len(made) >= count:
                break
            made += context.admit(await self._one(study, parents))
        return made

    async def _one(self, study: Study, parents: Sequence[Parent]) -> list[Proposal]:
        context, moves = self._context, self._moves
        parent = self._drawn(parents)
        operator = moves.due(parent) or self._bandit.draw([FRESH, *moves.operators(parent)], context.rng)
        if operator != FRESH:
            return await moves.made(operator, parent, parents)
        proposal = moves.fresh(study.ask())
        if proposal is None or proposal.candidate.id in self._board.proposals:
            study.refuse()
        return [proposal] if proposal is not None else []

    def _drawn(self, parents: Sequence[Parent]) -> Parent | None:
        """One of the parents, the better ones more often (Thompson draws from a Beta belief about each)."""
        if not parents:
            return None
        rng = self._context.rng

        def draw(parent: Parent) -> float:
            score = self._board.estimate(parent.proposal.candidate.id)
            return rng.betavariate(1.0 + score.mean * score.n, 1.0 + (1.0 - score.mean) * score.n)

        return max(parents, key=draw)

    def _scored_designs(self) -> list[tuple[dict[str, str], MeanScore]]:
        """The designs that were scored, by place: children are left out, as they owe their score to their parents."""
        designs, coordinates = [], set(self._moves.space())
        for candidate_id, score in self._board.estimates().items():
            proposal = self._board.proposals[candidate_id]
            if proposal.parent_id is None and coordinates <= set(proposal.place):
                designs.append((dict(proposal.place), score))
        return designs

    def _learn(self, pulls: Sequence[Pull]) -> None:
        """Updates the bandit by which new candidates climb, and prunes those that are clearly behind."""
        climbing = {pull.candidate_id for pull in self._climbers()}
        for pull in pulls:
            if pull.rows == self._context.plan.rungs[0]:
                self._bandit.update(self._board.proposals[pull.candidate_id].credit, pull.candidate_id in climbing)
        scores = {i: [o.value for o in outcomes] for i, outcomes in self._board.outcomes.items()}
        for candidate_id, why in clearly_behind(scores, self._context.plan.rungs).items():
            if self._board.trials[candidate_id].state == "incomplete":
                self._out.add(candidate_id)
                self._board.settle(candidate_id, "pruned", why)

    def _stop_reason(self) -> str:
        """Why going on is not worth a call, or ""."""
        plan, board = self._context.plan, self._board
        scores = {i: score for i, score in board.estimates().items() if score.n}
        full = [i for i in board.in_state("complete") if i in scores]
        leader = max(full, key=lambda i: scores[i].mean, default="")
        others = [score for i, score in scores.items() if i != leader]
        best, plain = scores[leader].mean if leader else 0.0, max((board.mean(i) or 0.0 for i in full), default=0.0)
        return stop_reason(others, best, self._room() // (2 * plan.rungs[0]), plan.dev_rows, plain)

    async def _finish(self) -> None:
        """Scores the best few on the whole of dev, one after the other for as long as they can be paid."""
        context, board = self._context, self._board
        context.stage("finalists", context.round)
        scores = {i: score for i, score in board.estimates().items() if score.n}
        prior = sum(score.mean for score in scores.values()) / max(1, len(scores))
        alive = [i for i in scores if board.trials[i].state != "failed" and i not in self._out]
        unpaid, finalists = set(), 0
        for candidate_id in self._with_rival(sorted(alive, key=lambda i: -shrunk(scores[i], prior))):
            rows = context.plan.dev_rows - len(board.outcomes[candidate_id])
            if not rows:
                continue
            if context.costs.through_test(candidate_id) > context.costs.affordable():  # a cheaper one may be paid
                unpaid.add(candidate_id)
                continue
            finalists += 1
            if finalists > context.plan.finalists:
                break
            if rows <= context.payable():
                await context.see([candidate_id], context.plan.dev_rows)
            else:
                unpaid.add(candidate_id)
        for candidate_id, trial in list(board.trials.items()):
            if trial.state == "incomplete":
                why = "what was left did not pay the rest of dev" if candidate_id in unpaid else "not among the best"
                board.settle(candidate_id, "pruned", f"{why} after {len(board.outcomes.get(candidate_id, ()))} rows")
        if unpaid and len(board.in_state("complete")) == 1:  # the baseline
            context.failed = "what was left did not pay any of the best on all of dev"

    def _with_rival(self, best: list[str]) -> list[str]:
        """The order of the finalists, with a rival for those with picked examples."""
        context, board = self._context, self._board
        with_picks = {i for i in best if context.program.picks(board.candidate(i))}
        if not with_picks or context.plan.finalists < 2:
            return best
        left = {i: context.plan.dev_rows - len(board.outcomes.get(i, ())) for i in best if i != context.baseline.id}
        return with_rival(left, with_picks, context.payable())
