"""The planner: how many rows, trials and calls a budget buys, before the first call. Pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import count
from typing import TYPE_CHECKING, Any

from agent.errors import BudgetRefused, InputError
from agent.options.run import RunOptions
from agent.scoring.llm_judge import judge_calls
from agent.search.costs import CallCosts, Means
from agent.search.evolve.decisions import rungs_for
from agent.stats.power import MOST_ROWS, rows_at_most
from agent.stats.preflight import rows_to_detect
from agent.types import Budget, CallRole, Spend, Task

if TYPE_CHECKING:
    from agent.search.program import Program
    from agent.search.registered import Strategy

TEST_SHARE = 0.35  # of all calls, at most, for the sealed test of baseline and winner
KEPT_TEST_SHARE = 0.23  # that the sealed test keeps, as far as its decision needs it, however few candidates are tried
DEV_SHARE = 0.12  # of all calls, at most, for one candidate on the whole of dev
FEWEST_ROWS = 10
NOISE_ROWS = 10
BASELINE_ROWS = 22  # of dev for the user's own prompt before the search
FIRST_RUNG = 8
SHORTEST_RUNG = 4  # the first, where longer ones leave fewer than ENOUGH_CANDIDATES
CLIMBERS = 3.0  # candidates of a rung for each that climbs to the next
ENOUGH_CANDIDATES = 40  # with fewer the sealed test takes no more rows than its decision needs
FEW_CANDIDATES = 20  # with fewer the user is told what to change
DETECT = 0.1  # the smallest gain worth having, in score
PROPOSAL_SHARE = 0.25  # of all calls, at most, for the proposer
FINALISTS = 2  # that are planned: the best, and the rival of one that picks its examples
CALL_SLACK = 0.1  # of all calls
MIGRATION_RUNG = 6  # the first of a migration
MIGRATION_TEST_SHARE = 0.45  # of its calls, at most: the old model's replies are in the ledger
MIGRATION_BATCH = 4
STEADY_ROWS = 20  # of test, that are run repeatedly
MOST_TRIED = 20_000  # calls, above which a strategy must lack something else
COMPARED, SCORED = "compare two prompts", "score a prompt"


@dataclass(frozen=True, slots=True)
class Plan:
    """How a run spends its calls.

    The plan of a user's program counts runs of it as calls (`plan_run`), and is converted to calls when the run begins
    and after trial 0 (`in_calls`). `noise_rows`: dev rows that are run twice with the baseline. `finalists`: candidates
    whose way to all of dev is kept; 0: no search. `per_row`: calls of the target and of judges. `repeats`: of
    `steady_rows` test rows at the end. `longest_prompt`: in tokens, that the caps pay on dev and test. `tested`:
    prompts in the sealed test. `baseline_rows`: of dev before the search; None: all. `detect`: the smallest gain that
    the sealed test must show.
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
    tested: int = 2
    baseline_rows: int | None = None
    detect: float | None = None

    @property
    def calls_a_row(self) -> int:
        return self.per_row * self.calls_each

    @property
    def baseline_calls(self) -> int:
        return (self.first_rows + self.noise_rows) * self.per_row

    @property
    def first_rows(self) -> int:
        return self.dev_rows if self.baseline_rows is None else self.baseline_rows

    @property
    def steady_rows(self) -> int:
        """Return the test rows that are run `repeats` times."""
        return min(self.test_rows, STEADY_ROWS) if self.repeats > 1 else 0

    @property
    def test_calls(self) -> int:
        prompts = self.tested if self.finalists else 1
        return prompts * (self.test_rows + (self.repeats - 1) * self.steady_rows) * self.calls_a_row

    @property
    def slack(self) -> int:
        """Return the calls kept for lost attempts."""
        return math.ceil(CALL_SLACK * self.calls)

    @property
    def test_share(self) -> float:
        """Return the share of tokens, dollars and time kept for the sealed test. A winner may be longer."""
        return min(0.9, (1.5 if self.finalists else 1.0) * self.test_calls / self.calls)

    @property
    def last_climb(self) -> int:
        return self.dev_rows - (self.rungs[-2] if len(self.rungs) > 1 else self.dev_rows)

    @property
    def kept_rows(self) -> int:
        """Return the rows that the steps leave to the end. For two finalists at most if too few are tried else."""
        least = min(2, self.finalists) * self.last_climb + self.slack // self.calls_a_row
        return self.most_kept if self._tried(self.most_kept) >= ENOUGH_CANDIDATES else least

    @property
    def most_kept(self) -> int:
        return self.finalists * self.last_climb + self.rungs[-2:][0] + self.slack // self.calls_a_row

    @property
    def candidates(self) -> int:
        """Estimate how many candidates are tried on the first rung. One of `CLIMBERS` climbs each further rung."""
        return self._tried(self.kept_rows) if self.finalists else 0

    def _tried(self, kept: int) -> int:
        climbs = enumerate(zip(self.rungs[1:-1], self.rungs[:-2], strict=True), start=1)
        each = self.rungs[0] + sum((above - below) / CLIMBERS**step for step, (above, below) in climbs)
        return int(max(0, self.search_rows + self.slack // self.per_row - kept) / each)

    @property
    def final_calls(self) -> int:
        return self.finalists * self.last_climb * self.per_row

    @property
    def search_rows(self) -> int:
        return self.search_calls // self.per_row

    @property
    def search_calls(self) -> int:
        """Return the calls between trial 0 and the sealed test."""
        return max(0, self.calls - self.slack - self.baseline_calls - self.test_calls)

    def tested_for(self, needed: int) -> Plan:
        """Give up test rows for `ENOUGH_CANDIDATES`, except those `needed` to detect `detect`."""
        kept = tested_rows(self.calls * KEPT_TEST_SHARE / 2 / self.per_row, self.repeats)
        least = min(self.test_rows, max(FEWEST_ROWS, min(needed, kept)))
        plans = (replace(self, test_rows=rows) for rows in range(self.test_rows, least, -1))
        return next((plan for plan in plans if plan.candidates >= ENOUGH_CANDIDATES), replace(self, test_rows=least))

    @property
    def shows(self) -> str:
        """Say how many test rows show the gain; "" without one to show."""
        if self.detect is None or not self.finalists:
            return ""
        needed = rows_at_most(self.detect)
        most = f"up to {needed:,}" if needed < MOST_ROWS else f"{MOST_ROWS:,} or more"
        return f"a gain of {100 * self.detect:g} points (--detect) takes {most} test rows to show"

    @property
    def chooses_rows(self) -> bool:
        """Whether the rows of the sealed test are chosen for a gain."""
        return self.detect is not None

    def needed_rows(self, scores: Sequence[float]) -> int | None:
        """Return the test rows that show the gain over a baseline with such scores. None: as planned."""
        if self.detect is None or not self.finalists or not scores:
            return None
        return rows_to_detect(self.detect, scores)

    def in_calls(self, most: int, fewest_each: int, calls_each: int) -> Plan:
        """Convert a plan for `most` calls with `fewest_each` a run to `calls_each` calls a run."""
        return replace(self, calls=min(most, (self.calls + 1) * fewest_each - 1), calls_each=calls_each)

    def of_longer_runs(self, task: Task, times: float) -> Plan:
        """Give up rows, but none of the baseline, where a run takes `times` its calls."""
        try:
            made = make_plan(task, Means(Budget(int(self.calls / times))), bool(self.proposals), self.detect)
        except BudgetRefused:
            return self
        dev_rows = max(made.dev_rows, min(self.first_rows, self.dev_rows))
        rungs, test_rows = rungs_for(dev_rows, made.rungs[0]), min(self.test_rows, made.test_rows)
        return replace(self, dev_rows=dev_rows, rungs=rungs, test_rows=test_rows, batch=made.batch)

    def by_role(self, calls_each: int = 1) -> dict[CallRole, int]:
        """Return the most calls by role, if one call of the plan stands for `calls_each`."""
        scored = self.calls * calls_each - self.proposals
        judged = scored * (self.per_row - 1) // self.per_row
        return {"model": scored - judged, "proposer": self.proposals, "judge": judged}

    def as_dict(self) -> dict[str, Any]:
        derived = ("baseline_calls", "search_calls", "final_calls", "test_calls", "slack", "candidates")
        return {**asdict(self), **{name: getattr(self, name) for name in derived}}

    @staticmethod
    def restored(stored: Mapping[str, Any]) -> Plan:
        """Restore the plan of a run from `as_dict`. Raises InputError for another version."""
        try:
            kept = {field.name: stored[field.name] for field in fields(Plan)}
        except KeyError as missing:
            what = f"the run's plan has no {missing}: it was made by another version of this program"
            raise InputError(f"{what}; start a new run") from missing
        return Plan(**kept | {"rungs": tuple(kept["rungs"])})


def _require_rows(task: Task, means: Means, plan: Plan, needed: int, what: str) -> None:
    if min(plan.test_rows, plan.dev_rows) < min(FEWEST_ROWS, len(task.dev), len(task.test)):
        each = means.costs.calls_each if means.costs else 1
        few = f"max_calls = {plan.calls * each} is too few to {what} on this task"
        raise BudgetRefused(f"{few}; give at least {needed * each}")


def plan_run(
    program: Program, strategy: Strategy | None, options: RunOptions, costs: CallCosts, has_proposer: bool
) -> Plan:
    """Plan a run, in runs of a user's program. `strategy` None: only the baseline is scored. Raises BudgetRefused."""
    task, calls_each, means = program.task, program.calls, Means(options.budget, options.effort, costs)
    costs = costs if program.is_fixed else costs.of_a_run(calls_each)
    in_runs = replace(means, budget=replace(means.budget, max_calls=means.calls // calls_each), costs=costs)
    if strategy is None:
        return scoring_plan(task, in_runs)
    races = strategy.races_baseline and not task.is_compared  # a pairwise judge needs its answers to all rows
    detect = DETECT if options.detect is None else options.detect / 100
    plan = make_plan(task, in_runs, has_proposer, detect if races else None)
    if (tested := options.tested + len(program.references())) > plan.tested:
        rows = tested_rows(TEST_SHARE * plan.calls / tested / plan.per_row, plan.repeats)
        plan = replace(plan, tested=tested, test_rows=min(plan.test_rows, max(FEWEST_ROWS, rows)))
    if not strategy.enough(task, plan, calls_each):

        def enough(larger: Plan) -> bool:
            return strategy.enough(task, larger, calls_each)

        found = fewest_calls(task, plan, plan.calls * calls_each, enough, calls_each, has_proposer)
        what = f"no number of calls is enough{f': {strategy.lacks}' if strategy.lacks else ''}"
        if found is not None:
            what = _needs(found, ", ".join(costs.too_low(means.budget, -(-found // calls_each), costs.usual)))
        few = f"{plan.calls * calls_each} calls are too few for --strategy {strategy.name} on this task"
        raise BudgetRefused(f"{few}; {what}")
    return plan if program.is_fixed else replace(plan, longest_prompt=None)


def fewest_calls(
    task: Task, plan: Plan, start: int, enough: Callable[[Plan], bool], calls_each: int = 1, has_proposer: bool = False
) -> int | None:
    """Return the fewest calls above `start`, in tens, of a plan that is enough. None beyond `MOST_TRIED`."""

    def pays(calls: int) -> bool:
        return enough(make_plan(task, Means(Budget(calls // calls_each)), has_proposer, plan.detect))

    return next(filter(pays, range(start + 10, MOST_TRIED * calls_each, 10)), None)


def _needs(calls: int, caps: str) -> str:
    return f"it takes at least {calls}: {caps}" if caps else f"give at least {calls}"


def make_plan(task: Task, means: Means, has_proposer: bool, detect: float | None = DETECT) -> Plan:
    """Plan a search; `detect`: None for a strategy that does not race the baseline. Raises BudgetRefused."""
    per_row = 1 + judge_calls(task)
    needed = int(per_row * FEWEST_ROWS * max(1 / DEV_SHARE, 2 * task.repeats / TEST_SHARE)) + 1
    calls = means.affordable(needed, COMPARED)
    dev_rows = min(len(task.dev), int(calls * DEV_SHARE / per_row))
    plan = Plan(
        calls=calls,
        dev_rows=dev_rows,
        test_rows=min(len(task.test), tested_rows(calls * TEST_SHARE / 2 / per_row, task.repeats)),
        noise_rows=min(NOISE_ROWS, dev_rows) if calls >= 300 * per_row else 0,
        batch=8 if calls >= 500 * per_row else 4,
        rungs=rungs_for(dev_rows, FIRST_RUNG),
        finalists=FINALISTS,
        proposals=0,
        per_row=per_row,
        repeats=task.repeats,
        baseline_rows=None if detect is None else min(BASELINE_ROWS, dev_rows),
        detect=detect,
    )
    _require_rows(task, means, plan, needed, COMPARED)
    if detect is not None:
        plan = _with_rungs(plan).tested_for(rows_at_most(detect))
    longest = means.costs.longest_prompt(means.budget, dev_rows + plan.test_rows) if means.costs else None
    left = plan.search_calls - plan.kept_rows * plan.per_row - 2 * plan.rungs[0] * plan.per_row
    proposals = max(0, min(int(PROPOSAL_SHARE * plan.calls / plan.per_row), left))
    return replace(plan, proposals=proposals if has_proposer else 0, longest_prompt=longest)


def _with_rungs(plan: Plan) -> Plan:
    rungs = (rungs_for(plan.dev_rows, first) for first in range(FIRST_RUNG, SHORTEST_RUNG - 1, -1))
    plans = [replace(plan, rungs=each) for each in rungs]
    enough = [each for each in plans if each.candidates >= ENOUGH_CANDIDATES]
    return next((each for each in enough if each.kept_rows == each.most_kept), (enough or plans[-1:])[0])


def scoring_plan(task: Task, means: Means) -> Plan:
    """Plan a run without a search. Raises BudgetRefused for few rows."""
    per_row = 1 + judge_calls(task)
    needed = math.ceil(per_row * 2 * FEWEST_ROWS * task.repeats / (1 - CALL_SLACK))
    calls = means.affordable(needed, SCORED)
    paid = (calls - math.ceil(CALL_SLACK * calls)) // per_row
    test_rows = min(len(task.test), tested_rows(max(paid / 2, paid - len(task.dev)), task.repeats))
    plan = Plan(calls, 0, test_rows, 0, 0, (), 0, 0, per_row, task.repeats)
    left = paid - plan.test_calls // per_row
    plan = replace(plan, dev_rows=min(len(task.dev), left))
    _require_rows(task, means, plan, needed, SCORED)
    noise_rows = min(NOISE_ROWS, plan.dev_rows, left - plan.dev_rows) if calls >= 300 * per_row else 0
    plan = replace(plan, noise_rows=noise_rows, rungs=rungs_for(plan.dev_rows, FIRST_RUNG))
    return replace(plan, calls=math.ceil((plan.baseline_calls + plan.test_calls) / (1 - CALL_SLACK)))


def migration_plan(task: Task, means: Means, sealed_rows: int, each: Spend) -> Plan:
    """Plan a migration with one prompt on the `sealed_rows` that the old model answered. Raises BudgetRefused."""
    calls, per_row, budget = means.calls, 1 + judge_calls(task), means.budget
    calls = min(calls, paid_for) if (paid_for := CallCosts.affordable(budget, each)) is not None else calls

    def rows(calls: int) -> tuple[int, int]:
        test = min(sealed_rows, int(calls * MIGRATION_TEST_SHARE / per_row))
        return test, (calls - math.ceil(CALL_SLACK * calls)) // per_row - test

    test_rows, paid = rows(calls)
    dev_rows = min(len(task.dev), paid // 2)
    fewest = min(FEWEST_ROWS, sealed_rows, len(task.dev))
    if min(test_rows, dev_rows) < fewest:
        enough = next((n for n in range(calls, 10**7) if min(rows(n)[0], rows(n)[1] // 2) >= fewest), 10**7)
        caps = ", ".join(CallCosts.too_low(budget, enough, each))
        few = f"{calls} calls are" if caps else f"max_calls = {calls} is"
        raise BudgetRefused(f"{few} too few to migrate a prompt of this task; {_needs(enough, caps)}")
    finalists = 2 if paid >= 3 * dev_rows else 1
    rungs = rungs_for(dev_rows, MIGRATION_RUNG)
    return Plan(
        calls, dev_rows, test_rows, 0, MIGRATION_BATCH, rungs, finalists, 0, per_row, tested=1, baseline_rows=rungs[0]
    )


def calls_for(test_rows: int, task: Task, plan: Plan) -> int:
    """Return the calls, in tens, that pay `test_rows`. More may pay fewer, as they buy a longer dev as well."""

    def pays(calls: int) -> bool:
        runs = calls // plan.calls_each
        if tested_rows(runs * TEST_SHARE / 2 / plan.per_row, plan.repeats) < test_rows:
            return False
        dev = min(len(task.dev), int(runs * DEV_SHARE / plan.per_row))
        larger = replace(plan, calls=runs, test_rows=test_rows, dev_rows=dev, rungs=rungs_for(dev, FIRST_RUNG))
        return plan.detect is None or _with_rungs(larger).candidates >= ENOUGH_CANDIDATES

    start = math.ceil(test_rows * 2 * plan.per_row / TEST_SHARE * plan.calls_each / 10) * 10
    return next(filter(pays, count(start, 10)))


def calls_to_finish(rows: int, spent: int, task: Task, plan: Plan) -> int | None:
    """Return the fewest calls, in tens, that also pay dev after `rows`."""

    def pays(more: Plan) -> bool:
        left = (more.calls - more.slack - more.test_calls) * plan.calls_each - spent
        return left >= (more.dev_rows - rows) * plan.calls_a_row

    return fewest_calls(task, plan, plan.calls // 10 * 10, pays, plan.calls_each)


def tested_rows(samples: float, repeats: int) -> int:
    """Return the test rows that `samples` runs pay, with STEADY_ROWS of them run `repeats` times."""
    rows = int(samples - (repeats - 1) * STEADY_ROWS)
    return rows if rows >= STEADY_ROWS else int(samples / repeats)
