"""The keyword arguments of `optimize` in Python; rows and prompts given there become files next to the ledger."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import PrivateAttr, SkipValidation

from agent.errors import AgentError, InputError, Problem, ProblemsError
from agent.jobs.in_python import WatchArguments
from agent.jobs.launch import Launch, prepare
from agent.jobs.locations import open_history
from agent.jobs.observers import Watcher
from agent.jobs.resume import unfinished
from agent.jobs.tool_sources import GivenTool, given_tools
from agent.ledger.query import started_with
from agent.metrics.metric_registry import METRICS
from agent.options.option import option
from agent.options.run import RecordedOptions, RunOptions
from agent.programs.agent_call import AgentFunction, register_agent
from agent.redact import silence
from agent.release.texts import TEXTS_FILE
from agent.safe_file import new_file
from agent.safe_text import SURROGATE
from agent.scoring.task_metrics import MetricFunction, register, registered
from agent.search.registered import STRATEGIES
from agent.task.agent_texts import text_faults
from agent.task.load import load_task
from agent.task.tools import TOOLS_FILE, tools_json
from agent.types import Task

PROMPT_FILE = "prompt.txt"
MOST_LISTED = 20  # problems of rows
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")
GivenTools = Sequence[GivenTool] | str | Path | None
GivenTexts = Mapping[str, str] | str | Path | None


class OptimizeArguments(RunOptions, WatchArguments):
    """The keyword arguments of `optimize`."""

    prompt: str | Path | None = RunOptions.field(
        "prompt",
        help="Your prompt, for rows and data files: a text, or a file (a Path, a name in .txt or .md, or any that "
        "exists).",
    )
    metric: MetricFunction | str | None = RunOptions.field(  # type: ignore[assignment]
        "metric",
        help="What scores an answer instead of the task's metrics: a function `(row, answer) -> float` in [0, 1], the "
        "name of one that `metric` registered, or a metric of `optimize metrics list` as "
        '"NAME[:FIELD][,option=value]". A function runs in this process, for at most 5 s a row.',
    )
    tools: Annotated[GivenTools, SkipValidation] = RunOptions.field(  # type: ignore[assignment]
        "tools",
        help="For rows and data files: what the model may call; the target then holds the right calls of each row, [] "
        "where no tool fits. Functions of Python, whose types and docstrings are read and which are not called; tools "
        "as JSON, as OpenAI, Anthropic or MCP write them; or a file, as `optimize tools` takes it.",
    )
    agent: Annotated[AgentFunction | str | None, SkipValidation] = RunOptions.field(  # type: ignore[assignment]
        "agent",
        help="For rows and data files: your own agent, a function `run(texts, row, model)`, sync or async, that gives "
        "its answer; or FILE.py:NAME. It asks models at `model.url` with `model.key` as `model.name`. A function runs "
        "in this process.",
    )
    texts: Annotated[GivenTexts, SkipValidation] = RunOptions.field(  # type: ignore[assignment]
        "texts", help="What of {agent} may change: texts by name, or a file of them."
    )
    name: str = option("rows", "What the task is called, where rows are given.")
    _wrong: tuple[Problem, ...] = PrivateAttr(())
    """What cannot be used; told together with what is wrong with task and rows."""

    @classmethod
    def given(cls, values: Mapping[str, Any], spelled: Callable[[str], str] = str) -> Self:
        wrong = cls.problems(values)
        made = super().given({name: value for name, value in values.items() if name not in wrong}, spelled)
        made._wrong = tuple(Problem(name, what) for name, what in wrong.items())
        return made


def launch_of(task: Any, given: OptimizeArguments, db: Path, watcher: Watcher) -> Launch:
    """Prepare a run from the arguments of `optimize`. Rows and prompt are stored as files next to the ledger.

    Raises InputError; ProblemsError names all visible problems at once.
    """
    silence(watcher.warn)
    problems = [*given._wrong]
    try:
        STRATEGIES.get(given.strategy or "evolve")
    except InputError as error:
        problems.append(Problem("strategy", str(error)))
    texts: dict[str, str] = {}
    words: dict[str, Any] = {"metric": None, "prompt": None, "tools": None, "texts": None}
    words["task"], rows = _source(task, problems)
    if rows is not None:
        lines, wrong = _lines_of(rows)
        problems += wrong
        if not NAME.fullmatch(given.name):
            problems.append(Problem("name", f"{given.name!r}: write letters, digits, _ and -"))
        words["task"] = f"{given.name}.jsonl"
        texts[words["task"]] = "".join(f"{line}\n" for line in lines)
        for part in ("target", "prompt") if given.agent is None else ("target", "texts"):
            if getattr(given, part) is None and part not in {wrong.where for wrong in given._wrong}:
                needs = "your prompt" if given.agent is None else "the texts of your agent"
                problems.append(Problem(part, f"is missing; rows need the column to predict and {needs}"))
    if (prompt := given.prompt) is not None:
        if _is_file(prompt):
            words["prompt"] = str(prompt)
        elif not str(prompt).strip():
            problems.append(Problem("prompt", "is empty; write what the model is told today"))
        else:
            texts[PROMPT_FILE] = str(prompt)
    if (tools := given.tools) is not None:
        if isinstance(tools, str | Path):
            words["tools"] = str(tools)
        elif not isinstance(tools, list | tuple):
            problems.append(Problem("tools", f"is {type(tools).__name__}; give a list of functions, or a file"))
        else:
            made, faults = given_tools(tools)
            problems += [Problem("tools", what) for what in faults]
            texts[TOOLS_FILE] = tools_json(made)
    if (agent_texts := given.texts) is not None:
        if isinstance(agent_texts, str | Path):
            words["texts"] = str(agent_texts)
        elif faults := text_faults(agent_texts):
            problems += [Problem("texts", what) for what in faults]
        else:
            texts[TEXTS_FILE] = json.dumps(dict(agent_texts), ensure_ascii=False, indent=2)
    if callable(given.agent):
        try:
            known = register_agent(given.agent)
            words |= {"agent": known.name, "agent_source": known.digest}
        except InputError as error:
            problems.append(Problem("agent", str(error)))
    if given.metric is not None:
        words |= _metric_words(given.metric, problems)
    require_none(problems)
    options = {name: value for name, value in given.as_given.items() if name in RunOptions.model_fields}
    if not texts:
        return prepare(RecordedOptions(**{**options, **words}), db, watcher)
    folder, is_new = _kept(db.parent, texts)
    parts = {PROMPT_FILE: "prompt", TOOLS_FILE: "tools", TEXTS_FILE: "texts"}
    places = {parts.get(name, "task"): str(folder / name) for name in texts}
    try:
        launch = prepare(RecordedOptions(**{**options, **words, **places}), db, watcher)
        launch.plan()  # what is refused leaves no rows here
        return launch
    except AgentError:
        if is_new:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def require_none(problems: Sequence[Problem]) -> None:
    """Raise ProblemsError if there is a problem."""
    if problems:
        raise ProblemsError(tuple(problems))


def register_as_begun(run: str, metric: MetricFunction | None, agent: AgentFunction | None, db: Path) -> None:
    """Register functions under their names in a run, as its metric and agent. "": the latest unfinished run."""
    with closing(open_history(db)) as history:
        row = history.run(run) if run else unfinished(history.runs(), db)
    begun = started_with(row)
    if metric is not None:
        if not begun.metric or not begun.metric_source:
            raise InputError(f"{row['id']}: its metrics are those of the task; leave out metric=")
        register(metric, begun.metric)
    if agent is not None:
        if not begun.agent or not begun.agent_source:
            raise InputError(f"{row['id']}: its program is that of the task; leave out agent=")
        register_agent(agent, begun.agent)


def _source(task: Any, problems: list[Problem]) -> tuple[str, Sequence[Any] | None]:
    if isinstance(task, str | Path):
        return str(task), None
    if isinstance(task, Task):
        if task.folder and load_task(task.folder) == task:
            return task.folder, None
        what = "was changed after it was loaded, and a run must be resumed from files; change its folder"
        problems.append(Problem(f"task {task.name}", what if task.folder else "has no folder; give its rows"))
        return task.folder, None
    rows = task
    if hasattr(task, "to_json") and hasattr(task, "columns"):  # a pandas DataFrame: missing values are None
        try:
            text = task.to_json(orient="records", date_format="iso", double_precision=15, force_ascii=False)
        except ValueError as error:
            problems.append(Problem("task", f"{error}; give each column a different name"))
            return "", []
        rows = json.loads(text)
    if isinstance(rows, Mapping) or not isinstance(rows, Iterable):
        what = f"is {type(task).__name__}; give a path, a name, a Task, a list of dicts or a DataFrame"
        problems.append(Problem("task", what))
        return "", None
    return "", list(rows)


def _metric_words(metric: MetricFunction | str, problems: list[Problem]) -> dict[str, str]:
    try:
        function = registered(metric) if isinstance(metric, str) else register(metric)
    except InputError as error:
        problems.append(Problem("metric", str(error)))
        return {}
    if function is None and isinstance(metric, str) and re.split("[:,]", metric)[0] in METRICS:
        return {"metric": metric}
    if function is None:
        problems.append(
            Problem("metric", f"no function is registered as {metric!r}; write @promptassay.metric({metric!r})")
        )
        return {}
    return {"metric": function.name, "metric_source": function.digest}


def _lines_of(rows: Sequence[Any]) -> tuple[list[str], list[Problem]]:
    lines: list[str] = []
    problems: list[Problem] = []
    for number, row in enumerate(rows):
        where = f"row {number}"
        if not isinstance(row, Mapping) or not all(isinstance(key, str) for key in row):
            problems.append(Problem(where, f"is {type(row).__name__} {row!r:.60}; write a dict with column names"))
            continue
        try:
            line = json.dumps(dict(row), ensure_ascii=False, allow_nan=False)
            line.encode("utf-8")
            lines.append(line)
        except UnicodeEncodeError:
            halves = [key for key, value in row.items() if SURROGATE.search(f"{key}{value}")]
            columns = ", ".join(map(ascii, halves)) or "a nested value"
            problems.append(Problem(where, f"{columns}: holds half a character (a lone surrogate); take it out"))
        except (TypeError, ValueError) as error:
            problems.append(Problem(where, f"{error}; write texts, finite numbers, lists or dicts"))
    if len(problems) > MOST_LISTED:
        more = len(problems) - MOST_LISTED
        problems[MOST_LISTED:] = [Problem("rows", f"and {more} more with a problem of the kind")]
    return lines, problems


def _is_file(prompt: str | Path) -> bool:
    if isinstance(prompt, Path):
        return True
    one_line = "\n" not in prompt and len(prompt) < 1000 and "\x00" not in prompt
    return one_line and ((prompt.endswith((".txt", ".md")) and " " not in prompt) or Path(prompt).is_file())


def _kept(runs: Path, texts: Mapping[str, str]) -> tuple[Path, bool]:
    data = {name: text.encode("utf-8", "surrogatepass") for name, text in texts.items()}
    digest = hashlib.sha256(b"".join(name.encode() + b"\0" + each + b"\0" for name, each in sorted(data.items())))
    folder = runs / "tasks" / digest.hexdigest()[:16]
    is_new = not folder.exists()
    for name, content in data.items():
        with new_file(folder / name, private=True) as file:
            file.write(content)
    return folder, is_new
