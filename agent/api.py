"""What a Python program calls: `import promptassay as pa`. The command line goes through the same rooms below.

Names and units of the arguments are those of the command line's options. Every function runs to its end and may be
called where an event loop runs already, as in a notebook; `aoptimize` is for programs that wait in a loop of their own.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, Protocol, TypeVar

from agent.errors import AgentError, InputError, Problem, ProblemsError
from agent.release.result import CheckResult, RunResult
from agent.run.arguments import NAME, is_file, keep, lines_of, rows_of
from agent.run.launch import OPTIONS, Launch, prepare, silence
from agent.run.locations import LEDGER
from agent.run.session import Stop, run_job, start
from agent.run.watcher import Snapshot, Watcher

if TYPE_CHECKING:
    from agent.scoring.function_metric import MetricFunction
    from agent.types import Task

Rows = Sequence[Mapping[str, Any]]


class Table(Protocol):
    """A pandas DataFrame, as far as it is used."""

    @property
    def columns(self) -> Any: ...

    def to_json(self, *arguments: Any, **options: Any) -> Any: ...


Seconds = float | str
"""Seconds, or a text such as 90s, 5m or 1h30m."""
Effort = Literal["quick", "standard", "thorough"]
Strategy = Literal["evolve", "bayes", "dspy-mipro", "dspy-gepa", "dspy-bootstrap"]
Prefer = Literal["best", "cheap", "short"]
AnswerType = Literal["text", "choice", "number", "json"]

_log = logging.getLogger("promptassay")
_P = ParamSpec("_P")
_T = TypeVar("_T")
_F = TypeVar("_F", bound="MetricFunction")


def optimize(
    task: str | Path | Task | Rows | Table,
    *,
    model: str | None = None,
    proposer: str | None = None,
    judge: str | Sequence[str] = (),
    target: str | None = None,
    prompt: str | Path | None = None,
    metric: MetricFunction | str | None = None,
    type: AnswerType | None = None,
    input: str | Sequence[str] = (),
    ignore: str | Sequence[str] = (),
    max_calls: int | None = None,
    max_tokens: int | None = None,
    max_cost: float | None = None,
    time_limit: Seconds | None = None,
    price: tuple[float, float] | None = None,
    effort: Effort = "standard",
    strategy: Strategy | None = None,
    prefer: Prefer = "best",
    anyway: bool = False,
    trials: int | None = None,
    thinking: int | None = None,
    max_concurrency: int | None = None,
    max_wait: Seconds | None = None,
    limit: int | tuple[int, int, int] | None = None,
    seed: int = 0,
    tags: Mapping[str, str] | None = None,
    use_cache: bool = True,
    name: str = "rows",
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
        target: for rows and data files: the column to predict.
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
        max_calls: cap on model calls, at least 1, all roles together.
        max_tokens: cap on tokens in and out, at least 1, all roles together.
        max_cost: cap in US dollars, at least 0, all roles together.
        time_limit: cap on wall time, in seconds or as a text such as "1h30m".
        price: dollars per million tokens in and out, for models whose price is not known.
        effort: how many calls to plan with when nothing is capped.
        strategy: our search (`evolve`, also called `bayes`), or one of DSPy's optimizers. None: what suits the task.
        prefer: which to test and ship: the best on dev, or the cheapest or shortest within noise of it.
        anyway: search even when the preflight finds that nothing can be won.
        trials: stop the search after about so many trials, at least 1; 1 only scores your prompt.
        thinking: tokens that models may think in each call, at least 0. None: the task's.
        max_concurrency: calls in flight at once, at least 1.
        max_wait: longest wait for a provider that is down, in seconds or as a text. None: 5 minutes.
        limit: use at most so many rows of each split, or of (train, dev, test); each at least 1.
        seed: 0 to 2**31 - 1; the same seed gives the same trials.
        tags: labels of the run.
        use_cache: False buys every call again, also those that the ledger holds.
        name: what the task is called, where rows are given.
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
    return _waited(_Given(**locals()).run)


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
    return await _awaited(_given(task, options).run)


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
    return _waited(_given(task, {**options, "trials": 1}).run)


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
    from agent.run.resume import going_on

    changes = {
        "max_calls": max_calls,
        "max_tokens": max_tokens,
        "max_cost": max_cost,
        "time_limit": _time(time_limit),
        "max_concurrency": max_concurrency,
        "max_wait": _time(max_wait),
    }
    _require(_wrong(changes))
    db, watcher = Path(ledger), _Watcher(progress)
    silence(watcher.warn)
    if metric is not None:
        _register_as_begun(run, metric, db)
    going = going_on(run, changes, model, fork, db, watcher)
    for line in going.lines:
        watcher.on_message(line)

    def go_on(stop: Stop | None) -> RunResult:
        return _noted(lambda: start(going.launch, db, watcher, going.resumed, stop), db)

    return _waited(go_on)


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
    from agent.scoring.function_metric import register

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
    seed: int = 0,
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
        seed: 0 to 2**31 - 1, for tests and intervals.
        ledger: the ledger file.

    Returns:
        What the gate says, also where it failed: see `passed`.

    Raises:
        InputError: the prompt, its suite or an argument is wrong; nothing was called.
        AgentError: whatever ends the check early.

    Example:
        >>> assert pa.check("triage@production", max_cost=1).passed  # doctest: +SKIP
    """
    from agent.run.check_setup import checking

    options = {
        "max_calls": max_calls,
        "max_tokens": max_tokens,
        "max_cost": max_cost,
        "price": _joined(price, ","),
        "thinking": thinking,
        "max_concurrency": max_concurrency,
        "max_wait": _time(max_wait),
        "seed": seed,
    }
    problems = _wrong(options)
    if isinstance(repeats, bool) or repeats not in range(1, 6):
        problems.append(Problem("repeats", f"{repeats!r}: write a whole number from 1 to 5"))
    _require(problems)
    db, watcher, judges = Path(ledger), _Watcher(None), [judge] if isinstance(judge, str) else list(judge)
    silence(watcher.warn)
    own, file = None if task is None else str(task), None if suite is None else Path(suite)
    made = checking(str(prompt), model, judges, own, file, repeats, options, db)

    def ask(stop: Stop | None) -> CheckResult:
        return CheckResult.from_json(run_job(made.ready, options, db, watcher, stop=stop))

    return _waited(ask)


# -- what was given ---------------------------------------------------------------------------------------------------


class _Given:
    """The arguments of `optimize` as they were given."""

    def __init__(self, **given: Any) -> None:
        self.task = given.pop("task")
        self.options = given
        self.db = Path(given["ledger"])
        self.watcher = _Watcher(given["progress"])

    def run(self, stop: Stop | None = None) -> RunResult:
        launch = _launch(self)
        return _noted(lambda: start(launch, self.db, self.watcher, stop=stop), self.db)


def _given(task: Any, options: Mapping[str, Any]) -> _Given:
    """Raises TypeError for an argument that `optimize` does not take, in Python's own words."""
    import inspect

    bound = inspect.signature(optimize).bind(task, **options)
    bound.apply_defaults()
    return _Given(**bound.arguments)


def _launch(given: _Given) -> Launch:
    """Checks all that was given and keeps what the ledger needs as files. Raises InputError with all that is wrong."""
    silence(given.watcher.warn)
    own = given.options
    words: dict[str, Any] = {
        **OPTIONS,
        **{name: own[name] for name in OPTIONS if name in own},
        **{name: _several(own[name]) for name in ("judge", "input", "ignore")},
        "metric": None,
        "target_field": own["target"],
        "time_limit": _time(own["time_limit"]),
        "max_wait": _time(own["max_wait"]),
        "price": _joined(own["price"], ","),
        "limit": _joined(own["limit"], "-"),
        "tag": [f"{key}={value}" for key, value in (own["tags"] or {}).items()],
        "no_cache": not own["use_cache"],
    }
    problems = _wrong(words)
    texts: dict[str, str] = {}
    words["task"], rows = _source(given.task, words, problems)
    if rows is not None:
        lines, wrong = lines_of(rows)
        problems += wrong
        if not NAME.fullmatch(own["name"]):
            problems.append(Problem("name", f"{own['name']!r}: write letters, digits, _ and -"))
        words["task"] = f"{own['name']}.jsonl"
        texts[words["task"]] = "".join(f"{line}\n" for line in lines)
        for part in ("target", "prompt"):
            if own[part] is None:
                problems.append(Problem(part, "is missing; rows need the column to predict and your prompt"))
    if (prompt := own["prompt"]) is not None:
        if is_file(prompt):
            words["prompt"] = str(prompt)
        elif not prompt.strip():
            problems.append(Problem("prompt", "is empty; write what the model is told today"))
        else:
            texts["prompt.txt"] = prompt
    _scorer(own["metric"], words, problems)
    _require(problems)
    if not texts:
        return prepare(words, given.db, given.watcher)
    folder, is_new = keep(given.db.parent, texts)
    try:
        return prepare({**words, **_places(folder, texts)}, given.db, given.watcher)
    except AgentError:
        if is_new:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _places(folder: Path, texts: Iterable[str]) -> dict[str, str]:
    return {"prompt" if name == "prompt.txt" else "task": str(folder / name) for name in texts}


def _source(task: Any, words: Mapping[str, Any], problems: list[Problem]) -> tuple[str, Sequence[Any] | None]:
    """The word that names the task, or its rows."""
    from agent.types import Task

    if isinstance(task, str | Path):
        return str(task), None
    if isinstance(task, Task):
        from agent.task.load import load_task

        if task.folder and load_task(task.folder) == task:
            return task.folder, None
        what = "was changed after it was loaded, and a run must be resumed from files; change its folder"
        problems.append(Problem(f"task {task.name}", what if task.folder else "has no folder; give its rows"))
        return task.folder, None
    try:
        rows = rows_of(task)
    except ValueError as error:
        problems.append(Problem("task", f"{error}; give each column a name of its own"))
        return "", []
    if isinstance(rows, Mapping) or not isinstance(rows, Iterable):
        what = f"is {type(task).__name__}; give a path, a name, a Task, a list of dicts or a DataFrame"
        problems.append(Problem("task", what))
        return "", None
    return "", list(rows)


def _scorer(metric: Any, words: dict[str, Any], problems: list[Problem]) -> None:
    """Notes the function that scores by name and source, or the metric of ours as it was written."""
    from agent.metrics.metric_registry import METRICS
    from agent.scoring.function_metric import register, registered

    if metric is None:
        return
    try:
        found = registered(metric) if isinstance(metric, str) else register(metric)
    except InputError as error:
        problems.append(Problem("metric", str(error)))
        return
    if found is None and re.split("[:,]", metric)[0] in METRICS:
        words["metric"] = metric
        return
    if found is None:
        problems.append(
            Problem("metric", f"no function is registered as {metric!r}; write @promptassay.metric({metric!r})")
        )
        return
    words |= {"metric": found.name, "metric_source": found.digest}


def _register_as_begun(run: str, function: MetricFunction, db: Path) -> None:
    """Registers the function under the name that the run knows it by."""
    from contextlib import closing

    from agent.ledger.query import started_with
    from agent.run.locations import open_history
    from agent.run.resume import unfinished
    from agent.scoring.function_metric import register

    with closing(open_history(db)) as history:
        found = history.run(run) if run else unfinished(history.runs(), db)
    begun = started_with(found)
    name = begun.get("metric")
    if not name or not begun.get("metric_source"):
        raise InputError(f"{found['id']}: its task has metrics of its own; leave out metric=")
    register(function, name)


AT_LEAST = {"trials": 1, "max_calls": 1, "max_tokens": 1, "thinking": 0, "max_concurrency": 1}
ONE_OF = {
    "effort": ("quick", "standard", "thorough"),
    "strategy": (None, "evolve", "bayes", "dspy-mipro", "dspy-gepa", "dspy-bootstrap"),
    "prefer": ("best", "cheap", "short"),
    "type": (None, "text", "choice", "number", "json"),
}


def _wrong(words: Mapping[str, Any]) -> list[Problem]:
    """What is out of its range, one problem each."""
    from agent.task.words import seconds

    problems = []
    for name, least in AT_LEAST.items():
        value = words.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            problems.append(Problem(name, f"{value!r}: write a whole number of at least {least}"))
    for name, known in ONE_OF.items():
        if name in words and words[name] not in known:
            choices = ", ".join(repr(each) for each in known)
            problems.append(Problem(name, f"{words[name]!r}: write one of {choices}"))
    cost, seed = words.get("max_cost"), words.get("seed", 0)
    if cost is not None and (
        isinstance(cost, bool) or not isinstance(cost, int | float) or not 0 <= cost < float("inf")
    ):
        problems.append(Problem("max_cost", f"{cost!r}: write a number of US dollars"))
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
        problems.append(Problem("seed", f"{seed!r}: write a whole number from 0 to 2**31 - 1"))
    for name in ("time_limit", "max_wait"):
        try:
            if words.get(name) is not None:
                seconds(words[name])
        except ValueError as error:
            problems.append(Problem(name, f"{words[name]!r}: {error}"))
    return problems


def _require(problems: Sequence[Problem]) -> None:
    if problems:
        raise ProblemsError(tuple(problems))


def _time(value: Seconds | None) -> str | None:
    return None if value is None else str(value)


def _several(value: str | Sequence[str]) -> list[str]:
    """The words of an option that may be repeated."""
    return [value] if isinstance(value, str) else list(value)


def _joined(value: Any, mark: str) -> str | None:
    """The words of an option that takes several numbers."""
    if value is None:
        return None
    return mark.join(map(str, value)) if isinstance(value, tuple | list) else str(value)


# -- how it runs ------------------------------------------------------------------------------------------------------


class _Watcher(Watcher):
    """Lines to the log, snapshots to the user's own function."""

    def __init__(self, progress: Callable[[Snapshot], None] | None) -> None:
        self._progress = progress

    def on_snapshot(self, snapshot: Snapshot) -> None:
        if self._progress is not None:
            self._progress(snapshot)

    def on_message(self, line: str) -> None:
        _log.info("%s", line)

    def warn(self, line: str) -> None:
        _log.warning("%s", line)


def _noted(call: Callable[[], _T], db: Path) -> _T:
    """The same, with a note on what ends a run early: how to go on."""
    try:
        return call()
    except AgentError as error:
        if error.run_id:
            where = "" if db == LEDGER else f", ledger={str(db)!r}"
            error.add_note(f"to go on: promptassay.resume({error.run_id!r}{where}), or {error.hint}")
        raise


def _waited(work: Callable[[Stop | None], _T]) -> _T:
    """The result of `work`, which runs an event loop: here, or in a thread where one runs already.

    A Ctrl-C comes to the main thread; a run elsewhere is told of it from there.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work(None)
    thread = _Thread(work)
    if threading.current_thread() is not threading.main_thread():
        return thread.found.result()
    before = signal.signal(signal.SIGINT, lambda number, frame: thread.stop.press())
    try:
        return thread.found.result()
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler if before is None else before)


async def _awaited(work: Callable[[Stop | None], _T]) -> _T:
    """The same for whoever waits in a loop: cancelled, it lets what is in flight land, and twice it does not."""
    thread = _Thread(work)
    found = asyncio.wrap_future(thread.found)
    cancelled: asyncio.CancelledError | None = None
    while not found.done():
        try:
            await asyncio.wait({found})
        except asyncio.CancelledError as error:
            cancelled = error
            thread.stop.press()
    if cancelled is not None:
        found.exception()  # what ended the run is told by the cancellation
        raise cancelled
    return found.result()


class _Thread(Generic[_T]):
    """Calls `work` in a thread of its own."""

    def __init__(self, work: Callable[[Stop | None], _T]) -> None:
        self.stop = Stop()
        self.found: Future[_T] = Future()
        self._work = work
        threading.Thread(target=self._call, name="promptassay", daemon=True).start()

    def _call(self) -> None:
        try:
            self.found.set_result(self._work(self.stop))
        except BaseException as error:
            self.found.set_exception(error)
