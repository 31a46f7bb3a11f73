"""From the options of a run to a run that is ready to start: task, models and plan. Calls nothing."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import InputError, Interrupted
from agent.extras import not_tried
from agent.gateway.prices import Price, prices_for
from agent.jobs.agent_sources import AGENT_PART
from agent.jobs.locations import open_history
from agent.jobs.models import price_of, remarks, require_batches
from agent.jobs.session import Session, Work
from agent.jobs.tasks import METRIC, read_task, require_judging, source_of
from agent.jobs.tracking import run_params
from agent.ledger.provenance import new_run_id, tool_version
from agent.ledger.query import started_with
from agent.models.model_registry import DEFAULT_MODEL, create_model, file_digest
from agent.observer import NO_OBSERVER, Observer
from agent.options.jobs import RecordedOptions, ResumeOptions
from agent.programs.agent_call import require_agent
from agent.redact import ALLOW_TRACING, silence_tracing
from agent.scoring.task_metrics import require_all
from agent.search.registered import DEFAULT, STRATEGIES, require_search
from agent.stats.preflight import MOST_ROWS, rows_at_most
from agent.types import LM, Task

if TYPE_CHECKING:
    from agent.jobs.recorded import Migration
    from agent.programs.kinds import Kind
    from agent.release.result import RunResult
    from agent.search.costs import Models
    from agent.search.plan import Plan
    from agent.search.program import Describes


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
        from agent.search.costs import Means, average_call, call_costs  # here, as plans would slow down every command
        from agent.search.plan import DETECT, migration_plan, plan_run

        if self.made_with is not None:
            return self.made_with
        options, models, prices = self.options, self.models_by_role(), self.prices()
        if old := self.migration:
            each = average_call(self.task, models, prices, old.prompt_tokens)
            return migration_plan(self.task, Means(options.budget, options.effort), len(old.sealed.answers), each)
        means = Means(options.budget, options.effort, call_costs(self.task, models, prices))
        strategy = None if options.trials == 1 else STRATEGIES.get(options.strategy or DEFAULT)
        detect = (options.detect or 100 * DETECT) / 100
        tested = options.tested + len(self.program.references())
        return plan_run(self.program, strategy, means, bool(models["proposer"]), detect, tested)

    def models_by_role(self) -> Models:
        """Return model names by role; the role "embedding" exists if a provider makes vectors."""
        return {
            "model": list(dict.fromkeys(lm.name for lm in (self.model, *self.program.models))),
            "proposer": [self.proposer.name] if self.proposer else [],
            "judge": [judge.name for judge in self.judges],
            **({"embedding": [self.embedder.name]} if self.embedder else {}),
        }

    def prices(self) -> dict[str, Price]:
        """Return prices by model name. Raises InputError for a missing price that a cap needs."""
        return prices_for(self.models, self.options.budget, price_of(self.options))

    def opening(self, plan: Plan, seen: float | None = None) -> str:
        """Describe what is about to run: task, models and plan. `seen`: the calls of a row in the last run."""
        task, options, proposer = self.task, self.options, self.proposer.name if self.proposer else "none"
        most, rows = task.constraints.max_examples, f"rows: dev {plan.dev_rows}, test {plan.test_rows}"
        lines = [f"{task.name}: {task.signature}"]
        if old := self.migration:
            lines.append(
                f"migrates {old.version} of {old.run_id} from {old.model} to {self.model.name}: "
                f"{1 + len(old.seeds)} prompts of that run to start from, about {plan.candidates} can be tried"
            )
            parts = f"search {plan.calls - plan.slack - plan.test_calls}"
            rows += f"; margin {100 * old.accepted_loss:g} points"
        else:
            judges = f"judge {', '.join(task.judges)}, " if task.judges else ""
            lines.append(f"model {self.model.name}, proposer {proposer}, {judges}seed {options.seed}")
            if not self.program.is_fixed:
                where = "" if task.rollouts else "runs in this process and "
                what = "a row is a conversation of" if task.user else f"{task.program} {where}makes"
                makes = f"{self.calls_each} call{'s' * (self.calls_each > 1)} or more"
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
        if plan.detect is not None and plan.finalists and not old:
            lines.append(self._search_line(plan, plan.detect))
        return "\n".join(lines)

    def _search_line(self, plan: Plan, detect: float) -> str:
        from agent.search.plan import FEW_CANDIDATES, fewest_calls

        most = min(plan.candidates, self.options.trials or plan.candidates)
        tried = f"tries about {most} prompts, each on {plan.rungs[0]} dev rows first"
        if most < plan.candidates:
            tried += f" (--trials {most})"
        elif plan.candidates < FEW_CANDIDATES:
            start = plan.calls // 10 * 10
            calls = fewest_calls(self.task, plan, start, lambda larger: larger.candidates >= FEW_CANDIDATES)
            more = f"give {calls * self.calls_each} calls (--max-calls)" if calls else "give more calls (--max-calls)"
            tried += f", which is few: {more} for {FEW_CANDIDATES}, or use fewer rows (--limit)"
        needed = rows_at_most(detect)
        points = f"a gain of {100 * detect:g} points (--detect)"
        most_rows = f"up to {needed:,}" if needed < MOST_ROWS else f"{MOST_ROWS:,} or more"
        return f"{tried}; {points} takes {most_rows} test rows to show"

    def work(
        self, perform: Callable[[Session[RunResult]], Awaitable[RunResult]], plan: Plan, programs: Sequence[Describes]
    ) -> Work[RunResult]:
        """Return the run, ready to start. `programs` describe its candidates."""
        options = self.options
        return Work(
            "",
            "",
            perform,
            self.program.task,
            self.lms(),
            options,
            plan.calls,
            options.budget,
            models=(self.model.name,),
            use_cache=options.cache,
            seed=options.seed,
            after_interrupt=str(Interrupted()),
            opening=f"{self.note}\n{self.opening(plan)}".lstrip(),
            programs=programs,
            stored=self.asked.stored(),
            tags=self.asked.tag,
            plan=asdict(plan),
            proposer=self.proposer.name if self.proposer else "",
            parent=self.parent,
            run_id=self.run_id or new_run_id(),
            is_resumed=bool(self.run_id),
            params=run_params(
                self.task,
                {role: list(names) for role, names in self.models_by_role().items()},
                options.budget,
                **{name: getattr(options, name) for name in ("seed", "strategy", "effort", "prefer", "trials")},
            ),
        )

    @property
    def calls_each(self) -> int:
        """The calls that a plan counts as one."""
        return 1 if self.program.is_fixed else self.program.calls


def prepare(asked: RecordedOptions, db: Path, observer: Observer = NO_OBSERVER, is_new: bool = True) -> Launch:
    """Load and check everything; call nothing. Switches off tracing of third parties unless opted in.

    The metrics of a run that is not new are not checked again. Raises InputError for a wrong option, task, metric or
    model name.
    """
    silence(observer.on_message)
    from agent.jobs.embeddings import embedding_model
    from agent.jobs.metric_check import check_metrics
    from agent.jobs.recorded import recorded_migration
    from agent.programs.kinds import program_for

    task, reading = read_task(asked, observer)
    asked = asked.filled(task.run)
    if task.space.left_out:
        observer.on_message(not_tried(task.space.left_out))
    if asked.metric_source:
        try:
            require_all(task)
        except InputError as error:
            raise InputError(f"{error}; continue with promptassay.resume(RUN, metric=FUNCTION)") from None
        asked = asked.changed(metric_source=task.hashes[METRIC])
    if task.rollouts is not None and task.rollouts.function:
        require_agent(task, "continue with promptassay.resume(RUN, agent=FUNCTION)")
    if asked.agent_source:
        asked = asked.changed(agent_source=task.hashes[AGENT_PART])
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
    if not asked.shape:
        task = replace(task, space=replace(task.space, shape=False))
    known = {name: model, **({writer: proposer} if proposer else {})}
    judges = tuple(known.get(judge) or create_model(judge) for judge in task.judges)
    asked = asked.changed(model_digest=file_digest(name))
    played = task.user.model if task.user else ""
    program = program_for(task, model, known.get(played) or create_model(played) if played else None)
    model = program.target or model
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
    task, own = program.task, program.task.budget
    strategy = STRATEGIES.get(program.strategy(asked.strategy))
    strategy.require(asked.trials, has_proposer)
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
    from agent.jobs.optimize import RunState  # here, as the search would slow down every command

    return RunState.of(launch).work()


def silence(report: Callable[[str], None] = NO_OBSERVER.on_message) -> None:
    """Remove third parties' tracing variables from the environment, unless opted in. `report` gets a line."""
    if removed := silence_tracing(os.environ):
        report(f"tracing is off: {', '.join(removed)} ignored ({ALLOW_TRACING}=1 allows it)")


# -- a run that was interrupted, killed or stopped --------------------------------------------------------------------

UNFINISHED = ("running", "interrupted", "killed", "failed")


def prepare_resume(run: str, changes: ResumeOptions, db: Path, observer: Observer = NO_OBSERVER) -> Launch:
    """Load a run as it was started, and check that it can continue. "": the latest unfinished one."""
    from agent.search.plan import Plan

    with closing(open_history(db)) as history:
        row = history.run(run) if run else unfinished(history.runs(), db)
        costs = history.costs(row["id"])
    paid = [cost for cost in costs if cost["state"] != "cached"]
    begun, fork, model = started_with(row), changes.fork, changes.model
    if row["status"] not in UNFINISHED and not fork:
        raise InputError(
            f"{row['id']}: this run is {row['status']}; use --fork to start a new one that reuses its calls"
        )
    if model and model != row["model"] and not fork:
        raise InputError(f"{row['id']}: another model makes another run; add --fork")
    given = {name: value for name, value in changes if name != "fork" and value is not None}
    if not fork:
        _require_above(given, paid, row["id"])
    launch = prepare(begun.model_copy(update=given), db, observer, is_new=fork)
    if fork:
        return replace(launch, parent=row["id"], note=f"forking {row['id']} ({row['status']})")
    if changed := changes_since(row, launch):
        raise InputError(
            "\n".join([f"{row['id']}: {what}" for what in changed] + ["put it back, or start a new run with --fork"])
        )
    plan = Plan.restored(row["plan"]) if row["plan"] else launch.plan()
    short = _short_of_plan(plan, launch.calls_each, costs, launch.options.max_calls)
    note = f"resuming {row['id']} ({row['status']})\n{short}".rstrip()
    return replace(launch, run_id=row["id"], made_with=plan, note=note)


def _require_above(given: Mapping[str, Any], paid: Sequence[Mapping[str, Any]], run_id: str) -> None:
    spent = {
        "max_calls": sum(row["calls"] for row in paid),
        "max_tokens": sum(row["prompt_tokens"] + row["completion_tokens"] for row in paid),
        "max_cost": sum(row["cost_usd"] or 0.0 for row in paid),
    }
    below = [
        f"{run_id}: --{name.replace('_', '-')} {given[name]:g} is below what was paid, {used:.6g}; give more, or leave "
        "it out"
        for name, used in spent.items()
        if name in given and given[name] < used
    ]
    if below:
        raise InputError("\n".join(below))


def _short_of_plan(plan: Plan, per_row: int, costs: Sequence[Mapping[str, Any]], most: int | None) -> str:
    paid = sum(row["calls"] for row in costs if row["state"] != "cached")
    used = sum(row["calls"] for row in costs if row["state"] in ("ok", "cached"))
    missing = plan.calls * per_row - used
    if most is None or most - paid >= missing - plan.slack * per_row:
        return ""
    lost = sum(row["calls"] for row in costs if row["state"] not in ("ok", "cached"))
    why = f"{lost} of the {paid} calls so far brought nothing"
    if most < plan.calls * per_row:
        why = f"{most} calls are fewer than the {plan.calls * per_row} that it was planned with"
    return f"{why}, so the search will end earlier than planned; --max-calls {paid + missing} pays the whole of it"


def unfinished(runs: Sequence[dict[str, Any]], db: Path) -> dict[str, Any]:
    """Return the latest unfinished search. Raises InputError without one."""
    for run in runs:
        if run["status"] in UNFINISHED and not (run["options"] or {}).get("command"):
            return run
    raise InputError(
        f"{db}: no run is unfinished; `optimize runs` lists them, `optimize resume RUN --fork` starts a new one"
    )


def changes_since(run: dict[str, Any], launch: Launch, proposes: bool = True) -> list[str]:
    """Return what changed since the run began, a line each. `proposes`: a changed proposer counts, too."""
    changed = task_changes(run, launch.task)
    if run["model"] != launch.model.name:
        changed.append(f"the model is {launch.model.name}, it was {run['model']}")
    if started_with(run).model_digest != launch.asked.model_digest:
        changed.append(f"the file behind {launch.model.name} changed")
    proposer = launch.proposer.name if launch.proposer else ""
    if proposes and run["proposer"] != proposer:
        changed.append(f"the proposer is {proposer or 'none'}, it was {run['proposer'] or 'none'}")
    if run["tool"] != tool_version():
        changed.append(f"this is version {tool_version()}, the run was made with {run['tool']}")
    return changed


def task_changes(run: dict[str, Any], task: Task) -> list[str]:
    """Return which files of a task changed since the run began, a line each."""
    then, now = run["hashes"], dict(task.hashes)
    parts = [(name, "changed" if name in now else "is gone") for name in then if then[name] != now.get(name)]
    parts += [(name, "is new") for name in now if name not in then]
    options = started_with(run)
    return list(dict.fromkeys(f"{source_of(name, options)} {what}" for name, what in parts))
