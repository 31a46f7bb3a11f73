"""The plan of a run, and what it takes at most. Calls nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.gateway.prices import Price, prices_for
from agent.options.jobs import RunOptions
from agent.run.launch import Launch
from agent.run.session import price_of
from agent.search.call_costs import Cap, Models, call_costs, dearest, largest_calls
from agent.search.plan import DETECT, Means, Plan, plan_run
from agent.search.program import Program
from agent.search.registered import DEFAULT, STRATEGIES
from agent.types import LM, Budget, Spend, Usage


def models_by_role(
    target: LM, proposer: LM | None, judges: Sequence[LM], embedder: LM | None = None, others: Sequence[LM] = ()
) -> Models:
    """The names of a run's models; the role "embedding" is there where a provider makes vectors, and `others` are asked
    beside the target."""
    return {
        "model": list(dict.fromkeys([target.name, *(other.name for other in others)])),
        "proposer": [proposer.name] if proposer else [],
        "judge": [judge.name for judge in judges],
        **({"embedding": [embedder.name]} if embedder else {}),
    }


def known_prices(models: Models, options: RunOptions) -> dict[str, Price]:
    """The prices of a run's models, by name. Raises InputError for one that must have a price and has none."""
    names = dict.fromkeys(name for names in models.values() for name in names)
    return prices_for(names, options.budget, price_of(options))


def plan_for(program: Program, options: RunOptions, models: Models, prices: Mapping[str, Price]) -> Plan:
    """The plan of a run that is to begin. Raises BudgetRefused when a cap is too small."""
    strategy = None if options.trials == 1 else STRATEGIES.get(options.strategy or DEFAULT)
    costs = call_costs(program.task, models, prices)
    tested = 3 if options.prefer == "cheap" else 2
    has_proposer, detect = bool(models["proposer"]), (options.detect or 100 * DETECT) / 100
    return plan_run(program, strategy, Means(options.budget, options.effort, costs), has_proposer, detect, tested)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run takes at most. `roles`: model, calls, tokens and US dollars (None: unknown) of target, proposer and
    judge; `cap`: the option whose cap bounds them, or ""; `gains`: by the rate of changed rows, the smallest gain in
    score that the test can show; `metrics`: names of those that score, and `scoring` why one of a data file does, or
    ""; `max_examples`: the most examples of a prompt, None without a limit."""

    task: str
    model: str
    plan: Plan
    roles: Mapping[str, Mapping[str, Any]]
    tokens: int
    usd: float | None
    cap: str
    gain: float
    gains: Mapping[float, float]
    metrics: Sequence[str] = ()
    scoring: str = ""
    max_examples: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """The object of --dry-run --json."""
        return {
            "task": self.task,
            "model": self.model,
            "metrics": list(self.metrics),
            "scoring": self.scoring,
            "max_examples": self.max_examples,
            "plan": self.plan.as_dict(),
            "roles": {role: dict(row) for role, row in self.roles.items()},
            "tokens_at_most": self.tokens,
            "cost_usd_at_most": self.usd,
            "detectable_gain": self.gain if math.isfinite(self.gain) else None,
            "detectable_gains": {f"{rate:g}": gain for rate, gain in self.gains.items() if math.isfinite(gain)},
        }


def estimate(launch: Launch) -> Estimate:
    """The priced plan: what each role may call at most. Raises InputError for a model's file that is not there, and
    what `Launch.plan` raises."""
    from agent.models.model_registry import require_files
    from agent.programs.moves.author import longest_request
    from agent.stats.intervals import minimum_detectable_gain
    from agent.stats.preflight import detectable_gains

    require_files(launch.models)
    task, plan = launch.task, launch.plan()
    models, prices = launch.models_by_role(), launch.prices()
    sizes, calls = largest_calls(task, longest_request(task)), plan.by_role(launch.calls_each)
    rows: dict[str, dict[str, Any]] = {}
    if launch.embedder is not None:
        count, size = _of_embedding(launch, plan)
        calls, sizes = {**calls, "embedding": count}, {**sizes, "embedding": size}
    for role, names in models.items():
        usage = Usage(calls[role] * sizes[role].prompt_tokens, calls[role] * sizes[role].completion_tokens)
        unpriced = calls[role] and any(name not in prices for name in names)
        rows[role] = {
            "model": ", ".join(names),
            "calls": calls[role],
            "tokens": usage.prompt_tokens + usage.completion_tokens,
            "usd": None if unpriced else round(dearest(names, usage, prices), 4),
        }
    cap = _scale_to_caps(rows, launch.options.budget)
    known = [row["usd"] for row in rows.values()]
    tokens = sum(row["tokens"] for row in rows.values())
    total = None if None in known else round(sum(known), 4)
    gain, gains = minimum_detectable_gain(plan.test_rows, 0.5), detectable_gains(plan.test_rows)
    names = [metric.name for metric in task.metrics]
    most = task.constraints.max_examples
    return Estimate(
        task.name, launch.target.name, plan, rows, tokens, total, cap, gain, gains, names, launch.scoring, most
    )


def _of_embedding(launch: Launch, plan: Plan) -> tuple[int, Usage]:
    """The calls that embed the rows, and the most tokens of one."""
    from agent.programs.prompt import PromptProgram
    from agent.run.embeddings import calls_to_embed
    from agent.search.context import sealed_rows

    assert launch.embedder is not None
    assert isinstance(launch.program, PromptProgram)
    task = launch.task
    calls, texts = calls_to_embed(launch.program, [*task.dev[: plan.dev_rows], *sealed_rows(task, plan)])
    tokens = sum(map(launch.embedder.count_tokens, texts))
    return calls, Usage(-(-tokens // calls), 0)


def _scale_to_caps(rows: dict[str, dict[str, Any]], budget: Budget) -> str:
    """Takes tokens and dollars of all roles down alike, to what the tightest cap pays for; its option, or ""."""
    most = sum((Spend(row["calls"], row["tokens"], row["usd"] or 0.0) for row in rows.values()), Spend())
    part, option = 1.0, ""
    for cap in Cap.all(budget):
        if cap.of(most) * part > cap.size:
            part, option = cap.size / cap.of(most), f"--{cap.name.replace('_', '-')}"
    for row in rows.values():
        row["tokens"] = int(row["tokens"] * part)
        row["usd"] = None if row["usd"] is None else math.floor(row["usd"] * part * 10_000) / 10_000
    return option
