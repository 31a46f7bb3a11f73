"""From the words of the command line to a run: task, models and settings, and the `asyncio.run` around it.

`options` is what a user typed, as JSON-ready data: it goes into the ledger, and a resumed run is made from it again.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import shlex
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.common import LEDGER, find_task, plain, releases_folder
from agent.errors import AgentError, InputError, ReleaseError, RunRefused
from agent.extras import command
from agent.privacy import ALLOW_TRACING, silence_tracing

if TYPE_CHECKING:
    from agent.cli.progress import Progress
    from agent.gateway.prices import Price
    from agent.ledger.store import Ledger
    from agent.optimize import Resumed
    from agent.planning import Settings
    from agent.programs.making import Kind
    from agent.search.plan import Plan
    from agent.types import LM, Task

EXIT_INTERRUPTED = 130
NOTHING_ANSWERED = "nothing was answered: mend this, then type the same command again"
PRICE_HELP = "IN,OUT: dollars per million tokens, for models whose price is not known; a known one stands."
THINKING_HELP = "Tokens that models may think in each call beside the reply: for reasoning models. Default: the task's."
MAX_WAIT_HELP = "Longest wait for a provider that is down or asks to wait: 90, 5m. Default 5m."


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

    def lms(self) -> list[LM]:
        """Every model once."""
        every = [self.target, *([self.author] if self.author else []), *self.judges]
        return list({id(lm): lm for lm in every}.values())

    def plan(self) -> Plan:
        """The plan of a run that is to begin."""
        from agent.planning import plan_for

        return plan_for(self.program, self.settings, self.target, self.author, self.judges)

    @property
    def calls_each(self) -> int:
        """How many calls a plan counts as one."""
        return 1 if self.program.is_fixed else self.program.calls


def prepare(options: Mapping[str, Any], db: Path, quiet: bool) -> Launch:
    """Loads and checks everything; calls nothing. Tracing of third parties is off from here on, unless opted in."""
    silence(quiet)
    from agent.models.catalog import DEFAULT_MODEL, create_model, file_digest
    from agent.programs.catalog import program_for

    task = task_of(options, quiet)
    if task.space.left_out and not quiet:
        click.echo(f"layout {', '.join(task.space.left_out)} is not tried without dspy: {command('dspy')}", err=True)
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
    return Launch(program.task, target, author, judges, settings, program, models, digest)


def require_judging(task: Task) -> None:
    """Raises InputError where --judge was given and would change nothing."""
    if not task.is_judged:
        raise InputError(
            f'{task.name}: --judge, but no metric of the task is a judge; write name = "judge" in [[metrics]]'
        )


def task_of(options: Mapping[str, Any], quiet: bool) -> Task:
    """The task that the words of a run name, with as many rows as they allow."""
    task = _load(options["task"], options["target_field"], options["prompt"], options["seed"], quiet)
    return _limited(task, options["limit"])


def source_of(part: str, options: Mapping[str, Any]) -> str:
    """What holds a `part` of the task (`dev`, `task.toml`) for its user, who may have a data file and a prompt only."""
    if not options.get("prompt"):
        return part
    file = options["task"]
    return f"{options['prompt']} (or how {file} is read)" if part == "task.toml" else str(file)


def silence(quiet: bool) -> None:
    """Takes the tracing variables of third parties out of the environment, unless opted in."""
    if (removed := silence_tracing(os.environ)) and not quiet:
        click.echo(f"tracing is off: {', '.join(removed)} ignored ({ALLOW_TRACING}=1 allows it)", err=True)


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


def _load(name: str, target: str | None, prompt: str | None, seed: int, quiet: bool) -> Task:
    from agent.task.data import SPREADSHEETS

    path = Path(name)
    if path.suffix.lower() in (".csv", ".jsonl"):
        if not path.is_file():
            raise InputError(f"{name}: no such file")
        if target is None or prompt is None:
            raise InputError(f"{name}: a data file needs --target FIELD (the column to predict) and --prompt FILE")
        from agent.task.intake import task_from_file

        try:
            instruction = Path(prompt).read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{prompt}: the prompt cannot be read ({error}); give a UTF-8 text file") from error
        if not instruction.strip():
            raise InputError(f"{prompt}:1: the prompt is empty; write what the model is told today")
        task, reading = task_from_file(path, target, instruction, seed)
        if not quiet:
            click.echo("\n".join(plain(line) for line in reading.lines()), err=True)
        return task
    if path.suffix.lower() in SPREADSHEETS or ((target or prompt) and path.is_file()):
        raise InputError(f"{name}: not a .csv or .jsonl file; save a spreadsheet as CSV UTF-8")
    if target or prompt:
        raise InputError(
            f"{name}: --target and --prompt go with a .csv or .jsonl file; a task folder has them in task.toml"
        )
    from agent.task.load import load_task

    return load_task(find_task(name))


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
    from agent.planning import Settings
    from agent.search.strategies import STRATEGIES
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
    strategy = program.strategy(options.get("strategy"))  # a run of an older version has none
    STRATEGIES.get(strategy).require(program.kind, options["trials"])
    return Settings(
        seed=options["seed"],
        budget=budget,
        effort=options["effort"],
        strategy=strategy,
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


def seconds(option: str, text: str | None) -> float | None:
    """What an option that is a time says, in seconds."""
    from agent.task.words import seconds as read

    try:
        return None if text is None else read(text)
    except ValueError as error:
        raise InputError(f"{option} {text}: {error}") from None


def fetch_weights(launch: Launch, progress: Progress) -> None:
    from agent.models.catalog import fetch

    for name in launch.models:
        if name.startswith("local/") and not name.endswith(".gguf"):
            fetch(name, progress.download)


def execute(launch: Launch, db: Path, progress: Progress, resumed: Resumed | None = None) -> dict[str, Any]:
    """Runs to the end. The first Ctrl-C lets what is in flight land, the second leaves at once; both end with 130.

    Whatever ends the run early carries the command that resumes it.
    """
    from agent.ledger.store import Ledger
    from agent.models.catalog import check_keys
    from agent.optimize import Run

    check_keys(launch.lms())
    ledger = Ledger(db)
    try:
        _catch_up(ledger, db)
        run = Run(
            launch.task,
            launch.target,
            launch.author,
            ledger,
            launch.settings,
            progress,
            resumed,
            launch.judges,
            lambda line: progress.say(plain(line)),
            launch.program,
        )
        command = resume_command_for(run.id, db)
        new = [] if resumed else unknown(launch.lms(), ledger, launch.task, launch.settings.use_cache)
        try:
            return asyncio.run(watched(run, launch.lms(), progress, command, new))
        except AgentError as error:
            if isinstance(error, InputError):
                raise
            is_mistake = isinstance(error, RunRefused) and error.status and not run.account.total_used.calls
            error.hint = NOTHING_ANSWERED if is_mistake else command
            raise
    finally:
        ledger.close()


def _catch_up(ledger: Ledger, db: Path) -> None:
    """Moves of labels that a kill, or a busy ledger, kept out of the chain. No reason to stop a run."""
    from agent.release.registry import Registry

    try:
        Registry(releases_folder(db)).catch_up(ledger)
    except ReleaseError as error:
        click.echo(f"warning: {plain(str(error))}", err=True)


def unknown(lms: Iterable[LM], ledger: Ledger, task: Task, use_cache: bool) -> list[LM]:
    """The models that a new run of the task asks about before anything is written down.

    Asking is no call: it costs nothing, so no call stands outside the ledger. Not asked about are those that have
    answered for this very task, as the ledger may hold all replies that are needed: then nobody is. A run that is
    resumed is there already, and asks about nothing.
    """
    return [lm for lm in lms if not (use_cache and ledger.has_replies(lm.name, task))]


def stopping(waiting: int) -> str:
    """What is said when a run is interrupted with so many calls in flight."""
    calls = "1 call in flight is" if waiting == 1 else f"{waiting} calls in flight are"
    return f"stopping{f': {calls} being finished' if waiting else ''}; press Ctrl-C again to leave at once"


async def watched(
    run: Any, lms: Iterable[LM], progress: Progress, command: str = "", new: Iterable[LM] = ()
) -> dict[str, Any]:
    """Asks about the models that are `new`, executes `run` and closes its models `lms`.

    The first Ctrl-C (or SIGTERM) lets what is in flight land, the second leaves at once and prints the `command` that
    goes on from there. A closed terminal (SIGHUP) lets it land as well, and is no second press: the kernel and the
    shell both tell of it. Where it is ignored from the start, as under nohup, it stays ignored.
    """
    from agent.cli.progress import tell_waits
    from agent.models.catalog import probe_models

    presses = 0

    def stop() -> None:
        click.echo(stopping(run.interrupt()), err=True)

    def pressed() -> None:
        nonlocal presses
        presses += 1
        if presses > 1:
            click.echo(f"left at once; what was in flight counts as paid\n{command}".rstrip(), err=True)
            os._exit(EXIT_INTERRUPTED)
        stop()

    loop = asyncio.get_running_loop()
    handlers = {signal.SIGINT: pressed, signal.SIGTERM: pressed}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        handlers[signal.SIGHUP] = stop
    try:
        await probe_models(new)
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        waits = loop.create_task(tell_waits(run.waits_for, progress.say))
        try:
            found: dict[str, Any] = await run.execute()
            return found
        finally:
            waits.cancel()
            for number in handlers:
                loop.remove_signal_handler(number)
    finally:
        for lm in {id(lm): lm for lm in lms}.values():
            await lm.close()


def resume_command_for(run_id: str, db: Path) -> str:
    return f"optimize resume {run_id}{at(db)}"


def at(db: Path) -> str:
    """The words that a command needs to find the ledger, when it is not the usual one."""
    return "" if db == LEDGER else f" --db {shlex.quote(str(db))}"
