"""What the user chose for a run, and the plan that this makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.gateway.gateway import MAX_WAIT
from agent.gateway.prices import Price, prices_for
from agent.search.analysis.pareto import Prefer
from agent.search.call_costs import Models, call_costs
from agent.search.plan import Effort, Plan, plan_run
from agent.search.program import Program
from agent.search.registered import DEFAULT, STRATEGIES
from agent.types import LM, Budget


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user chose for a run. `price` is for models without a known one; `max_wait` is in seconds; `options` are
    the command line's words, from which the run can be resumed; `parent` is the run that this one forks. One trial
    scores the user's own prompt and searches nothing.
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
    strategy: str = DEFAULT
    prefer: Prefer = "best"
    anyway: bool = False


def models_by_role(target: LM, proposer: LM | None, judges: Sequence[LM]) -> Models:
    """The names of a run's models."""
    return {
        "target": [target.name],
        "proposer": [proposer.name] if proposer else [],
        "judge": [judge.name for judge in judges],
    }


def known_prices(models: Models, settings: Settings) -> dict[str, Price]:
    """The prices of a run's models, by name. Raises InputError for one that must have a price and has none."""
    return prices_for(
        dict.fromkeys(name for names in models.values() for name in names), settings.budget, settings.price
    )


def plan_for(program: Program, settings: Settings, models: Models, prices: Mapping[str, Price]) -> Plan:
    """The plan of a run that is to begin. Raises BudgetRefused when a cap is too small."""
    strategy = None if settings.trials == 1 else STRATEGIES.get(settings.strategy)
    costs = call_costs(program.task, models, prices)
    return plan_run(program, strategy, settings.budget, settings.effort, bool(models["proposer"]), costs)
