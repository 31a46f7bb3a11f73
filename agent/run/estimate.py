"""What a run will take at most, before anything is called: calls, tokens and dollars of each role. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.gateway.prices import Price
    from agent.run.launch import Launch
    from agent.search.plan import Plan
    from agent.types import Budget, Usage


@dataclass(frozen=True, slots=True)
class Estimate:
    """`roles`: model, calls, tokens and dollars (None: unknown) of target, proposer and judge; `cap`: the option whose
    cap is what bounds them, or ""; `gains`: by the rate of changed rows, the smallest gain that the test can show."""

    task: str
    model: str
    plan: Plan
    roles: Mapping[str, Mapping[str, Any]]
    tokens: int
    usd: float | None
    cap: str
    gain: float
    gains: Mapping[float, float]

    def as_dict(self) -> dict[str, Any]:
        """The object of --dry-run --json."""
        return {
            "task": self.task,
            "model": self.model,
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
    from agent.scoring.llm_judge import VERDICT_TOKENS
    from agent.search.afford import RUBRIC_TOKENS, proposal_tokens
    from agent.search.preflight import detectable_gains
    from agent.stats.intervals import minimum_detectable_gain
    from agent.types import Usage

    require_files(launch.models)
    task, settings, target, author = launch.task, launch.settings, launch.target, launch.author
    plan, per_row = launch.plan(), launch.calls_each
    longest = max(sum(len(text) for text in row.inputs.values()) for row in task.train)
    per_call = len(task.instruction) // 3 + (longest // 3 + 10) * (1 + max(task.space.demo_counts, default=0))
    proposals = plan.proposals
    seen = plan.calls * per_row - proposals
    judged = seen * (plan.per_row - 1) // plan.per_row
    rubrics = sum(len(rubric.text) for rubric in task.rubrics.values()) // 3
    roles = {
        "target": (target.name, seen - judged, Usage(per_call, 50)),
        "proposer": (author.name if author else "", proposals, Usage(most_told(task) // 3, proposal_tokens(task))),
        "judge": (", ".join(task.judges), judged, Usage(longest // 3 + rubrics + RUBRIC_TOKENS, VERDICT_TOKENS)),
    }
    thoughts = Usage(0, task.thinking)
    rows: dict[str, dict[str, Any]] = {}
    for role, (name, calls, said) in roles.items():
        each = said + thoughts
        usage = Usage(calls * each.prompt_tokens, calls * each.completion_tokens)
        usd = _dollars(name.split(", "), usage, settings.price) if calls else 0.0
        rows[role] = {
            "model": name,
            "calls": calls,
            "tokens": usage.prompt_tokens + usage.completion_tokens,
            "usd": usd,
        }
    cap = _scale_to_caps(rows, settings.budget)
    known = [row["usd"] for row in rows.values()]
    tokens = sum(row["tokens"] for row in rows.values())
    total = None if None in known else round(sum(known), 4)
    gain, gains = minimum_detectable_gain(plan.test_rows, 0.5), detectable_gains(plan.test_rows)
    return Estimate(task.name, target.name, plan, rows, tokens, total, cap, gain, gains)


def _scale_to_caps(rows: dict[str, dict[str, Any]], budget: Budget) -> str:
    """Takes tokens and dollars of all roles down alike, to what the tightest cap pays for; its option, or ""."""
    caps = (("tokens", budget.max_tokens, "--max-tokens"), ("usd", budget.max_cost, "--max-cost"))
    part, option = 1.0, ""
    for kind, cap, name in caps:
        most = sum(row[kind] or 0 for row in rows.values())
        if cap is not None and most * part > cap:
            part, option = cap / most, name
    for row in rows.values():
        row["tokens"] = int(row["tokens"] * part)
        row["usd"] = None if row["usd"] is None else math.floor(row["usd"] * part * 10_000) / 10_000
    return option


def _dollars(names: list[str], usage: Usage, fixed: Price | None) -> float | None:
    """What `usage` costs at most when any of these models serves it; None when a price is not known."""
    from agent.gateway.prices import price_of

    prices = [price_of(name) or fixed for name in names]
    known = [price(usage) for price in prices if price is not None]
    return round(max(known), 4) if len(known) == len(prices) else None
