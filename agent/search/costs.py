"""What candidates cost of a run's caps on tokens and dollars, measured by its calls so far.

The unit is a row at the mean cost so far. Without such caps everything is affordable.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from agent.gateway.budget import Account
from agent.search.board import Board
from agent.search.call_costs import Cap
from agent.search.plan import Plan
from agent.types import Spend

MARGIN = 1.08  # for rows that are longer than those so far
FEWEST_MEASURED = 4  # calls
RESERVED = 3  # rows: the last call is reserved at its most tokens, by an upper estimate
LONGEST_SHARE = 0.75  # of a cap on tokens or dollars: what the longest prompt may take on all of dev and test


class CandidateCosts:
    """The costs of one run's candidates, in rows.

    `size`: the tokens of a candidate's prompt with a usual row. `varies`: whether a candidate's examples or passages
    are picked for each row: its calls share no long beginning, so providers have less of it in their caches.
    """

    def __init__(
        self,
        plan: Plan,
        account: Account,
        board: Board,
        baseline_id: str,
        size: Callable[[str], int],
        varies: Callable[[str], bool] = lambda candidate_id: False,
    ) -> None:
        self._plan, self._account, self._board = plan, account, board
        self._baseline_id, self._size_of, self._varies = baseline_id, size, varies
        self._caps = Cap.all(account.budget)
        self._sizes: dict[str, int] = {}
        self._mean, self._mean_at = 0.0, 0

    def affordable(self) -> float:
        """Rows that the search's part of the caps still pays; inf without caps."""
        return max(0.0, self._rows_for(lambda cap, spent: cap * (1 - self._plan.test_share) - spent))

    def of_rows(self, candidate_id: str, rows: int) -> float:
        """What `rows` rows of a candidate cost: as many, or more where its prompt is longer than those so far."""
        return rows * max(1.0, self._relative(candidate_id))

    def through_test(self, *candidate_ids: str) -> float:
        """The cost of a candidate on the rest of dev; of several the highest.

        Includes the sealed test of the baseline and the dearest possible winner where that exceeds what is kept for it.
        """
        prompts = self._plan.tested
        tested = self._plan.test_calls // prompts // self._plan.calls_a_row
        dearest_won = max(map(self._relative, self._board.in_state("complete")), default=0.0)
        own = self._relative(self._baseline_id)
        kept = self._rows_for(lambda cap, spent: cap * self._plan.test_share)

        def one(candidate_id: str) -> float:
            rows = self._plan.dev_rows - len(self._board.outcomes.get(candidate_id, ()))
            dearest = max(dearest_won, self._relative(candidate_id))
            test = MARGIN * tested * (max(1, prompts - 1) * dearest + (own if prompts > 1 else 0.0))
            return MARGIN * self.of_rows(candidate_id, rows + RESERVED) + max(0.0, test - kept)

        return max(map(one, candidate_ids), default=0.0)

    def longest_prompt(self) -> float:
        """The most counted tokens of a prompt that the caps pay on all of dev and test; inf without caps.

        The plan's limit is in paid tokens. Those of hosted models are counted by an upper estimate, which the calls so
        far correct, with room for what else a run pays.
        """
        longest, used, counted = self._plan.longest_prompt, self._account.total_used, self._mean_size()
        if longest is None:
            return math.inf
        if not used.calls or not counted:
            return longest
        return longest / min(1.0, used.tokens / used.calls / counted / LONGEST_SHARE)

    def _rows_for(self, money: Callable[[float, float], float]) -> float:
        """Rows that `money` of a cap, and of what is spent of it, pays at the mean cost so far; inf without a cap."""
        used = self._account.total_used
        calls = [money(cap.size, spent) * used.calls / spent for cap in self._caps if (spent := cap.of(used))]
        return min(calls) / self._plan.calls_a_row if calls else math.inf

    def _relative(self, candidate_id: str) -> float:
        """The cost of a candidate's row, measured or else by the length of its prompt; 1: the mean so far.

        A row of any candidate costs the same for the judges.
        """
        target, mean_size = self._account.used.get("model", Spend()), self._mean_size()
        if self.affordable() == math.inf or not mean_size or not target.calls:
            return 1.0
        used, judge = self._account.total_used, self._account.used.get("judge", Spend())
        own, longer = self._account.used_for.get(candidate_id, Spend()), 1.0
        if own.calls < FEWEST_MEASURED:
            own, usual = self._usual(candidate_id) or (target, mean_size)
            longer = self._size(candidate_id) / usual
        return max(
            (longer * cap.of(own) / own.calls + cap.of(judge) / target.calls)
            / (cap.of(used) / used.calls * self._plan.per_row)
            for cap in self._caps
            if cap.of(used)
        )

    def _usual(self, candidate_id: str) -> tuple[Spend, float] | None:
        """Spending and mean size of the candidates that pick, for one that picks, too; None where not known."""
        if not self._varies(candidate_id):
            return None
        alike = [i for i in self._board.outcomes if self._varies(i)]
        spent = sum((self._account.used_for.get(i, Spend()) for i in alike), Spend())
        rows = {i: len(self._board.outcomes[i]) for i in alike}
        if spent.calls < FEWEST_MEASURED or not any(rows.values()):
            return None
        return spent, sum(self._size(i) * n for i, n in rows.items()) / sum(rows.values())

    def _mean_size(self) -> float:
        """The mean of `_size` over the rows so far; 0 before."""
        if self._mean_at != self._board.looks:
            rows = {i: len(outcomes) for i, outcomes in self._board.outcomes.items()}
            self._mean = sum(self._size(i) * n for i, n in rows.items()) / max(1, sum(rows.values()))
            self._mean_at = self._board.looks
        return self._mean

    def _size(self, candidate_id: str) -> int:
        if candidate_id not in self._sizes:
            self._sizes[candidate_id] = self._size_of(candidate_id)
        return self._sizes[candidate_id]
