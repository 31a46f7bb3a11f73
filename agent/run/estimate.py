"""What a run will take at most, before anything is called: calls, tokens and dollars of each role. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.run.launch import Launch
    from agent.search.plan import Plan
    from agent.types import Budget


@dataclass(frozen=True, slots=True)
class Estimate:
    """`roles`: model, calls, tokens and dollars (None: unknown) of target, proposer and judge; `cap`: the option whose
    cap is what bounds them, or ""; `gains`: by the rate of changed rows, the smallest gain that the test can show;
    `metrics`: names of those that score, and `scoring` why one of a data file does, or ""."""

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

    def as_dict(self) -> dict[str, Any]:
        """The object of --dry-run --json."""
        return {
            "task": self.task,
            "model": self.model,
            "metrics": list(self.metrics),
            "scoring": self.scoring,
            "plan": self.plan.as_dict(),
            "roles": {role: dict(row) for role, row in self.roles.items()},
            "tokens_at_most": self.tokens,
            "cost_usd_at_most": self.usd,
            "detectable_gain": self.gain if math.isfinite(self.gain) else None,
            "detectable_gains": {f"{rate:g}": found for rate, found in self.gains.items() if math.isfinite(found)},
        }


def estimate(launch: Launch) -> Estimate:
    """The priced plan: what each role may call at most. Raises InputError for a model's file that is not there, and
    what `Launch.plan` raises."""
    from agent.models.model_registry import require_files
    from agent.programs.moves.author import most_told
    from agent.search.call_costs import dearest, largest_calls
    from agent.stats.intervals import minimum_detectable_gain
    from agent.stats.preflight import detectable_gains
    from agent.types import Usage

    require_files(launch.models)
    task, plan = launch.task, launch.plan()
    models, prices = launch.models_by_role(), launch.prices()
    sizes, calls = largest_calls(task, most_told(task)), plan.by_role(launch.calls_each)
    rows: dict[str, dict[str, Any]] = {}
    for role, names in models.items():
        usage = Usage(calls[role] * sizes[role].prompt_tokens, calls[role] * sizes[role].completion_tokens)
        unpriced = calls[role] and any(name not in prices for name in names)
        rows[role] = {
            "model": ", ".join(names),
            "calls": calls[role],
            "tokens": usage.prompt_tokens + usage.completion_tokens,
            "usd": None if unpriced else round(dearest(names, usage, prices), 4),
        }
    cap = _scale_to_caps(rows, launch.settings.budget)
    known = [row["usd"] for row in rows.values()]
    tokens = sum(row["tokens"] for row in rows.values())
    total = None if None in known else round(sum(known), 4)
    gain, gains = minimum_detectable_gain(plan.test_rows, 0.5), detectable_gains(plan.test_rows)
    names = [metric.name for metric in task.metrics]
    return Estimate(task.name, launch.target.name, plan, rows, tokens, total, cap, gain, gains, names, launch.scoring)


def _scale_to_caps(rows: dict[str, dict[str, Any]], budget: Budget) -> str:
    """Takes tokens and dollars of all roles down alike, to what the tightest cap pays for; its option, or ""."""
    from agent.search.call_costs import Cap
    from agent.types import Spend

    most = sum((Spend(row["calls"], row["tokens"], row["usd"] or 0.0) for row in rows.values()), Spend())
    part, option = 1.0, ""
    for cap in Cap.all(budget):
        if cap.of(most) * part > cap.size:
            part, option = cap.size / cap.of(most), f"--{cap.name.replace('_', '-')}"
    for row in rows.values():
        row["tokens"] = int(row["tokens"] * part)
        row["usd"] = None if row["usd"] is None else math.floor(row["usd"] * part * 10_000) / 10_000
    return option
