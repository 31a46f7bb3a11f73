"""What a Python program calls: `import promptassay as pa`. The command line goes through the same rooms below.

Names and units of the arguments are those of the command line's options. Every function runs to its end and may be
called where an event loop runs already, as in a notebook; `aoptimize` is for programs that wait in a loop of their own.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Protocol, TypeVar

from agent.errors import AgentError, InputError, Problem
from agent.release.result import CheckResult, RunResult
from agent.run.arguments import as_text, launch_of, out_of_range, register_as_begun, require_none
from agent.run.customize.result import CustomizeResult
from agent.run.interrupts import Stop, run_async, run_blocking
from agent.run.launch import OPTIONS, prepare, silence
from agent.run.locations import LEDGER
from agent.run.migration_source import CALLS, migration_words
from agent.run.observers import LogWatcher, Snapshot
from agent.run.resume import prepare_resume
from agent.run.session import run_job, start
from agent.run.tracking import Tracking

if TYPE_CHECKING:
    from agent.run.sweep.sweep import SweepResult
    from agent.scoring.user_metrics import MetricFunction
    from agent.tuning.settings import Trainer
    from agent.types import Task

Rows = Sequence[Mapping[str, Any]]


class Table(Protocol):
    """A pandas DataFrame, as far as it is used."""

    @property
    def columns(self) -> Any: ...

    def to_json(self, *arguments: Any, **options: Any) -> Any: ...


Seconds = float | str
"""Seconds, or a text such as 90s, 5m, 1h30m or 1d."""
Effort = Literal["quick", "standard", "thorough"]
Prefer = Literal["best", "cheap", "short"]
AnswerType = Literal["text", "choice", "number", "json"]

_P = ParamSpec("_P")
_T = TypeVar("_T")
_F = TypeVar("_F", bound="MetricFunction")


def optimize(
    task: str | Path | Task | Rows | Table,
    *,
    model: str | None = None,
    proposer: str | None = None,
    judge: str | Sequence[str] = (),
    target: str | Sequence[str] | None = None,
    prompt: str | Path | None = None,
    metric: MetricFunction | str | None = None,
    type: AnswerType | None = None,
    input: str | Sequence[str] = (),
    ignore: str | Sequence[str] = (),
    encoding: str | None = None,
    sheet: str | None = None,
    strip_html: bool = False,
    knowledge: str | Path | None = None,
    tools: Sequence[Callable[..., Any] | Mapping[str, Any]] | str | Path | None = None,
    max_calls: int | None = None,
    max_tokens: int | None = None,
    max_cost: float | None = None,
    time_limit: Seconds | None = None,
    price: tuple[float, float] | None = None,
    effort: Effort = "standard",
    strategy: str | None = None,
    sampler: str = "bandit",
    pruner: str = "race",
    prefer: Prefer = "best",
    margin: float = 5.0,
    detect: float | None = None,
    anyway: bool = False,
    calibrate: bool = True,
    retrieval: bool = True,
    embeddings: str | None = None,
    trials: int | None = None,
    thinking: int | None = None,
    max_concurrency: int | None = None,
    max_wait: Seconds | None = None,
    limit: int | tuple[int, int, int] | None = None,
    max_demos: int | None = None,
    seed: int = 0,
    tags: Mapping[str, str] | None = None,
    use_cache: bool = True,
    batch: bool = False,
    batch_only: bool = False,
    batch_wait: Seconds | None = None,
    name: str = "rows",
    track: str | Sequence[str] = (),
    track_texts: bool = False,
    trace: str | None = None,
    ledger: str | Path = LEDGER,
    progress: Callable[[Snapshot], None] | None = None,
) -> RunResult:
    """Searches for the best prompt of a task, tests it once on sealed rows, and writes the prompt to ship.

    The first Ctrl-C lets the calls in flight land and raises Interrupted; `resume` goes on from there. The second does
    not wait for them. Lines about the run go to the logger `promptassay`.

    Args:
        task: a task folder, the name of one under tasks/, a data file (.csv, .tsv, .jsonl, .json, .xlsx, .parquet), a
            Task of `load_task`, or rows: dicts or a pandas DataFrame. Rows are kept, readable for you only, in tasks/
            beside the ledger.
        model: the model to prompt, such as openai/NAME. None: the task's, else the embedded one.
        proposer: the model that writes instructions, or "none". None: the task's, else `model`.
        judge: the model or models that judge, for a task with a judge. (): the task's, else `model`.
        target: for rows and data files: the column to predict, or several; an answer then has a value for each.
        prompt: for rows and data files: your prompt, as a text or as a file (a Path, or a name that ends with .txt or
            .md, or that is there).
        metric: what scores an answer instead of the task's metrics: a function `(row, answer) -> float` in [0, 1], the
            name of one that `metric` registered, or a metric of `optimize metrics list` as
            "NAME[:FIELD][,option=value]". None: for rows and data files what fits the answers, which is said. `row` is
            a dict of the fields and `id`; `answer` is what was read from the reply, a dict where there are several
            outputs. A function runs in this process, for at most 5 s a row.
        type: for rows and data files: what the target holds. None: as its values say.
        input: for rows and data files: the columns to use. (): all that hold text.
        ignore: for rows and data files: columns not to use.
        encoding: for data files: that of the text, such as "cp1252". None: UTF-8, or what the file is told to be in.
        sheet: for data files: the sheet of an .xlsx file. None: the first.
        strip_html: for data files: take HTML out of the inputs.
        knowledge: for rows and data files: a folder of documents (or one file) that prompts look passages up in. A
            prompt with the mark {{context}} gets them there. The documents are read where they are, and a run goes on
            only with those that it began with.
        tools: for rows and data files: what the model may call; the target then holds the right calls of each row, []
            where no tool fits. Functions of Python, whose types and docstrings are read and which are not called; tools
            as JSON, as OpenAI, Anthropic or MCP write them; or a file, as `optimize tools` takes it.
        max_calls: cap on model calls, at least 1, all roles together.
        max_tokens: cap on tokens in and out, at least 1, all roles together.
        max_cost: cap in US dollars, at least 0, all roles together.
        time_limit: cap on wall time, in seconds or as a text such as "1h30m".
        price: dollars per million tokens in and out, for models whose price is not known.
        effort: how many calls to plan with when nothing is capped.
        strategy: our search (`evolve`, also called `bayes`), one of DSPy's optimizers, or one of another package. None:
            what suits the task.
        sampler: what our search tries next: "bandit", by a bandit over its operators, or all of it by one Optuna study
            with the sampler "tpe", "gp" (needs torch), "cmaes" (needs cmaes) or "random".
        pruner: what ends losing candidates in our search: "race", paired and valid at every look, or "wilcoxon",
            Optuna's WilcoxonPruner.
        prefer: which to test and ship: the best on dev, the cheapest of those that are shown there to lose less than
            `margin` against it, or the shortest within noise of it.
        margin: the loss in points that `prefer="cheap"` accepts, above 0 and at most 50.
        detect: the smallest gain worth having, in points, above 0 and at most 100: where calls are few, the sealed test
            takes the rows that show it and the search the rest. None: the task's, 10 unless it says otherwise.
        anyway: search even when the preflight finds that nothing can be won.
        calibrate: the finalists also compete with label weights, which cost no call; False: they do not.
        retrieval: False picks no examples for each input. True: as the task says.
        embeddings: the model by whose vectors examples may be picked as well: "wordllama", which calls no model, or a
            provider's as "PROVIDER:NAME". None: the task's, else none.
        trials: stop the search after about so many trials, at least 1; 1 only scores your prompt.
        thinking: tokens that models may think in each call, at least 0. None: the task's.
        max_concurrency: calls in flight at once, at least 1.
        max_wait: longest wait for a provider that is down, in seconds or as a text. None: 5 minutes.
        limit: use at most so many rows of each split, or of (train, dev, test); each at least 1.
        max_demos: at most so many demos in a prompt, fixed and picked, at least 0; 0: instructions only. The task's own
            limit holds as well. None: as the task says.
        seed: 0 to 2**31 - 1; the same seed gives the same trials.
        tags: labels of the run.
        use_cache: False buys every call again, also those that the ledger holds.
        batch: send fixed sets of calls as batches of the provider, at half the price and within a day.
        batch_only: as `batch`; what a batch leaves unanswered is not asked one by one.
        batch_wait: longest wait for a batch, in seconds or as a text; then the run ends, and can be resumed. None: no
            limit.
        name: what the task is called, where rows are given.
        track: the trackers that show the run, too: "mlflow", "wandb", "clearml". Nothing leaves this machine unless
            the tracker's server is configured.
        track_texts: whether trackers get texts of your rows: demos, inputs and replies.
        trace: the address of an OTLP/HTTP receiver that gets the run, its trials and calls as OpenTelemetry spans, such
            as "http://localhost:4318"; "env": the one of OTEL_EXPORTER_OTLP_ENDPOINT. None: none.
        ledger: the ledger file; releases and kept rows lie beside it.
        progress: called with a Snapshot whenever something happened, in the thread of the run; it must be quick.

    Returns:
        The result, also where your own prompt is kept: see `decision`.

    Raises:
        InputError: what was given is wrong, all of it at once (as ProblemsError where places are known); nothing was
            called.
        BudgetRefused: the caps are too small to compare two prompts; nothing was called.
        Interrupted: Ctrl-C; `error.run_id` can be resumed.
        AgentError: whatever else ends a run early; `error.run_id` can be resumed.

    Example:
        >>> result = pa.optimize("tasks/support_triage", model="openai/NAME", max_cost=2)  # doctest: +SKIP
        >>> result.decision, result.lift.ci95, result.release.path  # doctest: +SKIP
    """
    return run_blocking(_work(locals()))


def _takes_what(model: Callable[_P, Any]) -> Callable[[Callable[..., _T]], Callable[_P, _T]]:
    """Gives a function the arguments of `model`, for type checkers and for `help`."""

    def take(function: Callable[..., _T]) -> Callable[_P, _T]:
        return functools.update_wrapper(function, model, assigned=(), updated=())

    return take


@_takes_what(optimize)
async def aoptimize(task: str | Path | Task | Rows | Table, **options: Any) -> RunResult:
    """`optimize` for a program that waits in an event loop of its own; the run has a thread and a loop for itself.

    Args:
        task: as of `optimize`.
        options: as of `optimize`.

    Returns:
        As `optimize`.

    Raises:
        CancelledError: the task that waits was cancelled, and the calls in flight have landed; the run can be resumed.
        AgentError: as `optimize`.

    Example:
        >>> result = await pa.aoptimize("tasks/support_triage", max_calls=700)  # doctest: +SKIP
    """
    return await run_async(_work(_bound(task, options)))


@_takes_what(optimize)
def evaluate(task: str | Path | Task | Rows | Table, **options: Any) -> RunResult:
    """Scores your own prompt on dev and on the sealed test, without a search: `optimize` with `trials=1`.

    Args:
        task: as of `optimize`.
        options: as of `optimize`, without `trials`.

    Returns:
        The result; `baseline` has the scores.

    Raises:
        AgentError: as `optimize`.

    Example:
        >>> pa.evaluate("tasks/support_triage", max_calls=200).baseline.test  # doctest: +SKIP
    """
    if "trials" in options:
        raise TypeError("evaluate() takes no trials: it makes one")
    return run_blocking(_work(_bound(task, {**options, "trials": 1})))


def resume(
    run: str = "",
    *,
    fork: bool = False,
    model: str | None = None,
    metric: MetricFunction | None = None,
    max_calls: int | None = None,
    max_tokens: int | None = None,
    max_cost: float | None = None,
    time_limit: Seconds | None = None,
    max_concurrency: int | None = None,
    max_wait: Seconds | None = None,
    batch_wait: Seconds | None = None,
    track: str | Sequence[str] = (),
    track_texts: bool = False,
    trace: str | None = None,
    ledger: str | Path = LEDGER,
    progress: Callable[[Snapshot], None] | None = None,
) -> RunResult:
    """Goes on with a run that did not finish. Nothing that was paid for is bought again.

    Args:
        run: its id, or the unique start of it. "": the latest that did not finish.
        fork: start a new run from it, with the task as it is now.
        model: another model; only with `fork`.
        metric: the function that scores, where the run has one that is not registered here (`metric`).
        max_calls: a new cap, at least 1; what was paid before counts.
        max_tokens: the same for tokens.
        max_cost: the same for US dollars, at least 0.
        time_limit: the same for wall time, in seconds or as a text such as "1h30m".
        max_concurrency: calls in flight at once, at least 1.
        max_wait: longest wait for a provider that is down, in seconds or as a text.
        batch_wait: longest wait for a batch, in seconds or as a text, for a run that sends batches.
        track: as of `optimize`; the tracker gets the whole run again, as a new one.
        track_texts: as of `optimize`.
        trace: as of `optimize`.
        ledger: the ledger file.
        progress: as of `optimize`.

    Returns:
        The result of the whole run.

    Raises:
        InputError: it is finished, or the task, its rows, its metric, the model or the program changed since: all that
            did. Nothing was called.
        AgentError: as `optimize`.

    Example:
        >>> try:  # doctest: +SKIP
        ...     result = pa.optimize("tasks/support_triage")
        ... except pa.AgentError as error:
        ...     result = pa.resume(error.run_id)
    """
    changes = {
        "max_calls": max_calls,
        "max_tokens": max_tokens,
        "max_cost": max_cost,
        "time_limit": as_text(time_limit),
        "max_concurrency": max_concurrency,
        "max_wait": as_text(max_wait),
        "batch_wait": as_text(batch_wait),
    }
    require_none(out_of_range(changes))
    db, watcher = Path(ledger), LogWatcher(progress)
    tracking = Tracking.of(track, track_texts, trace)
    silence(watcher.warn)
    if metric is not None:
        register_as_begun(run, metric, db)
    prepared = prepare_resume(run, changes, model, fork, db, watcher)
    for line in prepared.lines:
        watcher.on_message(line)

    def go_on(stop: Stop | None) -> RunResult:
        with _resume_note(db):
            return start(prepared.launch, db, watcher, prepared.resumed, stop, tracking)

    return run_blocking(go_on)


def migrate(
    prompt: str | Path,
    *,
    model: str,
    max_calls: int = CALLS,
    max_tokens: int | None = None,
    max_cost: float | None = None,
    time_limit: Seconds | None = None,
    price: tuple[float, float] | None = None,
    margin: float = 5.0,
    max_demos: int | None = None,
    max_concurrency: int | None = None,
    max_wait: Seconds | None = None,
    batch: bool = False,
    batch_only: bool = False,
    batch_wait: Seconds | None = None,
    ledger: str | Path = LEDGER,
    progress: Callable[[Snapshot], None] | None = None,
) -> RunResult:
    """Makes a released prompt one for another model in few calls, from the history of its run.

    The prompts that its run tried are raced on the new model, and a few are made from the best. The sealed test asks
    whether the new model loses less than `margin` against the old one, whose recorded replies are not bought again.

    Args:
        prompt: the path of a prompt.md or its folder, NAME@LABEL, NAME@VERSION, or the id of a run.
        model: the model to migrate to, such as openai/NAME.
        max_calls: cap on model calls, at least 1, all roles together.
        max_tokens: cap on tokens in and out, at least 1.
        max_cost: cap in US dollars, at least 0.
        time_limit: cap on wall time, in seconds or as a text such as "1h30m".
        price: dollars per million tokens in and out, for models whose price is not known.
        margin: the loss in points against the old model that you accept, above 0 and at most 50.
        max_demos: at most so many demos in a prompt, at least 0. None: as in the run of the prompt.
        max_concurrency: calls in flight at once, at least 1.
        max_wait: longest wait for a provider that is down, in seconds or as a text. None: as in that run.
        batch: as of `optimize`.
        batch_only: as of `optimize`.
        batch_wait: as of `optimize`.
        ledger: the ledger file, with the run of the prompt.
        progress: as of `optimize`.

    Returns:
        The result; `migration` has the test, and `decision` is "promote" where a larger loss is ruled out.

    Raises:
        InputError: the ledger does not know the prompt's run, its task changed, its texts were erased, or the model is
            the one that it has; nothing was called.
        BudgetRefused: the calls do not pay a race and a test; nothing was called.
        AgentError: as `optimize`; `error.run_id` can be resumed.

    Example:
        >>> pa.migrate("triage@production", model="openai/NAME").migration.test.shown  # doctest: +SKIP
    """
    given = {
        "max_calls": max_calls,
        "max_tokens": max_tokens,
        "max_cost": max_cost,
        "time_limit": as_text(time_limit),
        "price": as_text(price),
        "margin": margin,
        "max_demos": max_demos,
        "max_concurrency": max_concurrency,
        "max_wait": as_text(max_wait),
        "batch": batch,
        "batch_only": batch_only,
        "batch_wait": as_text(batch_wait),
    }
    require_none(out_of_range(given))
    db, watcher = Path(ledger), LogWatcher(progress)
    silence(watcher.warn)
    words = migration_words(str(prompt), model, given, db)

    def run(stop: Stop | None) -> RunResult:
        launch = prepare(words, db, watcher)
        with _resume_note(db):
            return start(launch, db, watcher, stop=stop)

    return run_blocking(run)


def customize(
    task: str | Path | Task | Rows | Table,
    *,
    arms: Sequence[str] = (),
    curve: Sequence[int] = (),
    run: str = "",
    train_time: Seconds | None = None,
    expected_calls: int | None = None,
    trainer: Trainer = "numpy",
    hf_folder: str | Path | None = None,
    settings: int = 3,
    tune: int = 0,
    seeds: int = 1,
    ray: str | None = None,
    **options: Any,
) -> CustomizeResult:
    """Compares, on one sealed test, your prompt, the best prompt, adapters trained on your rows, and no language model.

    The prompts are those of a finished search of the task and model in the ledger, or of one that is made first.
    Interrupted or killed, the same call goes on where it was.

    Args:
        task: as of `optimize`.
        arms: beside your own prompt only these: best, retrieved, calibrated, lora, lora+prompt, no-model, and on
            request soft-prompt and full. (): all but those on request.
        curve: numbers of train rows, at least 16 each, that the arms which learn also learn from besides all.
        run: the search to take the prompts from. "": the latest of this task and model, else a new one.
        train_time: the most that one arm may train, in seconds or as a text. None: until dev gets no better.
        expected_calls: calls that you expect in all, at least 1; fewer than pay for the training speak against it.
        trainer: what trains adapters: numpy, or transformers with peft (extra `tune`): "peft".
        hf_folder: a Hugging Face folder of the model, whose weights are trained on. None: those of the model's file.
        settings: settings of each training that are tried on dev, 1 to 4.
        tune: in the place of `settings`: so many are drawn, 2 to 64, which Ray Tune (ASHA) stops early on dev. 0: none.
        seeds: how often each arm is trained, 1 to 10, to show the spread; the arm itself is the first.
        ray: the address of a Ray cluster that trains ("auto", "local", or HOST:PORT). None: this process does.
        options: as of `optimize`, for the search; `max_cost` and `batch` also for the comparison, `seed` for training.

    Returns:
        Arms, advice and curve.

    Raises:
        InputError: what was given is wrong, all of it at once; nothing was called.
        AgentError: as `optimize`.

    Example:
        >>> result = pa.customize("tasks/support_triage", arms=["best", "lora"], curve=[24, 75])  # doctest: +SKIP
        >>> result.verdict, result.arm, result.text  # doctest: +SKIP
    """
    from agent.run.customize.prepare import (  # loads the trainer
        ComparisonAsked,
        checked,
        finished_search,
        prepare_customize,
        require_cluster,
    )

    arguments = _bound(task, options)
    same = ("max_cost", "seed", "thinking", "max_concurrency", "batch", "batch_only")
    words = {**OPTIONS, **{name: arguments[name] for name in same}}
    words |= {name: as_text(arguments[name]) for name in ("price", "max_wait", "batch_wait")}
    db, watcher = Path(arguments["ledger"]), LogWatcher(arguments["progress"])
    tracking = Tracking.of(arguments["track"], arguments["track_texts"], arguments["trace"])
    names, weights = ",".join(map(str, curve)), None if hf_folder is None else Path(hf_folder)
    asked = ComparisonAsked(
        tuple(arms),
        as_text(train_time),
        expected_calls,
        arguments["seed"],
        names,
        trainer=trainer,
        weights=weights,
        settings=settings,
        seeds=seeds,
        ray=ray,
        tune=tune,
    )

    def compare(stop: Stop | None) -> CustomizeResult:
        launch = launch_of(arguments, db, watcher)
        checked(launch, asked, watcher.download)
        with _resume_note(db):
            found = run or finished_search(launch, as_text(arguments["limit"], "-"), db)
            if not found:
                require_cluster(asked)
                found = start(launch, db, watcher, stop=stop, tracking=tracking).run_id
                launch = launch_of(arguments, db, watcher)  # the models of the search are closed
        job = prepare_customize(launch, found, asked, words, db)
        return CustomizeResult.from_json(run_job(job, words, db, watcher, stop, tracking))

    return run_blocking(compare)


def sweep(
    file: str | Path, *, ray: str | None = None, jobs: int | None = None, folder: str | Path | None = None
) -> SweepResult:
    """Runs every combination of tasks, models, strategies and seeds that a sweep.toml lists, each with its own ledger.

    All are checked before anything is spent. Interrupted or killed, the same call goes on where it was: nothing that
    was paid for is bought again. The first Ctrl-C lets the calls in flight land.

    Args:
        file: the sweep.toml.
        ray: the address of a Ray cluster whose nodes run the cells ("auto", "local", or HOST:PORT). None: processes of
            this machine.
        jobs: cells at once on this machine, at least 1. None: 1 where a model is embedded, else 4. Not with `ray`.
        folder: for ledgers and report. None: runs/sweep-NAME.

    Returns:
        Scores, gains and costs of all cells; `unfinished` names those that have no result.

    Raises:
        InputError: what the file says is wrong, all of it at once; nothing was called.
        Interrupted: Ctrl-C.

    Example:
        >>> result = pa.sweep("sweep.toml", jobs=2)  # doctest: +SKIP
        >>> [(group["model"], group["score"]) for group in result.groups]  # doctest: +SKIP
    """
    from agent.run.sweep.prepare import prepare_sweep
    from agent.run.sweep.sweep import run_sweep

    if ray is not None and jobs is not None:
        raise InputError("jobs: counts processes of this machine; with ray=, [resources] of the file say it")
    if jobs is not None and (isinstance(jobs, bool) or jobs < 1):
        raise InputError(f"jobs: {jobs!r}: write a whole number of at least 1")
    silence()
    prepared = prepare_sweep(Path(file), None if folder is None else Path(folder), check_keys=ray is None)
    return run_sweep(prepared, ray=ray, jobs=jobs)


def metric(name: str) -> Callable[[_F], _F]:
    """Registers a function as a metric of this session, under a name: `@pa.metric("close_enough")`.

    Args:
        name: letters, digits and underscores, and no name of a built-in metric.

    Returns:
        What takes the function, `(row, answer) -> float` in [0, 1], and gives it back.

    Raises:
        InputError: the name is taken, or the function does not take two arguments.

    Example:
        >>> @pa.metric("close_enough")
        ... def close_enough(row, answer):
        ...     return float(answer.casefold() == row["label"].casefold())
    """
    from agent.scoring.user_metrics import register

    def take(function: _F) -> _F:
        register(function, name)
        return function

    return take


def check(
    prompt: str | Path,
    *,
    model: str | None = None,
    judge: str | Sequence[str] = (),
    task: str | Path | None = None,
    suite: str | Path | None = None,
    repeats: int = 2,
    max_calls: int | None = None,
    max_tokens: int | None = None,
    max_cost: float | None = None,
    price: tuple[float, float] | None = None,
    thinking: int | None = None,
    max_concurrency: int | None = None,
    max_wait: Seconds | None = None,
    batch: bool = False,
    batch_only: bool = False,
    batch_wait: Seconds | None = None,
    seed: int = 0,
    track: str | Sequence[str] = (),
    track_texts: bool = False,
    trace: str | None = None,
    ledger: str | Path = LEDGER,
) -> CheckResult:
    """Asks a released prompt the rows of its suite again, and compares with what was recorded.

    The model is asked afresh, not the ledger. Ctrl-C as of `optimize`; what was asked is kept, and a check starts anew.

    Args:
        prompt: the path of a prompt.md, NAME@LABEL, NAME@VERSION, or the id of a run.
        model: the model to ask, such as openai/NAME. None: the one whose answers are recorded.
        judge: allows judges that the suite names by an address.
        task: the task, where neither the suite nor the ledger says enough.
        suite: the file of recorded answers. None: suite.json beside the prompt, else what its run scored on dev.
        repeats: how often each row is asked, 1 to 5.
        max_calls: cap on model calls, at least 1. Without any cap: twice what is planned.
        max_tokens: cap on tokens in and out, at least 1.
        max_cost: cap in US dollars, at least 0.
        price: dollars per million tokens in and out, for models whose price is not known.
        thinking: tokens that models may think in each call, at least 0. None: the task's.
        max_concurrency: calls in flight at once, at least 1.
        max_wait: longest wait for a provider that is down, in seconds or as a text. None: 5 minutes.
        batch: as of `optimize`.
        batch_only: as of `optimize`.
        batch_wait: as of `optimize`; the same check goes on later.
        seed: 0 to 2**31 - 1, for tests and intervals.
        track: as of `optimize`.
        track_texts: as of `optimize`.
        trace: as of `optimize`.
        ledger: the ledger file.

    Returns:
        What the gate says, also where it failed: see `passed`.

    Raises:
        InputError: the prompt, its suite or an argument is wrong; nothing was called.
        AgentError: whatever ends the check early.

    Example:
        >>> assert pa.check("triage@production", max_cost=1).passed  # doctest: +SKIP
    """
    from agent.run.prompt_check import prepare_check

    options = {
        "max_calls": max_calls,
        "max_tokens": max_tokens,
        "max_cost": max_cost,
        "price": as_text(price),
        "thinking": thinking,
        "max_concurrency": max_concurrency,
        "max_wait": as_text(max_wait),
        "batch": batch,
        "batch_only": batch_only,
        "batch_wait": as_text(batch_wait),
        "seed": seed,
    }
    problems = out_of_range(options)
    if isinstance(repeats, bool) or repeats not in range(1, 6):
        problems.append(Problem("repeats", f"{repeats!r}: write a whole number from 1 to 5"))
    require_none(problems)
    db, watcher, judges = Path(ledger), LogWatcher(None), [judge] if isinstance(judge, str) else list(judge)
    tracking = Tracking.of(track, track_texts, trace)
    silence(watcher.warn)
    own, file = None if task is None else str(task), None if suite is None else Path(suite)
    job, _ = prepare_check(str(prompt), model, judges, own, file, repeats, options, db)

    def ask(stop: Stop | None) -> CheckResult:
        return CheckResult.from_json(run_job(job, options, db, watcher, stop, tracking))

    return run_blocking(ask)


def _bound(task: Any, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """All arguments of `optimize`. Raises TypeError for one that it does not take, in Python's own words."""
    bound = inspect.signature(optimize).bind(task, **options)
    bound.apply_defaults()
    return bound.arguments


def _work(arguments: Mapping[str, Any]) -> Callable[[Stop | None], RunResult]:
    """The run that the arguments of `optimize` ask for."""
    db, watcher = Path(arguments["ledger"]), LogWatcher(arguments["progress"])
    tracking = Tracking.of(arguments["track"], arguments["track_texts"], arguments["trace"])

    def run(stop: Stop | None) -> RunResult:
        launch = launch_of(arguments, db, watcher)
        with _resume_note(db):
            return start(launch, db, watcher, stop=stop, tracking=tracking)

    return run


@contextlib.contextmanager
def _resume_note(db: Path) -> Iterator[None]:
    """Adds to what ends a run early how to go on."""
    try:
        yield
    except AgentError as error:
        if error.run_id:
            where = "" if db == LEDGER else f", ledger={str(db)!r}"
            error.add_note(f"to go on: promptassay.resume({error.run_id!r}{where}), or {error.hint}")
        raise
