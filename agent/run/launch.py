"""From the words of a run to a run that is ready to start: task, models and settings. Calls nothing.

The words (`options`) are what a user typed or gave in Python, as JSON-ready data under the names of the command line's
options: they go into the ledger, and a resumed run is made from them again.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from agent.errors import InputError
from agent.extras import not_tried
from agent.observer import NO_OBSERVER, Observer
from agent.privacy import ALLOW_TRACING, silence_tracing
from agent.run.tasks import METRIC, read_task, require_judging
from agent.search.samplers import BANDIT, RACE
from agent.stats.noninferiority import MARGIN
from agent.task.asked import READING

if TYPE_CHECKING:
    from agent.gateway.batch_course import BatchSettings
    from agent.gateway.prices import Price
    from agent.programs.kinds import Kind
    from agent.run.migration_source import Migration
    from agent.run.settings import Settings
    from agent.search.call_costs import Models
    from agent.search.plan import Plan
    from agent.types import LM, Budget, Task

OPTIONS: Mapping[str, Any] = MappingProxyType(
    {
        "task": "",
        "model": None,
        "proposer": None,
        "judge": [],
        "target_field": None,
        "prompt": None,
        "metric": None,
        "type": None,
        "input": [],
        "ignore": [],
        "encoding": None,
        "sheet": None,
        "strip_html": False,
        "knowledge": None,
        "tools": None,
        "trials": None,
        "max_calls": None,
        "max_tokens": None,
        "max_cost": None,
        "time_limit": None,
        "price": None,
        "effort": "standard",
        "strategy": None,
        "sampler": BANDIT,
        "pruner": RACE,
        "prefer": "best",
        "margin": 100 * MARGIN,
        "migrates": None,
        "detect": None,
        "anyway": False,
        "no_calibrate": False,
        "no_retrieval": False,
        "embeddings": None,
        "thinking": None,
        "max_concurrency": None,
        "max_wait": None,
        "limit": None,
        "max_demos": None,
        "seed": 0,
        "tag": [],
        "no_cache": False,
        "reading": READING,
        "neighbours": True,
        "prior": True,
        "batch": False,
        "batch_only": False,
        "batch_wait": None,
    }
)
"""Every word of a run, as it is where it is not given. A run of an older version lacks the newer ones."""


UNCAPPED_TIMES = 2
"""Without any cap a job may make so many times the calls that it plans: some fail and are tried again."""


@dataclass(frozen=True, slots=True)
class Launch:
    """A run that is ready to start. `digest` is the SHA-256 of the target's own file, or ""."""

    task: Task
    target: LM
    proposer: LM | None
    judges: tuple[LM, ...]
    settings: Settings
    program: Kind
    digest: str
    scoring: str = ""
    """What scores the answers and why, in a line."""
    embedder: LM | None = None
    """The provider's model by whose vectors examples are picked."""
    migration: Migration | None = None
    """What a migration starts from."""

    def lms(self) -> list[LM]:
        """Every model once."""
        others = [lm for lm in (self.proposer, self.embedder) if lm is not None]
        every = [self.target, *others, *self.judges, *self.program.models]
        return list({id(lm): lm for lm in every}.values())

    @property
    def models(self) -> list[str]:
        """Their names, each once."""
        return list(dict.fromkeys(lm.name for lm in self.lms()))

    def plan(self) -> Plan:
        """The plan of a run that is to begin."""
        from agent.run.settings import plan_for

        if self.migration is not None:
            return self.migration.plan(self.task, self.settings, self.models_by_role(), self.prices())
        return plan_for(self.program, self.settings, self.models_by_role(), self.prices())

    def models_by_role(self) -> Models:
        """The names of the models."""
        from agent.run.settings import models_by_role

        return models_by_role(self.target, self.proposer, self.judges, self.embedder, self.program.models)

    def prices(self) -> dict[str, Price]:
        """Their prices, as far as they are known. Raises InputError where one is needed and is not."""
        from agent.run.settings import known_prices

        return known_prices(self.models_by_role(), self.settings)

    def opening(self, plan: Plan) -> str:
        """What is about to run, in a few lines: task, models and plan."""
        task, settings, proposer = self.task, self.settings, self.proposer.name if self.proposer else "none"
        longest = f"; prompts of at most {plan.longest_prompt} tokens" if plan.longest_prompt else ""
        judges = f"judge {', '.join(task.judges)}, " if task.judges else ""
        most = task.constraints.max_demos
        is_limited = settings.options.get("max_demos") is not None
        demos = f"; {f'at most {most} demos a prompt' if most else 'no demos'}" * is_limited
        if old := self.migration:
            return (
                f"{task.name}: {task.signature}\n"
                f"migrates {old.version} of {old.run_id} from {old.model} to {self.target.name}: "
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
            f"model {self.target.name}, proposer {proposer}, {judges}seed {settings.seed}\n"
            f"{'' if self.program.is_fixed else program}"
            f"plan: {plan.calls} calls = baseline {plan.baseline_calls} + {search}sealed test {plan.test_calls} "
            f"+ spare {plan.slack}; "
            f"rows: dev {plan.dev_rows}, test {plan.test_rows}"
            f"{f', {plan.per_row} calls a row' * (plan.per_row > 1)}{demos}{longest}"
            f"{self._search_line(plan) if plan.detect is not None and plan.finalists else ''}"
        )

    def _search_line(self, plan: Plan) -> str:
        """How many prompts the plan can try, with what to change where they are few, and what its test rows show."""
        from agent.search.plan import FEW_CANDIDATES, calls_to_try
        from agent.stats.preflight import MOST_ROWS, rows_at_most

        assert plan.detect is not None
        most = min(plan.candidates, self.settings.trials or plan.candidates)
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
        """How many calls a plan counts as one."""
        return 1 if self.program.is_fixed else self.program.calls


def prepare(options: Mapping[str, Any], db: Path, observer: Observer = NO_OBSERVER, is_new: bool = True) -> Launch:
    """Loads and checks everything; calls nothing. Tracing of third parties is off from here on, unless opted in.

    Args:
        options: as `OPTIONS`; those that a run of an older version has not may be missing.
        db: the ledger; releases and kept rows lie beside it.
        observer: gets messages about the task.
        is_new: whether a run begins; the metrics of one that began are not checked again.

    Raises:
        InputError: an option, the task, a metric or a model's name is wrong.
    """
    silence(observer.on_message)
    from agent.models.model_registry import DEFAULT_MODEL, create_model, file_digest
    from agent.programs.kinds import program_for
    from agent.run.embeddings import embedding_model
    from agent.run.metric_check import check_metrics
    from agent.run.migration_source import recorded_migration

    task, reading = read_task(options, observer)
    if task.space.left_out:
        observer.on_message(not_tried(task.space.left_out))
    if options.get("metric_source"):
        _require_function(task)
        options = {**options, "metric_source": task.hashes[METRIC]}
    if is_new:
        check_metrics(task, observer.on_message)
    name = options["model"] or task.model or DEFAULT_MODEL
    target = create_model(name)
    writer = options["proposer"] or task.proposer or name
    proposer = None if writer == "none" else target if writer == name else create_model(writer)
    if options.get("judge"):
        require_judging(task)
    task = replace(task, judges=tuple(options.get("judge") or task.judges or (name,)) if task.is_judged else ())
    if options.get("thinking") is not None:
        task = replace(task, thinking=options["thinking"])
    if options.get("no_retrieval", True):  # a run of an older version has none, and resumes as it began
        task = replace(task, space=replace(task.space, retrieval=False))
    known = {name: target, **({writer: proposer} if proposer else {})}
    judges = tuple(known.get(judge) or create_model(judge) for judge in task.judges)
    digest = file_digest(name)
    played = task.user.model if task.user else ""
    program = program_for(task, target, known.get(played) or create_model(played) if played else None)
    embedder = embedding_model(program, observer)
    settings = _settings(program, {**options, "model_digest": digest}, db, proposer is not None)
    scoring = "\n".join(reading.metric_lines) if reading and not options.get("metric_source") else ""
    migration = None
    if options.get("migrates"):
        migration = recorded_migration(options, program.task, db)
        settings = replace(settings, parent=migration.run_id)
    launch = Launch(program.task, target, proposer, judges, settings, program, digest, scoring, embedder, migration)
    if settings.batch is not None:
        require_batches(launch.lms())
    for line in remarks(launch.lms(), settings.price):
        observer.on_message(line)
    return launch


def require_batches(lms: Sequence[LM]) -> None:
    """Raises InputError where none of the models has a batch API."""
    from agent.models.batch_jobs import batch_api

    if not any(batch_api(lm) for lm in lms):
        names = ", ".join(dict.fromkeys(lm.name for lm in lms))
        raise InputError(
            f"--batch: {names}: no batch API; openai/, anthropic/ and openai-compatible/ servers that offer it have one"
        )


def remarks(lms: Sequence[LM], price: Price | None, earlier: Mapping[str, Price] | None = None) -> list[str]:
    """What is to be said of the models before a job: odd addresses, recorded replies, and what is taken as free."""
    from agent.gateway.prices import assumed_free
    from agent.models.hosted import HostedModel
    from agent.models.recorded import note

    hints = dict.fromkeys(hint for lm in lms if isinstance(lm, HostedModel) for hint in lm.hints)
    names = [lm.name for lm in lms]
    recorded = [line for name in names if (line := note(name))]
    return [*hints, *recorded, *assumed_free(names, price, earlier or {})]


def _require_function(task: Task) -> None:
    from agent.scoring.user_metrics import require_all

    try:
        require_all(task)
    except InputError as error:
        raise InputError(f"{error}; go on there: promptassay.resume(RUN, metric=FUNCTION)") from None


def silence(report: Callable[[str], None] = NO_OBSERVER.on_message) -> None:
    """Takes the tracing variables of third parties out of the environment, unless opted in; `report` gets a line."""
    if removed := silence_tracing(os.environ):
        report(f"tracing is off: {', '.join(removed)} ignored ({ALLOW_TRACING}=1 allows it)")


def price_of(price: str | None) -> Price | None:
    """The price that `--price IN,OUT` gives, in US dollars per million tokens."""
    from agent.gateway.prices import fixed_price

    if not price:
        return None
    try:
        dollars_in, dollars_out = (float(part) for part in price.split(","))
        if not (0 <= dollars_in < math.inf and 0 <= dollars_out < math.inf):
            raise ValueError
    except ValueError:
        raise InputError(f"--price {price}: write IN,OUT in dollars per million tokens, such as 0.15,0.6") from None
    return fixed_price(dollars_in, dollars_out)


def earlier_prices(words: Mapping[str, Any], *models: str) -> dict[str, Price]:
    """The price that the run with these words was given, for its models."""
    price = price_of(words.get("price"))
    return {} if price is None else {model: price for model in models if model}


def _settings(program: Kind, options: Mapping[str, Any], db: Path, has_proposer: bool) -> Settings:
    from agent.gateway.gateway import MAX_WAIT
    from agent.run.settings import Settings
    from agent.search.registered import STRATEGIES
    from agent.search.samplers import require_search
    from agent.types import Budget

    own = program.task.budget
    require_dollars(options["max_cost"])
    budget = Budget(
        max_calls=options["max_calls"] or own.max_calls,
        max_tokens=options["max_tokens"] or own.max_tokens,
        max_cost=options["max_cost"] if options["max_cost"] is not None else own.max_cost,
        time_limit=seconds_of("--time-limit", options["time_limit"]) or own.time_limit,
    )
    tags = {}
    for tag in options["tag"]:
        key, equals, value = tag.partition("=")
        if not key or not equals:
            raise InputError(f"--tag {tag}: write K=V")
        tags[key] = value
    strategy = STRATEGIES.get(program.strategy(options.get("strategy")))  # a run of an older version has none
    strategy.require(program.kind, options["trials"], has_proposer)
    sampler, pruner = options.get("sampler") or BANDIT, options.get("pruner") or RACE  # an older run has none
    require_search(strategy.name, sampler, pruner)
    return Settings(
        seed=options["seed"],
        budget=budget,
        effort=options["effort"],
        strategy=strategy.name,
        sampler=sampler,
        pruner=pruner,
        prefer=options.get("prefer") or "best",  # a run of an older version has none
        margin=margin_of(options["margin"]) if options.get("margin") else None,  # an older run went by noise
        anyway=bool(options.get("anyway")),
        calibrate=program.task.calibrate and not options.get("no_calibrate", True),  # an older run had no label weights
        neighbours=bool(options.get("neighbours")),  # a run of an older version has none, and resumes as it began
        prior=bool(options.get("prior")),
        detect=detect_of(options.get("detect") or program.task.detect),
        trials=options["trials"],
        max_concurrency=options["max_concurrency"],
        use_cache=not options["no_cache"],
        price=price_of(options["price"]),
        tags=tags,
        runs_folder=db.parent,
        max_wait=seconds_of("--max-wait", options["max_wait"]) or MAX_WAIT,
        options=json.loads(json.dumps(options)),
        batch=batch_of(options),
    )


def batch_of(options: Mapping[str, Any]) -> BatchSettings | None:
    """How calls go as batches, by --batch, --batch-only and --batch-wait; None where they do not."""
    from agent.gateway.batch_course import BatchSettings

    only, wait = bool(options.get("batch_only")), seconds_of("--batch-wait", options.get("batch_wait"))
    if options.get("batch") or only:
        return BatchSettings(wait, only)
    if wait is not None:
        raise InputError("--batch-wait: says how long a batch is waited for; add --batch")
    return None


def require_dollars(max_cost: float | None) -> None:
    """Raises InputError for a cap that is no number, such as nan, or out of its range."""
    from agent.types import MOST_DOLLARS

    if max_cost is not None and not 0 <= max_cost <= MOST_DOLLARS:
        raise InputError(f"--max-cost {max_cost:g}: write US dollars from 0 to {MOST_DOLLARS:,.0f}")


def margin_of(points: float) -> float:
    """The margin that `--margin POINTS` gives, in (0, 0.5]. Raises InputError for one that is no such number."""
    if not 0 < points <= 50:
        raise InputError(f"--margin {points:g}: write the points of a loss that you accept, above 0 and at most 50")
    return points / 100


def detect_of(points: float) -> float:
    """The gain that `--detect POINTS` gives, in (0, 1]. Raises InputError for one that is no such number."""
    if not 0 < points <= 100:
        raise InputError(f"--detect {points:g}: write the points of a gain that is worth having, above 0, at most 100")
    return points / 100


def budget_of(options: Mapping[str, Any], planned: int | None = None) -> Budget:
    """The caps that were given; without any, twice the `planned` calls."""
    from agent.types import Budget

    require_dollars(options["max_cost"])
    caps = (options["max_calls"], options["max_tokens"], options["max_cost"])
    if planned is not None and caps == (None, None, None):
        return Budget(max_calls=UNCAPPED_TIMES * planned + 1)
    return Budget(*caps)


def whole_budget(options: Mapping[str, Any], planned: int, what: str) -> Budget:
    """The same for a job that says nothing before its last call. Raises InputError where --max-calls is too few."""
    most = options["max_calls"]
    if most is not None and most < planned:
        raise InputError(f"--max-calls {most}: {what} takes {planned} calls at least; raise it, or lower --repeats")
    return budget_of(options, planned)


def seconds_of(option: str, text: str | None) -> float | None:
    """What an option that is a time says, in seconds."""
    from agent.task.words import seconds as read

    try:
        return None if text is None else read(text)
    except ValueError as error:
        raise InputError(f"{option} {text}: {error}") from None
