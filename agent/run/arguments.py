"""The arguments of the functions of `api.py`: checked all at once, and made the options of a run.

Rows and prompts that were given in Python are kept as files beside the ledger. A run of them is then a run of a data
file: it resumes, is audited, exported and reproduced as any other.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from agent.errors import AgentError, InputError, Problem, ProblemsError
from agent.files import new_file
from agent.ledger.query import started_with
from agent.metrics.metric_registry import METRICS
from agent.run.launch import OPTIONS, Launch, prepare, silence
from agent.run.locations import open_history
from agent.run.observers import Watcher
from agent.run.resume import unfinished
from agent.run.tool_sources import given_tools
from agent.scoring.user_metrics import MetricFunction, register, registered
from agent.search.registered import STRATEGIES
from agent.search.samplers import PRUNERS, SAMPLERS
from agent.task.called_tools import TOOLS_FILE, tools_json
from agent.task.load import load_task
from agent.task.words import seconds
from agent.types import MOST_COUNT, MOST_DOLLARS, Task

PROMPT_FILE = "prompt.txt"
MOST_LISTED = 20  # problems of rows
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")
AT_LEAST = {"trials": 1, "max_calls": 1, "max_tokens": 1, "max_demos": 0, "thinking": 0, "max_concurrency": 1}
ONE_OF = {
    "effort": ("quick", "standard", "thorough"),
    "prefer": ("best", "cheap", "short"),
    "sampler": SAMPLERS,
    "pruner": PRUNERS,
    "type": (None, "text", "choice", "number", "json"),
}


def launch_of(arguments: Mapping[str, Any], db: Path, watcher: Watcher) -> Launch:
    """Makes the arguments of `optimize` a run that is ready to start, and keeps rows and prompt as files.

    Args:
        arguments: by name, with the defaults of those that were not given.
        db: the ledger; the files are kept beside it.
        watcher: shows messages and warnings.

    Raises:
        InputError: something is wrong; ProblemsError names all of it that can be seen at once.
    """
    silence(watcher.warn)
    words: dict[str, Any] = {
        **OPTIONS,
        **{name: arguments[name] for name in OPTIONS if name in arguments},
        **{name: _several(arguments[name]) for name in ("judge", "input", "ignore")},
        "metric": None,
        "knowledge": as_text(arguments["knowledge"]),
        "target_field": _targets(arguments["target"]),
        "time_limit": as_text(arguments["time_limit"]),
        "max_wait": as_text(arguments["max_wait"]),
        "batch_wait": as_text(arguments["batch_wait"]),
        "price": as_text(arguments["price"]),
        "limit": as_text(arguments["limit"], "-"),
        "tag": [f"{key}={value}" for key, value in (arguments["tags"] or {}).items()],
        "no_cache": not arguments["use_cache"],
        "no_calibrate": not arguments["calibrate"],
        "no_retrieval": not arguments["retrieval"],
    }
    problems = out_of_range(words)
    texts: dict[str, str] = {}
    words["task"], rows = _source(arguments["task"], problems)
    if rows is not None:
        lines, wrong = lines_of(rows)
        problems += wrong
        if not NAME.fullmatch(arguments["name"]):
            problems.append(Problem("name", f"{arguments['name']!r}: write letters, digits, _ and -"))
        words["task"] = f"{arguments['name']}.jsonl"
        texts[words["task"]] = "".join(f"{line}\n" for line in lines)
        for part in ("target", "prompt"):
            if arguments[part] is None:
                problems.append(Problem(part, "is missing; rows need the column to predict and your prompt"))
    if (prompt := arguments["prompt"]) is not None:
        if not isinstance(prompt, str | Path):
            problems.append(Problem("prompt", f"is {type(prompt).__name__}; give a text, or a file"))
        elif is_file(prompt):
            words["prompt"] = str(prompt)
        elif not (text := str(prompt)).strip():
            problems.append(Problem("prompt", "is empty; write what the model is told today"))
        else:
            texts[PROMPT_FILE] = text
    if (tools := arguments["tools"]) is not None:
        if isinstance(tools, str | Path):
            words["tools"] = str(tools)
        elif not isinstance(tools, Sequence):
            problems.append(Problem("tools", f"is {type(tools).__name__}; give a list of functions, or a file"))
        else:
            made, faults = given_tools(tools)
            problems += [Problem("tools", what) for what in faults]
            texts[TOOLS_FILE] = tools_json(made)
    if arguments["metric"] is not None:
        words |= _metric_words(arguments["metric"], problems)
    require_none(problems)
    if not texts:
        return prepare(words, db, watcher)
    folder, is_new = keep(db.parent, texts)
    parts = {PROMPT_FILE: "prompt", TOOLS_FILE: "tools"}
    places = {parts.get(name, "task"): str(folder / name) for name in texts}
    try:
        launch = prepare({**words, **places}, db, watcher)
        launch.plan()  # what is refused leaves no rows here
        return launch
    except AgentError:
        if is_new:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def out_of_range(words: Mapping[str, Any]) -> list[Problem]:
    """What of the options of a run or a check is out of its range, one problem each."""
    problems = []
    for name, least in AT_LEAST.items():
        value = words.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            problems.append(Problem(name, f"{value!r}: write a whole number of at least {least}"))
        elif value is not None and value > MOST_COUNT:
            problems.append(Problem(name, f"{value:.0e}: write a whole number of at most {MOST_COUNT:,}"))
    for name, known in ONE_OF.items():
        if name in words and words[name] not in known:
            choices = ", ".join(repr(each) for each in known)
            problems.append(Problem(name, f"{words[name]!r}: write one of {choices}"))
    if (strategy := words.get("strategy")) is not None:
        try:
            STRATEGIES.get(str(strategy))
        except InputError as error:
            problems.append(Problem("strategy", str(error)))
    margin = words.get("margin", 1)
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not 0 < margin <= 50:
        problems.append(Problem("margin", f"{margin!r}: write the points of a loss, above 0 and at most 50"))
    cost, seed = words.get("max_cost"), words.get("seed", 0)
    if cost is not None and (
        isinstance(cost, bool) or not isinstance(cost, int | float) or not 0 <= cost <= MOST_DOLLARS
    ):
        problems.append(Problem("max_cost", f"{cost!r:.40}: write US dollars from 0 to {MOST_DOLLARS:,.0f}"))
    if (detect := words.get("detect")) is not None and (
        isinstance(detect, bool) or not isinstance(detect, int | float) or not 0 < detect <= 100
    ):
        problems.append(Problem("detect", f"{detect!r}: write a number of points above 0, at most 100"))
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
        problems.append(Problem("seed", f"{seed!r}: write a whole number from 0 to 2**31 - 1"))
    for name in ("time_limit", "max_wait", "batch_wait"):
        try:
            if words.get(name) is not None:
                seconds(words[name])
        except ValueError as error:
            problems.append(Problem(name, f"{words[name]!r}: {error}"))
    return problems


def require_none(problems: Sequence[Problem]) -> None:
    """Raises ProblemsError where there is any problem."""
    if problems:
        raise ProblemsError(tuple(problems))


def as_text(value: Any, mark: str = ",") -> str | None:
    """An option as the command line has it: several numbers are joined by `mark`. None stays None."""
    if value is None:
        return None
    return mark.join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def register_as_begun(run: str, function: MetricFunction, db: Path) -> None:
    """Registers the function under the name by which the run knows its metric.

    Args:
        run: its id, or the unique start of it. "": the latest that did not finish.
        function: what scores.
        db: the ledger.

    Raises:
        InputError: there is no such run, or its metrics are no function.
    """
    with closing(open_history(db)) as history:
        row = history.run(run) if run else unfinished(history.runs(), db)
    begun = started_with(row)
    name = begun.get("metric")
    if not name or not begun.get("metric_source"):
        raise InputError(f"{row['id']}: its task has metrics of its own; leave out metric=")
    register(function, name)


def _targets(value: str | Sequence[str] | None) -> str | list[str] | None:
    """One column by its name, or several."""
    if value is None or isinstance(value, str):
        return value
    return list(value) if len(value) > 1 else next(iter(value), None)


def _several(value: str | Sequence[str]) -> list[str]:
    """The words of an option that may be repeated."""
    return [value] if isinstance(value, str) else list(value)


def _source(task: Any, problems: list[Problem]) -> tuple[str, Sequence[Any] | None]:
    """The word that names the task, or its rows."""
    if isinstance(task, str | Path):
        return str(task), None
    if isinstance(task, Task):
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


def _metric_words(metric: MetricFunction | str, problems: list[Problem]) -> dict[str, str]:
    """The function that scores, by name and source, or the metric of ours as it was written."""
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


def rows_of(table: Any) -> Any:
    """The rows of a pandas DataFrame as dicts, as its own JSON has them: no value is None, a time is a text.

    Anything else as it is. Raises ValueError for a table without unique column names.
    """
    if not (hasattr(table, "to_json") and hasattr(table, "columns")):
        return table
    text = table.to_json(orient="records", date_format="iso", double_precision=15, force_ascii=False)
    return json.loads(text)


def lines_of(rows: Sequence[Any]) -> tuple[list[str], list[Problem]]:
    """Each row as a line of JSON, and what is wrong with which row, counted from 0."""
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
            halves = [key for key, value in row.items() if re.search("[\ud800-\udfff]", f"{key}{value}")]
            columns = ", ".join(map(ascii, halves)) or "a nested value"
            problems.append(Problem(where, f"{columns}: holds half a character (a lone surrogate); take it out"))
        except (TypeError, ValueError) as error:
            problems.append(Problem(where, f"{error}; write texts, finite numbers, lists or dicts"))
    if len(problems) > MOST_LISTED:
        more = len(problems) - MOST_LISTED
        problems[MOST_LISTED:] = [Problem("rows", f"and {more} more with a problem of the kind")]
    return lines, problems


def is_file(prompt: str | Path) -> bool:
    """Whether `prompt` names a file: a Path, or one word that ends with .txt or .md or is a file that is there."""
    if isinstance(prompt, Path):
        return True
    one_line = "\n" not in prompt and len(prompt) < 1000 and "\x00" not in prompt
    return one_line and ((prompt.endswith((".txt", ".md")) and " " not in prompt) or Path(prompt).is_file())


def keep(runs: Path, texts: Mapping[str, str]) -> tuple[Path, bool]:
    """Puts the texts by file name into a folder of `runs`/tasks, named after what they say, for their owner only.

    Returns the folder, and whether it is new. Raises OSError when the disk refuses.
    """
    data = {name: text.encode("utf-8", "surrogatepass") for name, text in texts.items()}
    digest = hashlib.sha256(b"".join(name.encode() + b"\0" + each + b"\0" for name, each in sorted(data.items())))
    folder = runs / "tasks" / digest.hexdigest()[:16]
    is_new = not folder.exists()
    for name, content in data.items():
        with new_file(folder / name, private=True) as file:
            file.write(content)
    return folder, is_new
