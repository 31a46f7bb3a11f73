"""The preflight plan: how many rows, trials and calls a budget buys, and which gain they can show. Pure arithmetic."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from agent.errors import BudgetRefused
from agent.types import Budget, Task

Effort = Literal["quick", "standard", "thorough"]

EFFORT_CALLS: dict[Effort, int] = {"quick": 500, "standard": 1200, "thorough": 4000}
TEST_SHARE = 0.35  # of all calls, at most, for the sealed test of baseline and winner
DEV_SHARE = 0.12  # of all calls, at most, for one candidate on the whole of dev
FEWEST_ROWS = 10
NOISE_ROWS = 10
FINALISTS = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """All in model calls. `rungs` are row counts of the race within a round; a round tries `batch` candidates."""

    calls: int
    dev_rows: int
    test_rows: int
    noise_rows: int
    batch: int
    rungs: tuple[int, ...]
    finalists: int
    proposals: int

    @property
    def baseline_calls(self) -> int:
        return self.dev_rows + self.noise_rows

    @property
    def test_calls(self) -> int:
        return 2 * self.test_rows

    @property
    def final_calls(self) -> int:
        """Calls that take the finalists from the last rung to the whole of dev."""
        return self.finalists * (self.dev_rows - self.rungs[-1])

    @property
    def round_calls(self) -> int:
        keep = survivors(self.batch)
        return self.batch * self.rungs[0] + keep * (self.rungs[-1] - self.rungs[0]) + self.proposals

    @property
    def rounds(self) -> int:
        left = self.calls - self.baseline_calls - self.test_calls - self.final_calls
        return max(0, left // self.round_calls)

    def as_dict(self) -> dict[str, Any]:
        extra = {
            "baseline_calls": self.baseline_calls,
            "test_calls": self.test_calls,
            "final_calls": self.final_calls,
            "round_calls": self.round_calls,
            "rounds": self.rounds,
        }
        return {**asdict(self), **extra}


def survivors(batch: int) -> int:
    """How many of a round's candidates see the second rung."""
    return max(2, (batch * 2) // 5)


def make_plan(task: Task, budget: Budget, effort: Effort, has_proposer: bool) -> Plan:
    """Splits the calls. Raises BudgetRefused when baseline and winner cannot even be compared on a few rows."""
    calls = budget.max_calls if budget.max_calls is not None else EFFORT_CALLS[effort]
    test_rows = min(len(task.test), int(calls * TEST_SHARE / 2))
    dev_rows = min(len(task.dev), int(calls * DEV_SHARE))
    noise = NOISE_ROWS if calls >= 300 else 0
    if min(test_rows, dev_rows) < min(FEWEST_ROWS, len(task.dev), len(task.test)):
        needed = int(FEWEST_ROWS / DEV_SHARE) + 1
        raise BudgetRefused(
            f"max_calls = {calls} is too few to compare two prompts on this task; give at least {needed}"
        )
    first = min(16, dev_rows, max(4, dev_rows // 5))
    second = min(dev_rows, max(first, 40))
    plan = Plan(
        calls=calls,
        dev_rows=dev_rows,
        test_rows=test_rows,
        noise_rows=noise,
        batch=8,
        rungs=(first, second),
        finalists=FINALISTS if calls >= 1000 else FINALISTS - 1,
        proposals=2 if has_proposer else 0,
    )
    if calls >= 500 and plan.rounds >= 1:
        return plan
    return replace(plan, batch=6, finalists=2)  # the wide plan leaves no round of search, or not even its finalists
