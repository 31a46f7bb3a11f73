"""What the user chose for a run, and the plan that this makes; nothing was called yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.gateway.gateway import MAX_WAIT
from agent.gateway.prices import Price, prices_for
from agent.search.afford import Means, means_of
from agent.search.dspy_program import Program
from agent.search.dspy_sizes import require_enough
from agent.search.pareto import Prefer
from agent.search.plan import EFFORT_CALLS, Effort, Plan, make_plan, scoring_plan
from agent.types import LM, Budget, Task


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user chose for a run. `price` is given for models whose price nobody knows; `max_wait` is in seconds;
    `options` are the command line's words, from which the run can be resumed; `parent` the run that this one forks.
    """

    seed: int = 0
    budget: Budget = field(default_factory=Budget)
    effort: Effort = "standard"
    trials: int | None = None
    max_concurrency: int | None = None
    use_cache: bool = True
    price: Price | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    runs_folder: Path = Path("runs")
    max_wait: float = MAX_WAIT
    parent: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    strategy: str = "bayes"
    prefer: Prefer = "best"
    anyway: bool = False

    @property
    def only_scores(self) -> bool:
        """Whether the user's own prompt is all that is tried."""
        return self.trials == 1


def names_of(target: LM, proposer: LM | None, judges: Sequence[LM]) -> list[str]:
    """Every model of a run once, by its name."""
    every = [target, *([proposer] if proposer else []), *judges]
    return list(dict.fromkeys(model.name for model in every))


def means_for(task: Task, target: LM, proposer: LM | None, judges: Sequence[LM], prices: Mapping[str, Price]) -> Means:
    """What a call of these models is believed to cost on average."""
    return means_of(task, prices.get, target.name, proposer.name if proposer else "", [one.name for one in judges])


def planned(
    task: Task, settings: Settings, target: LM, proposer: LM | None, judges: Sequence[LM], prices: Mapping[str, Price]
) -> Plan:
    """The plan of a run. Raises BudgetRefused when a cap is too small."""
    means = means_for(task, target, proposer, judges, prices)
    if settings.only_scores:
        return scoring_plan(task, settings.budget, settings.effort, means)
    plan = make_plan(task, settings.budget, settings.effort, proposer is not None, means)

    def plan_of(calls: int) -> Plan:
        return make_plan(task, Budget(max_calls=calls), settings.effort, proposer is not None)

    require_enough(settings.strategy, task, plan, plan_of, settings.budget, means)
    return plan


def plan_in_runs(task: Task, settings: Settings, means: Means, has_proposer: bool, per_row: int) -> Plan:
    """The plan in runs of the program; `means` are those of a call. Raises BudgetRefused as `make_plan` does, and where
    DSPy could do nothing."""
    budget, means = settings.budget, means.of_runs(per_row)

    def plan_of(calls: int, means: Means | None = None) -> Plan:
        return make_plan(task, replace(budget, max_calls=calls // per_row), settings.effort, has_proposer, means)

    calls = budget.max_calls or EFFORT_CALLS[settings.effort]
    if settings.only_scores:
        return scoring_plan(task, replace(budget, max_calls=calls // per_row), settings.effort, means)
    plan = plan_of(calls, means)
    require_enough(settings.strategy, task, plan, plan_of, budget, means, per_row)
    return replace(plan, longest_prompt=None)


def calls_per_row(task: Task) -> int:
    """How many calls a plan counts as one. Makes the task's program, if there is one."""
    return Program(task).calls if task.program else 1


def plan_for(task: Task, settings: Settings, target: LM, proposer: LM | None, judges: Sequence[LM]) -> tuple[Plan, int]:
    """The plan of a run that is to begin, and how many calls it counts as one. Makes the program, if there is one.

    Raises BudgetRefused when a cap is too small, InputError for a model without a price.
    """
    program = Program(task) if task.program else None
    prices = prices_for(names_of(target, proposer, judges), settings.budget, settings.price)
    if program is None:
        return planned(task, settings, target, proposer, judges, prices), 1
    means = means_for(replace(task, instruction=program.own), target, proposer, judges, prices)
    return plan_in_runs(task, settings, means, proposer is not None, program.calls), program.calls
