"""From the words of a run to a run that is ready to start: task, models and settings. Calls nothing.

The words (`options`) are what a user typed or gave in Python, as JSON-ready data under the names of the command line's
options: they go into the ledger, and a resumed run is made from them again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from agent.errors import InputError
from agent.extras import command
from agent.observer import NO_OBSERVER, Observer
from agent.privacy import ALLOW_TRACING, silence_tracing
from agent.run.locations import find_task
from agent.task.asked import READING, Asked, metric_asked
from agent.task.input_files import prompt_text as prompt_text

if TYPE_CHECKING:
    from agent.gateway.prices import Price
    from agent.programs.kind import Kind
    from agent.run.settings import Settings
    from agent.search.call_costs import Models
    from agent.search.plan import Plan
    from agent.task.from_file import Reading
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
        "trials": None,
        "max_calls": None,
        "max_tokens": None,
        "max_cost": None,
        "time_limit": None,
        "price": None,
        "effort": "standard",
        "strategy": None,
        "prefer": "best",
        "anyway": False,
        "thinking": None,
        "max_concurrency": None,
        "max_wait": None,
        "limit": None,
        "seed": 0,
        "tag": [],
        "no_cache": False,
        "reading": READING,
    }
)
"""Every word of a run, as it is where it is not given. A run of an older version lacks the newer ones."""


SLACK = 2
"""Without any cap a job may make so many times the calls that it plans: some fail and are tried again."""


METRIC = "metric"
"""The part of a task, by the names of its hashes, that is a Python function or the metric of `--metric`."""


@dataclass(frozen=True, slots=True)
class Launch:
    """A run that is ready to start. `models` names those whose weights may have to be fetched."""

    task: Task
    target: LM
    author: LM | None
    judges: tuple[LM, ...]
    settings: Settings
    program: Kind
    models: tuple[str, ...]
    digest: str
    scoring: str = ""
    """What scores the answers and why, in a line."""

    def lms(self) -> list[LM]:
        """Every model once."""
        every = [self.target, *([self.author] if self.author else []), *self.judges]
        return list({id(lm): lm for lm in every}.values())

    def plan(self) -> Plan:
        """The plan of a run that is to begin."""
        from agent.run.settings import plan_for

        return plan_for(self.program, self.settings, self.models_by_role(), self.prices())

    def models_by_role(self) -> Models:
        """The names of the models."""
        from agent.run.settings import models_by_role

        return models_by_role(self.target, self.author, self.judges)

    def prices(self) -> dict[str, Price]:
        """Their prices, as far as they are known. Raises InputError where one is needed and is not."""
        from agent.run.settings import known_prices

        return known_prices(self.models_by_role(), self.settings)

    def opening(self, plan: Plan) -> str:
        """What is about to run, in a few lines: task, models and plan."""
        task, settings, author = self.task, self.settings, self.author
        longest = f"; prompts of at most {plan.longest_prompt} tokens" if plan.longest_prompt else ""
        judges = f"judge {', '.join(task.judges)}, " if task.judges else ""
        makes = f"{self.calls_each} call{'s' * (self.calls_each > 1)} or more"
        search = f"search {plan.search_calls} (finalists {plan.final_calls} of them) + " if plan.finalists else ""
        program = f"{task.program} runs in this process and makes {makes}, which the plan counts as one\n"
        return (
            f"{task.name}: {task.signature}\n"
            f"model {self.target.name}, proposer {author.name if author else 'none'}, {judges}seed {settings.seed}\n"
            f"{'' if self.program.is_fixed else program}"
            f"plan: {plan.calls} calls = baseline {plan.baseline_calls} + {search}sealed test {plan.test_calls} "
            f"+ spare {plan.slack}; "
            f"rows: dev {plan.dev_rows}, test {plan.test_rows}"
            f"{f', {plan.per_row} calls a row' * (plan.per_row > 1)}{longest}"
        )

    @property
    def calls_each(self) -> int:
        """How many calls a plan counts as one."""
        return 1 if self.program.is_fixed else self.program.calls


def prepare(options: Mapping[str, Any], db: Path, observer: Observer = NO_OBSERVER) -> Launch:
    """Loads and checks everything; calls nothing. Tracing of third parties is off from here on, unless opted in."""
    silence(observer.on_message)
    from agent.models.model_registry import DEFAULT_MODEL, create_model, file_digest
    from agent.programs.kinds import program_for

    task, reading = _read(options, observer)
    if task.space.left_out:
        observer.on_message(f"layout {', '.join(task.space.left_out)} is not tried without dspy: {command('dspy')}")
    if options.get("metric_source"):
        _require_function(task)
        options = {**options, "metric_source": task.hashes[METRIC]}
    name = options["model"] or task.model or DEFAULT_MODEL
    target = create_model(name)
    proposer = options["proposer"] or task.proposer or name
    author = None if proposer == "none" else target if proposer == name else create_model(proposer)
    if options.get("judge"):
        require_judging(task)
    task = replace(task, judges=tuple(options.get("judge") or task.judges or (name,)) if task.is_judged else ())
    if options.get("thinking") is not None:
        task = replace(task, thinking=options["thinking"])
    known = {name: target, **({proposer: author} if author else {})}
    judges = tuple(known.get(judge) or create_model(judge) for judge in task.judges)
    models = tuple(dict.fromkeys([name, *([proposer] if author else []), *task.judges]))
    digest = file_digest(name)
    program = program_for(task, target)
    settings = _settings(program, {**options, "model_digest": digest}, db)
    lms = list({id(lm): lm for lm in (target, *([author] if author else []), *judges)}.values())
    for line in remarks(lms, settings.price):
        observer.on_message(line)
    scoring = reading.metric_line if reading and not options.get("metric_source") else ""
    return Launch(program.task, target, author, judges, settings, program, models, digest, scoring)


def remarks(lms: Sequence[LM], price: Price | None, earlier: Mapping[str, Price] | None = None) -> list[str]:
    """What is to be said of the models before a job: addresses that look odd, and those that are taken as free."""
    from agent.gateway.prices import assumed_free
    from agent.models.hosted import HostedModel

    hints = [lm.hint for lm in lms if isinstance(lm, HostedModel) and lm.hint]
    return [*hints, *assumed_free([lm.name for lm in lms], price, earlier or {})]


def _require_function(task: Task) -> None:
    from agent.scoring.function_metric import require_all

    try:
        require_all(task)
    except InputError as error:
        raise InputError(f"{error}; go on there: promptassay.resume(RUN, metric=FUNCTION)") from None


def require_judging(task: Task) -> None:
    """Raises InputError where --judge was given and would change nothing."""
    if not task.is_judged:
        raise InputError(
            f'{task.name}: --judge, but no metric of the task is a judge; write name = "judge" in [[metrics]]'
        )


def task_of(options: Mapping[str, Any], observer: Observer = NO_OBSERVER) -> Task:
    """The task that the words of a run name, with as many rows as they allow.

    A metric that is a Python function takes the place of the task's own; where this process does not have it, the task
    can be read and not scored.
    """
    return _read(options, observer)[0]


def _read(options: Mapping[str, Any], observer: Observer) -> tuple[Task, Reading | None]:
    """The task, and how its data file was read where it has one."""
    task, reading = _load(options, observer)
    if source := options.get("metric_source"):
        task = _scored_by(task, options["metric"], source)
    elif reading is None and (words := options.get("metric")):
        task = _scored_as_asked(task, words)
    return _limited(task, options["limit"]), reading


def _scored_as_asked(task: Task, words: str) -> Task:
    """A task folder with the metric of `--metric` in the place of its own."""
    from agent.metrics.metric_registry import METRICS

    spec = metric_asked(words, [field.name for field in task.signature.outputs])
    field = next(each for each in task.signature.outputs if each.name == spec.field)
    rule = METRICS.get(spec.name)
    if field.type not in rule.types:
        types = ", ".join(rule.types)
        raise InputError(f"--metric {words}: scores {types}, and {field.name} is {field.type}; take another")
    for _, what in rule.faults(rule.options.model_validate(spec.options), field):
        raise InputError(f"--metric {words}: {what}")
    if spec.name in ("python", "judge") and spec.name not in [metric.name for metric in task.metrics]:
        raise InputError(f"--metric {words}: it goes by a file of the task; write it under [[metrics]] in task.toml")
    return replace(task, metrics=(spec,), hashes={**task.hashes, METRIC: hashlib.sha256(words.encode()).hexdigest()})


def _scored_by(task: Task, name: str, source: str) -> Task:
    from agent.scoring.function_metric import registered
    from agent.types import MetricSpec

    found, outputs = registered(name), task.signature.outputs
    spec = MetricSpec(name, outputs[0].name if len(outputs) == 1 else "")
    hashes = {part: digest for part, digest in task.hashes.items() if part != "metric.py"}
    return replace(task, metrics=(spec,), hashes={**hashes, METRIC: found.digest if found else source})


def source_of(part: str, options: Mapping[str, Any]) -> str:
    """What holds a `part` of the task (`dev`, `task.toml`) for its user, who may have a data file and a prompt only."""
    if part == METRIC:
        return f"the metric {options.get('metric') or ''}".rstrip()
    if not options.get("prompt"):
        return part
    file, prompt = options["task"], options["prompt"]
    named = prompt if len(prompt) <= 80 else "the prompt"
    return f"{named} (or how {file} is read)" if part == "task.toml" else str(file)


def silence(report: Callable[[str], None] = NO_OBSERVER.on_message) -> None:
    """Takes the tracing variables of third parties out of the environment, unless opted in; `report` gets a line."""
    if removed := silence_tracing(os.environ):
        report(f"tracing is off: {', '.join(removed)} ignored ({ALLOW_TRACING}=1 allows it)")


def fixed(price: str | None) -> Price | None:
    """The price that `--price IN,OUT` gives."""
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
    price = fixed(words.get("price"))
    return {} if price is None else {model: price for model in models if model}


def _load(options: Mapping[str, Any], observer: Observer) -> tuple[Task, Reading | None]:
    from agent.task.input_files import SPREADSHEETS, TABLES

    name, target, prompt = options["task"], options["target_field"], options["prompt"]
    path, asked = Path(name), Asked.of(options)
    if path.suffix.lower() in TABLES:
        if not path.is_file():
            raise InputError(f"{name}: no such file")
        if target is None or prompt is None:
            raise InputError(
                f"{name}: a data file needs --target FIELD (the column to predict) and --prompt FILE, or its text"
            )
        from agent.task.from_file import task_from_file

        instruction = prompt_text(prompt)
        if not instruction.strip():
            raise InputError(f"{prompt}:1: the prompt is empty; write what the model is told today")
        task, reading = task_from_file(path, target, instruction, options["seed"], asked=asked)
        for line in reading.lines():
            if line != reading.metric_line or not options.get("metric_source"):  # else a function of the user scores
                observer.on_message(line)
        return task, reading
    if path.suffix.lower() in SPREADSHEETS or ((target or prompt) and path.is_file()):
        raise InputError(f"{name}: not a .csv or .jsonl file; save a spreadsheet as CSV UTF-8")
    if target or prompt or asked.type or asked.inputs or asked.ignored:
        raise InputError(
            f"{name}: --target, --prompt, --type, --input and --ignore go with a data file (.csv, .jsonl); "
            "a task folder has them in task.toml"
        )
    from agent.task.load import load_task

    return load_task(find_task(name)), None


def _limited(task: Task, limit: str | None) -> Task:
    if limit is None:
        return task
    parts = limit.split("-")
    if len(parts) not in (1, 3) or not all(re.fullmatch("[1-9][0-9]{0,8}", part) for part in parts):
        raise InputError(f"--limit {limit}: write one number, or TRAIN-DEV-TEST such as 100-50-100")
    train, dev, test = (int(part) for part in (parts * 3 if len(parts) == 1 else parts))
    return replace(task, train=task.train[:train], dev=task.dev[:dev], test=task.test[:test])


def _settings(program: Kind, options: Mapping[str, Any], db: Path) -> Settings:
    from agent.gateway.gateway import MAX_WAIT
    from agent.run.settings import Settings
    from agent.search.registered import STRATEGIES
    from agent.types import Budget

    own = program.task.budget
    if options["max_cost"] is not None and not math.isfinite(options["max_cost"]):
        raise InputError(f"--max-cost {options['max_cost']}: write a number of US dollars")
    budget = Budget(
        max_calls=options["max_calls"] or own.max_calls,
        max_tokens=options["max_tokens"] or own.max_tokens,
        max_cost=options["max_cost"] if options["max_cost"] is not None else own.max_cost,
        time_limit=seconds("--time-limit", options["time_limit"]) or own.time_limit,
    )
    tags = {}
    for tag in options["tag"]:
        key, equals, value = tag.partition("=")
        if not key or not equals:
            raise InputError(f"--tag {tag}: write K=V")
        tags[key] = value
    strategy = STRATEGIES.get(program.strategy(options.get("strategy")))  # a run of an older version has none
    strategy.require(program.kind, options["trials"])
    return Settings(
        seed=options["seed"],
        budget=budget,
        effort=options["effort"],
        strategy=strategy.name,
        prefer=options.get("prefer") or "best",  # a run of an older version has none
        anyway=bool(options.get("anyway")),
        trials=options["trials"],
        max_concurrency=options["max_concurrency"],
        use_cache=not options["no_cache"],
        price=fixed(options["price"]),
        tags=tags,
        runs_folder=db.parent,
        max_wait=seconds("--max-wait", options["max_wait"]) or MAX_WAIT,
        options=json.loads(json.dumps(options)),
    )


def budget_of(options: Mapping[str, Any], planned: int | None = None) -> Budget:
    """The caps that were given; without any, twice the `planned` calls."""
    from agent.types import Budget

    caps = (options["max_calls"], options["max_tokens"], options["max_cost"])
    if planned is not None and caps == (None, None, None):
        return Budget(max_calls=SLACK * planned + 1)
    return Budget(*caps)


def whole_budget(options: Mapping[str, Any], planned: int, what: str) -> Budget:
    """The same for a job that says nothing before its last call. Raises InputError where --max-calls is too few."""
    most = options["max_calls"]
    if most is not None and most < planned:
        raise InputError(f"--max-calls {most}: {what} takes {planned} calls at least; raise it, or lower --repeats")
    return budget_of(options, planned)


def seconds(option: str, text: str | None) -> float | None:
    """What an option that is a time says, in seconds."""
    from agent.task.words import seconds as read

    try:
        return None if text is None else read(text)
    except ValueError as error:
        raise InputError(f"{option} {text}: {error}") from None
