"""The preflight plan: how many rows, trials and calls a budget buys, and which gain they can show. Pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any, Literal

from agent.errors import BudgetRefused, InputError
from agent.scoring.llm_judge import judge_calls
from agent.search.afford import ROWS_A_PROPOSAL, Means
from agent.search.evolve.ladder import rungs_for
from agent.types import Budget, Task

Effort = Literal["quick", "standard", "thorough"]

EFFORT_CALLS: dict[Effort, int] = {"quick": 500, "standard": 1200, "thorough": 4000}
TEST_SHARE = 0.35  # of all calls, at most, for the sealed test of baseline and winner
DEV_SHARE = 0.12  # of all calls, at most, for one candidate on the whole of dev
FEWEST_ROWS = 10
NOISE_ROWS = 10
FIRST_RUNG = 8
SLACK = 0.1  # of all calls
STEADY_ROWS = 20  # of test, that are asked again and again
COMPARED, SCORED = "compare two prompts", "score a prompt"


@dataclass(frozen=True, slots=True)
class Plan:
    """All in model calls but what is called rows. `rungs` are the rows of dev at which candidates are compared, the
    last one all of dev.

    `batch` candidates are taken on together; `finalists` are seen on all of dev at the end; at most `proposals` calls
    go to the proposer. A row takes `per_row` calls: one of the target and those of the judges. At the end `steady_rows`
    of the test rows are asked `repeats` times. Without finalists there is no search, and the user's own prompt is all
    that meets the test. Prompts of more than `longest_prompt` tokens are not tried: a cap on
    tokens or dollars would not pay them on all of dev and test. A row takes `calls_each` times as many calls in the
    plan of a program of the user's own, once these are counted.
    """

    calls: int
    dev_rows: int
    test_rows: int
    noise_rows: int
    batch: int
    rungs: tuple[int, ...]
    finalists: int
    proposals: int
    per_row: int = 1
    repeats: int = 1
    longest_prompt: int | None = None
    calls_each: int = 1

    @property
    def calls_a_row(self) -> int:
        """Calls that a row takes once the calls of a program are counted; one of a plan that counts none."""
        return self.per_row * self.calls_each

    @property
    def baseline_calls(self) -> int:
        return (self.dev_rows + self.noise_rows) * self.per_row

    @property
    def steady_rows(self) -> int:
        return min(self.test_rows, STEADY_ROWS) if self.repeats > 1 else 0

    @property
    def test_calls(self) -> int:
        prompts = 2 if self.finalists else 1
        return prompts * (self.test_rows + (self.repeats - 1) * self.steady_rows) * self.calls_a_row

    @property
    def slack(self) -> int:
        """Calls kept for attempts that bring nothing, so that losing a tenth changes nothing about the search.

        What is not lost shows at the end what carries the gain.
        """
        return math.ceil(SLACK * self.calls)

    @property
    def test_share(self) -> float:
        """The part of tokens, dollars and time that the sealed test may need: its share of the calls, and half more,
        since what a search finds may be longer than the user's own prompt."""
        return min(0.9, (1.5 if self.finalists else 1.0) * self.test_calls / self.calls)

    @property
    def final_rows(self) -> int:
        """Rows that take the finalists from the rung before the last to the whole of dev; none with one rung."""
        before = self.rungs[-2] if len(self.rungs) > 1 else self.dev_rows
        return self.finalists * (self.dev_rows - before)

    @property
    def final_calls(self) -> int:
        return self.final_rows * self.per_row

    @property
    def search_calls(self) -> int:
        """Calls between trial 0 and the sealed test."""
        return max(0, self.calls - self.slack - self.baseline_calls - self.test_calls)

    def as_dict(self) -> dict[str, Any]:
        extra = {
            "baseline_calls": self.baseline_calls,
            "search_calls": self.search_calls,
            "final_calls": self.final_calls,
            "test_calls": self.test_calls,
            "slack": self.slack,
        }
        return {**asdict(self), **extra}

    @staticmethod
    def restored(kept: Mapping[str, Any]) -> Plan:
        """The plan that a run was made with. Raises InputError for one of another version."""
        names = {field.name for field in fields(Plan) if field.name in kept or field.default is MISSING}
        try:
            return Plan(**{name: kept[name] for name in names - {"rungs"}}, rungs=tuple(kept["rungs"]))
        except KeyError as missing:
            raise InputError(
                f"the run's plan has no {missing}: it was made by another version of this program; start a new run"
            ) from missing


def make_plan(task: Task, budget: Budget, effort: Effort, has_proposer: bool, means: Means | None = None) -> Plan:
    """Splits the calls: those that are capped, or as many as caps on tokens and dollars buy by `means`.

    Raises BudgetRefused when baseline and winner cannot even be compared on a few rows.
    """
    per_row = 1 + judge_calls(task)
    needed = int(per_row * FEWEST_ROWS * max(1 / DEV_SHARE, 2 * task.repeats / TEST_SHARE)) + 1
    calls = _bought(budget, effort, means, needed, COMPARED)
    test_rows = min(len(task.test), _tested_rows(calls * TEST_SHARE / 2 / per_row, task.repeats))
    dev_rows = min(len(task.dev), int(calls * DEV_SHARE / per_row))
    _require_rows(task, dev_rows, test_rows, calls, needed, means, COMPARED)
    return Plan(
        calls=calls,
        dev_rows=dev_rows,
        test_rows=test_rows,
        noise_rows=min(NOISE_ROWS, dev_rows) if calls >= 300 * per_row else 0,
        batch=8 if calls >= 500 * per_row else 4,
        rungs=rungs_for(dev_rows, FIRST_RUNG),
        finalists=3 if calls >= 500 * per_row else 2,
        proposals=calls // per_row // ROWS_A_PROPOSAL if has_proposer else 0,
        per_row=per_row,
        repeats=task.repeats,
        longest_prompt=means.longest(budget, dev_rows + test_rows) if means else None,
    )


def scoring_plan(task: Task, budget: Budget, effort: Effort, means: Means | None = None) -> Plan:
    """The plan of a run without a search: the user's own prompt on as many rows of dev and test as the calls pay, half
    of them each where they do not pay all. Raises BudgetRefused where they pay only a few."""
    per_row = 1 + judge_calls(task)
    needed = math.ceil(per_row * 2 * FEWEST_ROWS * task.repeats / (1 - SLACK))
    calls = _bought(budget, effort, means, needed, SCORED)
    paid = (calls - math.ceil(SLACK * calls)) // per_row
    test_rows = min(len(task.test), _tested_rows(max(paid / 2, paid - len(task.dev)), task.repeats))
    plan = Plan(calls, 0, test_rows, 0, 0, (), 0, 0, per_row, task.repeats)
    left = paid - plan.test_calls // per_row
    dev_rows = min(len(task.dev), left)
    _require_rows(task, dev_rows, test_rows, calls, needed, means, SCORED)
    noise_rows = min(NOISE_ROWS, dev_rows, left - dev_rows) if calls >= 300 * per_row else 0
    plan = replace(plan, dev_rows=dev_rows, noise_rows=noise_rows, rungs=rungs_for(dev_rows, FIRST_RUNG))
    return replace(plan, calls=math.ceil((plan.baseline_calls + plan.test_calls) / (1 - SLACK)))


def _bought(budget: Budget, effort: Effort, means: Means | None, needed: int, what: str) -> int:
    """How many calls there are to plan with. Raises BudgetRefused where tokens or dollars do not buy those `needed`."""
    calls = budget.max_calls if budget.max_calls is not None else EFFORT_CALLS[effort]
    usual = means.calls(budget, means.usual) if means else None
    if means is None or usual is None or usual >= calls:
        return calls
    if (means.calls(budget, means.least) or 0) < min(calls, needed):
        caps = ", ".join(means.raised(budget, needed, means.least))
        takes = f"which takes about {needed * means.calls_each} calls"
        raise BudgetRefused(f"too little to {what} on this task, {takes}: {caps}")
    return max(usual, min(calls, needed))


def _require_rows(
    task: Task, dev_rows: int, test_rows: int, calls: int, needed: int, means: Means | None, what: str
) -> None:
    if min(test_rows, dev_rows) < min(FEWEST_ROWS, len(task.dev), len(task.test)):
        each = means.calls_each if means else 1
        raise BudgetRefused(
            f"max_calls = {calls * each} is too few to {what} on this task; give at least {needed * each}"
        )


def _tested_rows(samples: float, repeats: int) -> int:
    """Test rows for which `samples` of each prompt pay, when STEADY_ROWS of them are asked `repeats` times."""
    rows = int(samples - (repeats - 1) * STEADY_ROWS)
    return rows if rows >= STEADY_ROWS else int(samples / repeats)
