"""From the options of a run to a run that is ready to start: task, models and plan. Calls nothing."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import InputError
from agent.extras import not_tried
from agent.jobs.models import price_of, remarks, require_batches
from agent.jobs.session import Work, run_work
from agent.jobs.tasks import METRIC, read_task, require_judging
from agent.jobs.tracking import NO_TRACKING, Tracking
from agent.observer import NO_OBSERVER, Observer
from agent.redact import ALLOW_TRACING, silence_tracing
from agent.types import Spend, Usage

if TYPE_CHECKING:
    from agent.gateway.prices import Price
    from agent.jobs.interrupts import StopSignal
    from agent.jobs.observers import Watcher
    from agent.jobs.recorded import Migration
    from agent.options.jobs import RecordedOptions, RunOptions
    from agent.programs.kinds import Kind
    from agent.release.result import RunResult
    from agent.search.costs import Models
    from agent.search.plan import Plan
    from agent.search.program import Program
    from agent.types import LM, Budget, Task


@dataclass(frozen=True, slots=True)
class Launch:
    """A run that is ready to start."""

    task: Task
    model: LM
    proposer: LM | None
    judges: tuple[LM, ...]
    asked: RecordedOptions
    """The given options: what the ledger stores."""
    options: RecordedOptions
    """The options with defaults from the task."""
    program: Kind
    scoring: str = ""
    """How answers are scored and why, in one line."""
    embedder: LM | None = None
    """The provider's model by whose vectors examples are picked."""
    migration: Migration | None = None
    """The starting point of a migration."""
    parent: str | None = None
    """The run that this one forks or migrates."""
    run_id: str = ""
    """The run to continue; "": a new one."""
    made_with: Plan | None = None
    """The plan of the run to continue."""
    note: str = ""
    """A message before all others."""

    def lms(self) -> list[LM]:
        """Return every model once."""
        others = [lm for lm in (self.proposer, self.embedder) if lm is not None]
        every = [self.model, *others, *self.judges, *self.program.models]
        return list({id(lm): lm for lm in every}.values())

    @property
    def models(self) -> list[str]:
        """Model names, each once."""
        return list(dict.fromkeys(lm.name for lm in self.lms()))

    def plan(self) -> Plan:
        """Return the plan of the run. Raises BudgetRefused for a cap that is too small."""
        from agent.search.costs import Means, average_call
        from agent.search.plan import migration_plan

        if self.made_with is not None:
            return self.made_with
        models, prices = self.models_by_role(), self.prices()
        if (old := self.migration) is None:
            return plan_for(self.program, self.options, models, prices)
        each = average_call(self.task, models, prices, old.prompt_tokens)
        return migration_plan(self.task, Means(self.options.budget, self.options.effort), len(old.sealed.answers), each)

    def models_by_role(self) -> Models:
        return models_by_role(self.model, self.proposer, self.judges, self.embedder, self.program.models)

    def prices(self) -> dict[str, Price]:
        """Return prices by model name. Raises InputError for a missing price that a cap needs."""
        from agent.gateway.prices import prices_for

        return prices_for(self.models, self.options.budget, price_of(self.options))

    def opening(self, plan: Plan) -> str:
        """Describe what is about to run: task, models and plan."""
        task, options, proposer = self.task, self.options, self.proposer.name if self.proposer else "none"
        longest = f"; prompts of at most {plan.longest_prompt} tokens" if plan.longest_prompt else ""
        judges = f"judge {', '.join(task.judges)}, " if task.judges else ""
        most = task.constraints.max_examples
        is_limited = options.max_examples is not None
        demos = f"; {f'at most {most} examples a prompt' if most else 'no examples'}" * is_limited
        if old := self.migration:
            return (
                f"{task.name}: {task.signature}\n"
                f"migrates {old.version} of {old.run_id} from {old.model} to {self.model.name}: "
                f"{1 + len(old.seeds)} prompts of that run to start from, about {plan.candidates} can be tried\n"
                f"plan: {plan.calls} calls = search {plan.calls - plan.slack - plan.test_calls} + sealed test "
                f"{plan.test_calls} + spare {plan.slack}; rows: dev {plan.dev_rows}, test {plan.test_rows}; "
                f"margin {100 * old.margin:g} points{demos}"
            )
        makes = f"{self.calls_each} call{'s' * (self.calls_each > 1)} or more"
        search = f"search {plan.search_calls} (finalists {plan.final_calls} of them) + " if plan.finalists else ""
        what = "a row is a conversation of" if task.user else f"{task.program} runs in this process and makes"
        program = f"{what} {makes}, which the plan counts as one\n"
        return (
            f"{task.name}: {task.signature}\n"
            f"model {self.model.name}, proposer {proposer}, {judges}seed {options.seed}\n"
            f"{'' if self.program.is_fixed else program}"
            f"plan: {plan.calls} calls = baseline {plan.baseline_calls} + {search}sealed test {plan.test_calls} "
            f"+ spare {plan.slack}; "
            f"rows: dev {plan.dev_rows}, test {plan.test_rows}"
            f"{f', {plan.per_row} calls a row' * (plan.per_row > 1)}{demos}{longest}"
            f"{self._search_line(plan) if plan.detect is not None and plan.finalists else ''}"
        )

    def _search_line(self, plan: Plan) -> str:
        from agent.search.plan import FEW_CANDIDATES, calls_to_try
        from agent.stats.preflight import MOST_ROWS, rows_at_most

        assert plan.detect is not None
        most = min(plan.candidates, self.options.trials or plan.candidates)
        tried = f"tries about {most} prompts, each on {plan.rungs[0]} dev rows first"
        if most < plan.candidates:
            tried += f" (--trials {most})"
        elif plan.candidates < FEW_CANDIDATES:
            calls = calls_to_try(FEW_CANDIDATES, self.task, plan)
            more = f"give {calls * self.calls_each} calls (--max-calls)" if calls else "give more calls (--max-calls)"
            tried += f", which is few: {more} for {FEW_CANDIDATES}, or use fewer rows (--limit)"
        needed = rows_at_most(plan.detect)
        points = f"a gain of {100 * plan.detect:g} points (--detect)"
        most_rows = f"up to {needed:,}" if needed < MOST_ROWS else f"{MOST_ROWS:,} or more"
        return f"\n{tried}; {points} takes {most_rows} test rows to show"

    @property
    def calls_each(self) -> int:
        """The calls that a plan counts as one."""
        return 1 if self.program.is_fixed else self.program.calls


def prepare(asked: RecordedOptions, db: Path, observer: Observer = NO_OBSERVER, is_new: bool = True) -> Launch:
    """Load and check everything; call nothing. Switches off tracing of third parties unless opted in.

    Args:
        asked: the options of the run, and its task.
        db: the ledger; releases and kept rows are next to it.
        observer: gets messages about the task.
        is_new: whether a run begins; the metrics of a started run are not checked again.

    Raises:
        InputError: an option, the task, a metric or a model's name is wrong.
    """
    silence(observer.on_message)
    from agent.jobs.embeddings import embedding_model
    from agent.jobs.metric_check import check_metrics
    from agent.jobs.recorded import recorded_migration
    from agent.models.model_registry import DEFAULT_MODEL, create_model, file_digest
    from agent.programs.kinds import program_for

    task, reading = read_task(asked, observer)
    asked = asked.filled(task.run)
    if task.space.left_out:
        observer.on_message(not_tried(task.space.left_out))
    if asked.metric_source:
        _require_function(task)
        asked = asked.changed(metric_source=task.hashes[METRIC])
    if is_new:
        check_metrics(task, observer.on_message)
    name = asked.model or task.model or DEFAULT_MODEL
    model = create_model(name)
    writer = asked.proposer or task.proposer or name
    proposer = None if writer == "none" else model if writer == name else create_model(writer)
    if asked.judge:
        require_judging(task)
    task = replace(task, judges=tuple(asked.judge or task.judges or (name,)) if task.is_judged else ())
    task = asked.applied_to(task)
    if not asked.retrieval:
        task = replace(task, space=replace(task.space, retrieval=False))
    known = {name: model, **({writer: proposer} if proposer else {})}
    judges = tuple(known.get(judge) or create_model(judge) for judge in task.judges)
    asked = asked.changed(model_digest=file_digest(name))
    played = task.user.model if task.user else ""
    program = program_for(task, model, known.get(played) or create_model(played) if played else None)
    embedder = embedding_model(program, observer)
    scoring = "\n".join(reading.metric_lines) if reading and not asked.metric_source else ""
    migration = recorded_migration(asked, program.task, db) if asked.migrates else None
    launch = Launch(
        program.task,
        model,
        proposer,
        judges,
        asked,
        resolved(asked, program, proposer is not None),
        program,
        scoring,
        embedder,
        migration,
        migration.run_id if migration else None,
    )
    if launch.options.is_batched:
        require_batches(launch.lms())
    for line in remarks(launch.lms(), price_of(asked)):
        observer.on_message(line)
    return launch


def resolved(asked: RecordedOptions, program: Kind, has_proposer: bool = True) -> RecordedOptions:
    """Fill options from the task. Raises InputError for an impossible search."""
    from agent.search.registered import STRATEGIES, require_search

    task, own = program.task, program.task.budget
    strategy = STRATEGIES.get(program.strategy(asked.strategy))
    strategy.require(program.kind, asked.trials, has_proposer)
    require_search(strategy.name, asked.sampler, asked.pruner)
    return asked.model_copy(
        update={
            "max_calls": asked.max_calls or own.max_calls,
            "max_tokens": asked.max_tokens or own.max_tokens,
            "max_cost": own.max_cost if asked.max_cost is None else asked.max_cost,
            "time_limit": asked.time_limit or own.time_limit,
            "strategy": strategy.name,
            "calibrate": asked.calibrate and task.calibrate,
            "detect": asked.detect or task.detect,
        }
    )


def search_of(launch: Launch) -> Work[RunResult]:
    """Return the search or migration of a launch, ready to start."""
    from agent.jobs.optimize import RunState

    return RunState.of(launch).work()


def start(
    launch: Launch, db: Path, watcher: Watcher, stop: StopSignal | None = None, tracking: Tracking = NO_TRACKING
) -> RunResult:
    """Run a search or a migration to its end, as `run_work`."""
    return run_work(search_of(launch), db, watcher, stop, tracking)


def _require_function(task: Task) -> None:
    from agent.scoring.task_metrics import require_all

    try:
        require_all(task)
    except InputError as error:
        raise InputError(f"{error}; continue with promptassay.resume(RUN, metric=FUNCTION)") from None


def silence(report: Callable[[str], None] = NO_OBSERVER.on_message) -> None:
    """Remove tracing variables of third parties from the environment unless opted in; `report` gets a line."""
    if removed := silence_tracing(os.environ):
        report(f"tracing is off: {', '.join(removed)} ignored ({ALLOW_TRACING}=1 allows it)")


def models_by_role(
    model: LM, proposer: LM | None, judges: Sequence[LM], embedder: LM | None = None, others: Sequence[LM] = ()
) -> Models:
    """Return the names of a run's models by role.

    The role "embedding" exists if a provider makes vectors; `others` are asked in addition to the target.
    """
    return {
        "model": list(dict.fromkeys([model.name, *(other.name for other in others)])),
        "proposer": [proposer.name] if proposer else [],
        "judge": [judge.name for judge in judges],
        **({"embedding": [embedder.name]} if embedder else {}),
    }


def plan_for(program: Program, options: RunOptions, models: Models, prices: Mapping[str, Price]) -> Plan:
    """Return the plan of a new run. Raises BudgetRefused for a cap that is too small."""
    from agent.search.costs import Means, call_costs
    from agent.search.plan import DETECT, plan_run
    from agent.search.registered import DEFAULT, STRATEGIES

    strategy = None if options.trials == 1 else STRATEGIES.get(options.strategy or DEFAULT)
    costs = call_costs(program.task, models, prices)
    tested = 3 if options.prefer == "cheap" else 2
    has_proposer, detect = bool(models["proposer"]), (options.detect or 100 * DETECT) / 100
    return plan_run(program, strategy, Means(options.budget, options.effort, costs), has_proposer, detect, tested)


@dataclass(frozen=True, slots=True)
class Estimate:
    """The most that a run takes.

    Args:
        roles: model, calls, tokens and US dollars (None: unknown) by role.
        cap: the option whose cap limits them, or "".
        gains: the smallest detectable gain in score by the rate of changed rows.
        found: the object of --dry-run --json.
    """

    plan: Plan
    roles: Mapping[str, Mapping[str, Any]]
    tokens: int
    usd: float | None
    cap: str
    gains: Mapping[float, float]
    found: Mapping[str, Any]


def estimate(launch: Launch) -> Estimate:
    """Return the priced plan: the most that each role may call.

    Raises InputError for a missing model file, and what `Launch.plan` raises.
    """
    from agent.models.model_registry import require_files
    from agent.programs.moves.author import longest_request
    from agent.search.costs import dearest, largest_calls
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
    found = {
        "task": task.name,
        "model": launch.model.name,
        "metrics": [metric.name for metric in task.metrics],
        "scoring": launch.scoring,
        "max_examples": task.constraints.max_examples,
        "plan": plan.as_dict(),
        "roles": rows,
        "tokens_at_most": tokens,
        "cost_usd_at_most": total,
        "detectable_gain": gain if math.isfinite(gain) else None,
        "detectable_gains": {f"{rate:g}": least for rate, least in gains.items() if math.isfinite(least)},
    }
    return Estimate(plan, rows, tokens, total, cap, gains, found)


def _of_embedding(launch: Launch, plan: Plan) -> tuple[int, Usage]:
    from agent.jobs.embeddings import calls_to_embed
    from agent.programs.prompt import PromptProgram
    from agent.search.context import sealed_rows

    assert launch.embedder is not None
    assert isinstance(launch.program, PromptProgram)
    task = launch.task
    calls, texts = calls_to_embed(launch.program, [*task.dev[: plan.dev_rows], *sealed_rows(task, plan)])
    tokens = sum(map(launch.embedder.count_tokens, texts))
    return calls, Usage(-(-tokens // calls), 0)


def _scale_to_caps(rows: dict[str, dict[str, Any]], budget: Budget) -> str:
    from agent.search.costs import Cap

    most = sum((Spend(row["calls"], row["tokens"], row["usd"] or 0.0) for row in rows.values()), Spend())
    part, option = 1.0, ""
    for cap in Cap.all(budget):
        if cap.of(most) * part > cap.size:
            part, option = cap.size / cap.of(most), f"--{cap.name.replace('_', '-')}"
    for row in rows.values():
        row["tokens"] = int(row["tokens"] * part)
        row["usd"] = None if row["usd"] is None else math.floor(row["usd"] * part * 10_000) / 10_000
    return option
