"""The Python API: `import promptassay as pa`.

Arguments have the names, units and ranges of the command-line options and are declared with them. Every function blocks
until it is done and may be called where an event loop runs already, as in a notebook; `aoptimize` is awaitable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

from agent.jobs import JOBS
from agent.jobs.arguments import OptimizeArguments, launch_of, register_as_begun
from agent.jobs.in_python import WatchArguments, run_job, runner, takes
from agent.jobs.interrupts import StopSignal, run_async, run_blocking
from agent.jobs.launch import Launch, search_of
from agent.jobs.observers import LogWatcher
from agent.jobs.registry import After
from agent.jobs.tracking import Tracking
from agent.jobs.work import Work
from agent.options.jobs import CheckOptions, CustomizeOptions
from agent.options.option import option
from agent.options.run import MigrateOptions, ResumeOptions
from agent.programs.agent_call import AgentFunction
from agent.release.result import RunResult
from agent.results.checks import CheckResult
from agent.results.customize import CustomizeResult
from agent.scoring.task_metrics import MetricFunction, register
from agent.types import Task

Rows = Sequence[Mapping[str, Any]]


class Table(Protocol):
    """A pandas DataFrame, as far as it is used."""

    @property
    def columns(self) -> Any: ...

    def to_json(self, *arguments: Any, **options: Any) -> Any: ...


Source: TypeAlias = "str | Path | Task | Rows | Table"
_F = TypeVar("_F", bound=MetricFunction)


class ResumeArguments(ResumeOptions, WatchArguments):
    """The keyword arguments of `resume`."""

    metric: MetricFunction | None = option(None)
    """The function that scores, where the run has one that is not registered here (`metric`)."""
    agent: AgentFunction | None = option(None)
    """The function that is the run's agent, where it was given as one."""


class MigrateArguments(MigrateOptions, WatchArguments):
    """The keyword arguments of `migrate`."""


class CheckArguments(CheckOptions, WatchArguments):
    """The keyword arguments of `check`."""


class CustomizeArguments(CustomizeOptions, OptimizeArguments):
    """The keyword arguments of `customize`; those of `optimize` are for the search."""


@takes(OptimizeArguments)
def optimize(task: Source, options: OptimizeArguments) -> RunResult:
    """Search for a better prompt, test it on sealed rows, and write it.

    The first Ctrl-C lets the calls in flight finish and raises Interrupted; `resume` continues the run. The second does
    not wait for them. Messages go to the logger `promptassay`.

    Args:
        task: a task folder, the name of one under tasks/, a data file, a Task of `load_task`, or rows: dicts or a
            pandas DataFrame, which are kept in tasks/ next to the ledger, readable for you only.
        options: of the run.

    Returns:
        The result, also when your prompt is kept: see `decision`.

    Raises:
        InputError: an argument, the task or the data is wrong; all problems at once. No call was made.
        BudgetRefused: the caps are too small to compare two prompts; no call was made.
        AgentError: any other early end, such as Interrupted by Ctrl-C; resume `error.run_id`.

    Example:
        >>> result = pa.optimize("tasks/support_triage", model="openai/NAME", max_cost=2)  # doctest: +SKIP
        >>> result.decision, result.lift.ci95, result.release.path  # doctest: +SKIP
    """
    return run_blocking(_search(task, options))


@takes(OptimizeArguments)
async def aoptimize(task: Source, options: OptimizeArguments) -> RunResult:
    """Run `optimize` from an event loop; the run has its thread and its loop.

    A cancelled task ends when the calls in flight have finished; the run can be resumed.

    Args:
        task: as of `optimize`.
        options: of the run.

    Example:
        >>> result = await pa.aoptimize("tasks/support_triage", max_calls=700)  # doctest: +SKIP
    """
    return await run_async(_search(task, options))


@takes(OptimizeArguments)
def evaluate(task: Source, options: OptimizeArguments) -> RunResult:
    """Score your prompt on dev and sealed test without a search: `optimize` with `trials=1`.

    Args:
        task: as of `optimize`.
        options: of the run, without `trials`.

    Example:
        >>> pa.evaluate("tasks/support_triage", max_calls=200).baseline.test  # doctest: +SKIP
    """
    if "trials" in options.model_fields_set:
        raise TypeError("evaluate() takes no trials: it makes one")
    return run_blocking(_search(task, options.model_copy(update={"trials": 1})))


@takes(ResumeArguments)
def resume(run: str = "", options: ResumeArguments = ResumeArguments()) -> RunResult:  # noqa: B008 (replaced by takes)
    """Continue a run that did not finish. Nothing that was paid for is bought again.

    Args:
        run: its id, or the unique start of it. "": the latest unfinished run.
        options: new caps and waits.

    Raises:
        InputError: the run is finished, or the task, its rows, its metric, the model or the program changed since;
            names everything that changed. No call was made.

    Example:
        >>> try:  # doctest: +SKIP
        ...     result = pa.optimize("tasks/support_triage")
        ... except pa.AgentError as error:
        ...     result = pa.resume(error.run_id)
    """
    if options.metric is not None or options.agent is not None:
        register_as_begun(run, options.metric, options.agent, Path(options.db))
    result: RunResult = run_job(JOBS.get("resume"), (run,), options)
    return result


@takes(MigrateArguments)
def migrate(prompt: str | Path, options: MigrateArguments) -> RunResult:
    """Move a released prompt to another model in few calls, from its run's history.

    The prompts that its run tried are raced on the new model, and a few new ones are made from the best. The sealed
    test shows whether the new model loses less than accepted against the old one, whose recorded replies are not bought
    again.

    Args:
        prompt: the path of a prompt.md or its folder, NAME@ALIAS, NAME@VERSION, or the id of a run.
        options: of the migration.

    Returns:
        The result; `migration` has the test, and `decision` is "promote" if a larger loss is ruled out.

    Raises:
        InputError: the ledger does not know the prompt's run, its task changed, its texts were erased, or the model is
            the same; no call was made.

    Example:
        >>> pa.migrate("triage@production", model="openai/NAME").migration.test.shown  # doctest: +SKIP
    """
    result: RunResult = run_job(JOBS.get("migrate"), (prompt,), options)
    return result


@takes(CustomizeArguments)
def customize(task: Source, options: CustomizeArguments) -> CustomizeResult:
    """Compare your prompt, the best prompt, trained adapters and no model on one sealed test.

    The prompts are those of a finished search of the task and model in the ledger, or of a search that is run first.
    After an interruption the same call continues.

    Args:
        task: as of `optimize`.
        options: of the comparison and of the search; `max_cost` and `batch` apply to both.

    Example:
        >>> result = pa.customize("tasks/support_triage", arms=["best", "lora"], curve=[24, 75])  # doctest: +SKIP
        >>> result.verdict, result.arm, result.text  # doctest: +SKIP
    """
    from agent.jobs.customize.job import comparison  # loads the trainer

    db, watcher = Path(options.db), LogWatcher(options.progress)

    def launch() -> Launch:
        return launch_of(task, options, db, watcher)

    def made() -> Work[CustomizeResult] | After[CustomizeResult]:
        return comparison(launch(), launch, options.part(CustomizeOptions), db, watcher)

    result: CustomizeResult = run_blocking(runner(made, db, watcher, Tracking.of(options)))
    return result


def metric(name: str) -> Callable[[_F], _F]:
    """Register a function as a metric of this session: `@pa.metric("close_enough")`.

    Args:
        name: letters, digits and underscores; not the name of a built-in metric.

    Returns:
        A decorator of functions `(row, answer) -> float` in [0, 1].

    Raises:
        InputError: the name is taken, or the function does not take two arguments.

    Example:
        >>> @pa.metric("close_enough")
        ... def close_enough(row, answer):
        ...     return float(answer.casefold() == row["label"].casefold())
    """

    def take(function: _F) -> _F:
        register(function, name)
        return function

    return take


@takes(CheckArguments)
def check(prompt: str | Path, options: CheckArguments) -> CheckResult:
    """Run a released prompt on its regression suite and compare with the recorded answers.

    The model is asked again; cached replies are not used. After Ctrl-C the same call continues.

    Args:
        prompt: the path of a prompt.md, NAME@ALIAS, NAME@VERSION, or the id of a run.
        options: of the check. Without any cap: twice the planned calls.

    Returns:
        The result, also on a regression: see `passed`.

    Example:
        >>> assert pa.check("triage@production", max_cost=1).passed  # doctest: +SKIP
    """
    result: CheckResult = run_job(JOBS.get("check"), (prompt,), options)
    return result


def _search(task: Any, options: OptimizeArguments) -> Callable[[StopSignal | None], RunResult]:
    db, watcher = Path(options.db), LogWatcher(options.progress)
    return runner(lambda: search_of(launch_of(task, options, db, watcher)), db, watcher, Tracking.of(options))
