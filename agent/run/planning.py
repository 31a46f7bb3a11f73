"""What the user chose for a run, and the plan that this makes; nothing was called yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.gateway.gateway import MAX_WAIT
from agent.gateway.prices import Price, prices_for
from agent.search.afford import means_of
from agent.search.analysis.pareto import Prefer
from agent.search.dspy.sizes import require_enough
from agent.search.plan import EFFORT_CALLS, Effort, Plan, make_plan, scoring_plan
from agent.search.program import Program
from agent.types import LM, Budget


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


def plan_for(
    program: Program,
    settings: Settings,
    target: LM,
    proposer: LM | None,
    judges: Sequence[LM],
    prices: Mapping[str, Price] | None = None,
) -> Plan:
    """The plan of a run that is to begin. Where a row does not take a fixed number of calls it counts runs of the
    program, `program.calls` calls each.

    Raises BudgetRefused when a cap is too small, InputError for a model without a price.
    """
    task, per_row, effort = program.task, program.calls, settings.effort
    if prices is None:
        prices = prices_for(names_of(target, proposer, judges), settings.budget, settings.price)
    author = proposer.name if proposer else ""
    means = means_of(task, prices.get, target.name, author, [one.name for one in judges])
    means = means if program.is_fixed else means.of_runs(per_row)

    def in_runs(calls: int) -> Budget:
        return replace(settings.budget, max_calls=calls // per_row)

    def plan_of(calls: int) -> Plan:
        return make_plan(task, Budget(max_calls=calls // per_row), effort, proposer is not None)

    calls = settings.budget.max_calls or EFFORT_CALLS[effort]
    if settings.only_scores:
        return scoring_plan(task, in_runs(calls), effort, means)
    plan = make_plan(task, in_runs(calls), effort, proposer is not None, means)
    require_enough(settings.strategy, task, plan, plan_of, settings.budget, means, per_row)
    return plan if program.is_fixed else replace(plan, longest_prompt=None)
