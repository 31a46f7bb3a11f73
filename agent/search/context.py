"""What a strategy is handed: the task, its budget, and the few doors through which it may spend. Knows no SQL.

A strategy is `async def search(context)`. It admits candidates, sees what they do on rows of dev, and leaves the rest
to the run: the winner is the best candidate that saw the whole of dev, and only the run opens the sealed test. It ends
by returning, or by BudgetExhausted, which is an ordinary ending.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from agent.errors import ModelError, RunRefused
from agent.gateway.budget import Account
from agent.gateway.concurrency import all_of
from agent.gateway.gateway import Gateway
from agent.scoring.evaluate import Evaluator, why_unscored
from agent.search.board import Board
from agent.search.costs import CandidateCosts
from agent.search.plan import Plan
from agent.search.program import Program, Proposal
from agent.search.rows import dev_rows
from agent.types import LM, Candidate, Task

UNSCORED_AT_MOST = 0.2  # of a trial's rows; more and the trial fails


class Log(Protocol):
    """Where a strategy's doings are written down."""

    def candidate(self, round_: int, proposal: Proposal, rejected: str) -> None:
        """A candidate of the pool, or one that was refused, with the reason."""
        ...

    def event(self, kind: str, body: Mapping[str, Any], texts: Mapping[str, str] | None = None) -> None:
        """What happened; `texts` are kept apart, so that they can be erased."""
        ...


class SearchContext:
    """One run's search: models, rows and board. `dev` is in the one common order; `rng` follows the seed."""

    def __init__(
        self,
        task: Task,
        plan: Plan,
        seed: int,
        models: tuple[LM, LM | None],
        gateway: Gateway,
        program: Program,
        evaluator: Evaluator,
        board: Board,
        account: Account,
        log: Log,
        tell: Callable[[], None] = lambda: None,
        trials: int | None = None,
    ) -> None:
        self.task, self.plan, self.seed = task, plan, seed
        self.target, self.proposer = models
        self.gateway, self.program, self.evaluator, self.board = gateway, program, evaluator, board
        self.rng = random.Random(f"{seed}/{task.name}")
        self.dev = dev_rows(task, plan.dev_rows, seed)
        self.baseline: Candidate = program.baseline()
        self.stage_name, self.round = "baseline", 0
        self._account, self._log, self._tell, self._trials = account, log, tell, trials
        self.failed = ""
        """Why the strategy came to nothing."""
        self.sifted = False
        """Whether an optimizer dropped candidates by dev rows on which the board never saw them."""
        self.costs = CandidateCosts(plan, account, board, self.baseline.id, self._size)
        self._refused: set[str] = set()

    def admit(self, proposals: Sequence[Proposal]) -> list[str]:
        """Takes candidates into the pool; returns the ids of the new ones.

        Those that break a hard rule are logged with the reason, never repaired.
        """
        admitted = []
        for proposal in proposals:
            candidate = proposal.candidate
            if candidate.id in self.board.proposals or candidate.id in self._refused:
                continue
            rejected = self.program.check(candidate) or self._too_long(candidate)
            if rejected:
                self._log.candidate(self.round, proposal, rejected)
                self._refused.add(candidate.id)
            else:
                self.adopt(proposal)
                admitted.append(candidate.id)
        return admitted

    def _too_long(self, candidate: Candidate) -> str:
        limit, paid = self.task.constraints.max_prompt_tokens, self.costs.longest_prompt()
        if limit is None and paid == math.inf:
            return ""
        size = self.program.prompt_tokens(candidate)
        if limit is not None and size > limit:
            return f"{size} prompt tokens, more than max_prompt_tokens = {limit}"
        if size > paid:
            return f"{size} prompt tokens, the caps on tokens and dollars pay {paid:.0f} on all of dev and test"
        return ""

    def adopt(self, proposal: Proposal) -> None:
        """Takes a candidate into the pool as it is: the user's own prompt need not keep the limits."""
        self._log.candidate(self.round, proposal, "")
        self.board.proposals[proposal.candidate.id] = proposal

    async def see(self, candidates: Sequence[str], rows: int) -> list[str]:
        """Takes candidates to the first `rows` rows of dev, side by side; returns those that live.

        Each gets a trial, if it has none. Every (candidate, row) is bought once. A candidate that fails closes its
        trial. Raises BudgetExhausted when not all rows could be bought; what was bought stays.
        """
        return await self.see_all(dict.fromkeys(candidates, rows))

    async def see_all(self, wanted: Mapping[str, int]) -> list[str]:
        """`see` with a number of rows for each candidate."""
        for candidate_id in wanted:
            if candidate_id not in self.board.trials:
                self.board.open(candidate_id, self.round)
        found = await all_of(self._one(candidate_id, rows) for candidate_id, rows in wanted.items())
        self._tell()
        return [candidate_id for candidate_id in found if candidate_id is not None]

    async def _one(self, candidate_id: str, rows: int) -> str | None:
        try:
            seen = await self.evaluator.outcomes(self.board.candidate(candidate_id), self.dev[:rows], "dev")
        except RunRefused:
            raise
        except ModelError as error:
            self.board.settle(candidate_id, "failed", str(error))
            return None
        self.board.saw(candidate_id, seen)
        unscored = [outcome for outcome in seen if outcome.value is None]
        if len(unscored) > UNSCORED_AT_MOST * len(seen):
            why = f"{len(unscored)} of {len(seen)} rows unscored: {why_unscored(unscored[0])}"
            self.board.settle(candidate_id, "failed", why)
            return None
        if len(seen) == len(self.dev):
            self.board.settle(candidate_id, "complete", "saw the whole of dev")
        else:
            self.board.settle(candidate_id, "incomplete", f"{len(seen)} rows so far")
        return candidate_id

    def left(self) -> int:
        """Calls of the target that the search may still make, each with those of its judges, from every cap; the sealed
        test's share is not among them.

        Cached calls count as if they were paid, and lost attempts do not count: a run that finds its calls in the
        ledger, or loses a few attempts, makes the same trials.
        """
        by_calls = max(0, self._calls(self.plan.slack)) // self.plan.per_row
        return int(min(by_calls, self.costs.affordable() * self.plan.calls_each))

    def left_by_calls(self) -> int:
        """Rows that the search may still see, by the number of calls alone."""
        return max(0, self._calls(self.plan.slack)) // self.plan.calls_a_row

    def payable(self) -> int:
        """`left_by_calls`, or fewer where more attempts are lost than the plan's slack covers."""
        return min(self.left_by_calls(), int(min(self._account.payable(), self.plan.calls)) // self.plan.calls_a_row)

    def spare(self) -> int:
        """Rows that may still be seen when the search is over: the plan's slack, less twice what was lost so far."""
        return int(min(max(0, self._calls(2 * self._account.met)) // self.plan.calls_a_row, self.costs.affordable()))

    def _calls(self, slack: int) -> int:
        """Calls that the plan leaves to the search, less those that it used and `slack`."""
        return self.plan.calls - slack - self.plan.test_calls - self._account.total_used.calls

    def more(self) -> bool:
        """Whether the user asked for more trials than there are."""
        return self._trials is None or len(self.board.trials) < self._trials

    def stage(self, name: str, round_: int) -> None:
        """Says where the search stands; `round_` goes to the candidates and trials that follow."""
        self.stage_name, self.round = name, round_
        self._tell()

    def note(self, kind: str, body: Mapping[str, Any], texts: Mapping[str, str] | None = None) -> None:
        """An event of the ledger; `texts` are kept apart, so that they can be erased."""
        self._log.event(kind, body, texts)

    def _size(self, candidate_id: str) -> int:
        """Tokens of a candidate's prompt with a row of usual length."""
        row = "".join(self.dev[0].inputs.values())
        return self.program.prompt_tokens(self.board.candidate(candidate_id)) + self.target.count_tokens(row)
