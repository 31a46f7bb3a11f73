"""From the options of a run to task, models and plan. Calls nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import InputError
from agent.extras import not_tried
from agent.gateway.prices import Price, prices_for
from agent.jobs.agent_sources import AGENT_PART
from agent.jobs.embeddings import embedding_model
from agent.jobs.metric_check import check_metrics
from agent.jobs.models import price_of, remarks, require_batches
from agent.jobs.recorded import Migration, recorded_migration
from agent.jobs.tasks import METRIC, read_task, require_judging
from agent.jobs.tracking import run_params
from agent.jobs.work import Work
from agent.models.model_registry import DEFAULT_MODEL, create_model, file_digest
from agent.observer import NO_OBSERVER, Observer
from agent.options.run import RecordedOptions
from agent.programs.agent_call import require_agent
from agent.programs.kinds import Kind, program_for
from agent.redact import silence
from agent.scoring.task_metrics import require_all
from agent.search.registered import STRATEGIES, require_search
from agent.types import LM, Task

if TYPE_CHECKING:
    from agent.release.result import RunResult
    from agent.results.planned_run import PlannedRun
    from agent.search.costs import Models
    from agent.search.plan import Plan


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
        from agent.jobs.planned import plan_of  # here, as plans would slow down every command

        return self.made_with or plan_of(self)

    def planned(self, seen: float | None = None) -> PlannedRun:
        """Price the plan. `seen`: the calls of a row in the last run.

        Raises InputError for a missing model file, and what `plan` raises.
        """
        from agent.jobs.planned import planned

        return planned(self, seen)

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

    @property
    def params(self) -> dict[str, Any]:
        """The parameters of the run for trackers."""
        told = {name: getattr(self.options, name) for name in ("seed", "strategy", "effort", "prefer", "trials")}
        return run_params(self.task, self.models_by_role(), self.options.budget, **told)

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
    strategy = STRATEGIES.get(program.strategy(asked.strategy))
    strategy.require(asked.trials, has_proposer)
    require_search(strategy.name, asked.sampler, asked.pruner)
    return asked.completed(program.task.defaults).model_copy(update={"strategy": strategy.name})


def search_of(launch: Launch) -> Work[RunResult]:
    """Return the search or migration of a launch, ready to start."""
    from agent.jobs.optimize import RunState  # here, as the search would slow down every command

    return RunState.of(launch).work()
