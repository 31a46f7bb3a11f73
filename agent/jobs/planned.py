"""The plan of a run in words, and priced: the most that each role may call."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from agent.jobs.launch import Launch
from agent.models.model_registry import require_files
from agent.report.blocks import Block, text
from agent.results.base import Result, absent
from agent.stats.intervals import minimum_detectable_gain, smallest_margin
from agent.stats.preflight import ASSUMED_RATES
from agent.types import Spend, Usage

if TYPE_CHECKING:
    from agent.search.plan import Plan


class PlannedRole(Result):
    """The most that one role may call; `usd` is None if the price is unknown."""

    model: str
    calls: int
    tokens: int
    usd: float | None


class PlannedRun(Result):
    """The priced plan of a run.

    `detectable_gain` is the smallest that the sealed test can show (None: none), also by baseline score;
    `smallest_margin` of a migration is that of two equal models.
    """

    task: str
    model: str
    metrics: tuple[str, ...]
    scoring: str
    max_examples: int | None
    plan: Mapping[str, Any]
    roles: Mapping[str, PlannedRole]
    tokens_at_most: int
    cost_usd_at_most: float | None
    detectable_gain: float | None
    detectable_gains: Mapping[str, float]
    margin: float | None = absent()
    smallest_margin: float | None = absent()
    lines: tuple[str, ...] = Field((), exclude=True)

    def blocks(self) -> Iterator[Block]:
        yield text(*self.lines, exact=True)


def planned(launch: Launch, seen: float | None = None) -> PlannedRun:
    """Price the plan of a run; `seen` is that of `opening`.

    Raises InputError for a missing model file, and what `Launch.plan` raises.
    """
    require_files(launch.models)
    task, options, plan, old = launch.task, launch.options, launch.plan(), launch.migration
    roles, cap = _roles(launch, plan)
    tokens, costs = sum(role.tokens for role in roles.values()), [role.usd for role in roles.values()]
    usd = None if None in costs else round(sum(each or 0.0 for each in costs), 4)
    gain = minimum_detectable_gain(plan.test_rows, 0.5)
    gains = {rate: minimum_detectable_gain(plan.test_rows, rate) for rate in ASSUMED_RATES}
    tested = max(1, plan.test_rows)
    lines = [opening(launch, plan, seen)]
    for name, role in roles.items():
        if role.calls:
            cost = _dollars(role.usd, 4)
            lines.append(f"  {name:<9} {role.model}: {role.calls} calls, about {role.tokens:,} tokens, {cost}")
    allowed = f", as {cap} allows" if cap else ""
    lines.append(f"at most about {tokens:,} tokens, {_dollars(usd, 2)}{allowed}; nothing was called")
    if old is None:
        lines.append(detectable_line(gains))
    else:
        lines.append(f"two models of one quality pass this sealed test from about {options.passed_on(tested)} on")
    return PlannedRun(
        task=task.name,
        model=launch.model.name,
        metrics=tuple(metric.name for metric in task.metrics),
        scoring=launch.scoring,
        max_examples=task.constraints.max_examples,
        plan=plan.as_dict(),
        roles=roles,
        tokens_at_most=tokens,
        cost_usd_at_most=usd,
        detectable_gain=gain if math.isfinite(gain) else None,
        detectable_gains={f"{rate:g}": each for rate, each in gains.items() if math.isfinite(each)},
        margin=options.accepted_loss if old else None,
        smallest_margin=smallest_margin(tested) if old else None,
        lines=tuple(lines),
    )


def opening(launch: Launch, plan: Plan, seen: float | None = None) -> str:
    """Describe what is about to run: task, models and plan. `seen`: the calls of a row in the last run."""
    task, options, program = launch.task, launch.options, launch.program
    most, rows = task.constraints.max_examples, f"rows: dev {plan.dev_rows}, test {plan.test_rows}"
    lines = [f"{task.name}: {task.signature}"]
    if old := launch.migration:
        lines.append(
            f"migrates {old.version} of {old.run_id} from {old.model} to {launch.model.name}: "
            f"{1 + len(old.seeds)} prompts of that run to start from, about {plan.candidates} can be tried"
        )
        parts = f"search {plan.calls - plan.slack - plan.test_calls}"
        rows += f"; margin {options.accepted}"
    else:
        proposer = launch.proposer.name if launch.proposer else "none"
        judges = f"judge {', '.join(task.judges)}, " if task.judges else ""
        lines.append(f"model {launch.model.name}, proposer {proposer}, {judges}seed {options.seed}")
        if not program.is_fixed:
            where = "" if task.rollouts else "runs in this process and "
            what = "a row is a conversation of" if task.user else f"{task.program} {where}makes"
            makes = f"{launch.calls_each} call{'s' * (launch.calls_each > 1)} or more"
            last = f" ({seen:.1f} in its last run here)" if seen else ""
            lines.append(f"{what} {makes}{last}, which the plan counts as one until the baseline shows how many")
        parts = f"baseline {plan.baseline_calls}"
        if plan.finalists:
            parts += f" + search {plan.search_calls} (finalists {plan.final_calls} of them)"
        rows += f", {plan.per_row} calls a row" * (plan.per_row > 1)
    if options.max_examples is not None:
        rows += f"; at most {most} examples a prompt" if most else "; no examples"
    if plan.longest_prompt and not old:
        rows += f"; prompts of at most {plan.longest_prompt} tokens"
    lines.append(f"plan: {plan.calls} calls = {parts} + sealed test {plan.test_calls} + spare {plan.slack}; {rows}")
    if plan.shows:
        lines.append(f"{_tried(launch, plan)}; {plan.shows}")
    return "\n".join(lines)


def _tried(launch: Launch, plan: Plan) -> str:
    from agent.search.plan import FEW_CANDIDATES, fewest_calls  # here, as plans would slow down every command

    most = min(plan.candidates, launch.options.trials or plan.candidates)
    tried = f"tries about {most} prompts, each on {plan.rungs[0]} dev rows first"
    if most < plan.candidates:
        return f"{tried} (--trials {most})"
    if plan.candidates >= FEW_CANDIDATES:
        return tried
    start, each = plan.calls // 10 * 10, launch.calls_each
    calls = fewest_calls(launch.task, plan, start, lambda larger: larger.candidates >= FEW_CANDIDATES)
    more = f"give {calls * each} calls (--max-calls)" if calls else "give more calls (--max-calls)"
    return f"{tried}, which is few: {more} for {FEW_CANDIDATES}, or use fewer rows (--limit)"


def detectable_line(gains: Mapping[float, float]) -> str:
    """Describe the smallest gain that the sealed test can show, by baseline score. Gains are in 0 to 1; inf: none."""
    words = [
        f"{f'{100 * gain:.0f} points' if math.isfinite(gain) else 'none'} if your prompt scores {100 * rate:.0f}"
        for rate, gain in gains.items()
    ]
    return f"the smallest gain that the sealed test can show (80 % power): {', '.join(words)}"


def _dollars(usd: float | None, digits: int) -> str:
    return "unknown price" if usd is None else f"${usd:.{digits}f}"


def _roles(launch: Launch, plan: Plan) -> tuple[dict[str, PlannedRole], str]:
    from agent.jobs.embeddings import calls_to_embed  # here, as the programs would slow down every `--help`
    from agent.programs.moves.author import longest_request
    from agent.programs.prompt import PromptProgram
    from agent.search.context import sealed_rows
    from agent.search.costs import Cap, dearest, largest_calls

    task, prices, program = launch.task, launch.prices(), launch.program
    sizes, calls = {**largest_calls(task, longest_request(task))}, {**plan.by_role(launch.calls_each)}
    if program.target is not None:
        sizes["model"] = Usage()  # no model: what it costs is known when it answers
    if launch.embedder is not None:
        assert isinstance(program, PromptProgram)
        rows = [*task.dev[: plan.dev_rows], *sealed_rows(task, plan)]
        calls["embedding"], texts = calls_to_embed(program, rows)
        tokens = sum(map(launch.embedder.count_tokens, texts))
        sizes["embedding"] = Usage(-(-tokens // calls["embedding"]), 0)
    roles: dict[str, PlannedRole] = {}
    for role, names in launch.models_by_role().items():
        count, size = calls[role], sizes[role]
        usage = Usage(count * size.prompt_tokens, count * size.completion_tokens)
        unpriced = count and any(name not in prices for name in names)
        roles[role] = PlannedRole(
            model=", ".join(names),
            calls=count,
            tokens=usage.tokens,
            usd=None if unpriced else round(dearest(names, usage, prices), 4),
        )
    most = sum((Spend(each.calls, each.tokens, each.usd or 0.0) for each in roles.values()), Spend())
    part, option = 1.0, ""
    for cap in Cap.all(launch.options.budget):
        if cap.of(most) * part > cap.size:
            part, option = cap.size / cap.of(most), f"--{cap.name.replace('_', '-')}"
    for name, each in roles.items():
        usd = None if each.usd is None else math.floor(each.usd * part * 10_000) / 10_000
        roles[name] = each.model_copy(update={"tokens": int(each.tokens * part), "usd": usd})
    return roles, option
