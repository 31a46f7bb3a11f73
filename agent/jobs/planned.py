"""The plan of a run in words, and priced: the most that each role may call."""

from __future__ import annotations

import math

from agent.jobs.embeddings import calls_to_embed
from agent.jobs.launch import Launch
from agent.models.model_registry import require_files
from agent.programs.moves.author import longest_request
from agent.programs.prompt import PromptProgram
from agent.report.wording import dollars
from agent.results.planned_run import PlannedRole, PlannedRun
from agent.search.context import sealed_rows
from agent.search.costs import Cap, Means, average_call, call_costs, dearest, largest_calls
from agent.search.plan import FEW_CANDIDATES, Plan, fewest_calls, migration_plan, plan_run
from agent.search.registered import DEFAULT, STRATEGIES
from agent.stats.figures import detectable_line
from agent.stats.power import detectable_gains, smallest_margin
from agent.types import Spend, Usage


def plan_of(launch: Launch) -> Plan:
    """Return the plan of a run that was not begun. Raises as `Launch.plan` does."""
    options, models, prices = launch.options, launch.models_by_role(), launch.prices()
    if old := launch.migration:
        each = average_call(launch.task, models, prices, old.prompt_tokens)
        return migration_plan(launch.task, Means(options.budget, options.effort), len(old.sealed.answers), each)
    strategy = None if options.trials == 1 else STRATEGIES.get(options.strategy or DEFAULT)
    costs = call_costs(launch.task, models, prices)
    return plan_run(launch.program, strategy, options, costs, launch.proposer is not None)


def planned(launch: Launch, seen: float | None = None) -> PlannedRun:
    """Price the plan of a run; `seen` is that of `opening`.

    Raises InputError for a missing model file, and what `Launch.plan` raises.
    """
    require_files(launch.models)
    task, options, plan, old = launch.task, launch.options, launch.plan(), launch.migration
    roles, cap = _roles(launch, plan)
    tokens, costs = sum(role.tokens for role in roles.values()), [role.usd for role in roles.values()]
    usd = None if None in costs else round(sum(each or 0.0 for each in costs), 4)
    gains = detectable_gains(plan.test_rows)
    shown = {f"{rate:g}": gain for rate, gain in gains.items() if math.isfinite(gain)}
    tested = max(1, plan.test_rows)
    lines = [opening(launch, plan, seen)]
    for name, role in roles.items():
        if role.calls:
            cost = dollars(role.usd)
            lines.append(f"  {name:<9} {role.model}: {role.calls} calls, about {role.tokens:,} tokens, {cost}")
    allowed = f", as {cap} allows" if cap else ""
    lines.append(f"at most about {tokens:,} tokens, {dollars(usd, digits=2)}{allowed}; nothing was called")
    if old is None:
        lines.append(detectable_line(gains))
    else:
        lines.append(f"two equally good models pass this sealed test with about {options.passed_on(tested)} or more")
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
        detectable_gain=shown.get("0.5"),
        detectable_gains=shown,
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
            parts += f" + search {plan.search_calls} ({plan.final_calls} for finalists)"
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


def _roles(launch: Launch, plan: Plan) -> tuple[dict[str, PlannedRole], str]:
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
