"""Find tasks by path, by name and by the options of a run; make a new one from a user's file."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from agent.errors import InputError, ReleaseError
from agent.jobs.agent_sources import AGENT_PART, TEXTS_PART, require_texts, with_agent
from agent.jobs.tool_sources import tools_in_file
from agent.ledger.query import Row, started_with
from agent.metrics.calls import calls_in, require_accepted
from agent.metrics.metric_registry import METRICS
from agent.observer import NO_OBSERVER, Observer
from agent.options.run import RecordedOptions
from agent.options.shared import asked_of
from agent.release.completion import parameters_of
from agent.release.runtime import load_prompt
from agent.safe_file import prompt_text
from agent.safe_text import quoted
from agent.scoring.task_metrics import registered
from agent.scoring.tuned_judge import TunedPrompt
from agent.task.by_name import find_task
from agent.task.from_file import new_task_folder, task_from_file
from agent.task.load import load_task
from agent.task.scoring_rule import metric_asked
from agent.task.tables import SPREADSHEETS, TABLES
from agent.task.task_text import Reading
from agent.task.tools import TOOLS_FILE
from agent.types import MetricSpec, Task

METRIC = "metric"
"""The part of a task, among its hashes, that is a Python function or the metric of `--metric`."""


def task_of(options: RecordedOptions) -> Task:
    """Load the task that a run's options name, with as many rows as they allow. Raises InputError."""
    return read_task(options)[0]


def read_task(options: RecordedOptions, observer: Observer = NO_OBSERVER) -> tuple[Task, Reading | None]:
    """Load the task of a run, and how its data file (if any) was read."""
    task, reading = _load(options, observer)
    task = with_judges(task)
    if options.metric_source:
        function, outputs = registered(options.metric or ""), task.signature.outputs
        spec = MetricSpec(options.metric or "", outputs[0].name if len(outputs) == 1 else "")
        hashes = {part: digest for part, digest in task.hashes.items() if part != "metric.py"}
        hashes[METRIC] = function.digest if function else options.metric_source
        task = replace(task, metrics=(spec,), hashes=hashes)
    elif reading is None and options.metric:
        task = _scored_as_asked(task, options.metric)
    if options.embeddings:
        task = replace(task, space=replace(task.space, embeddings=options.embeddings))
    if options.max_examples is not None:
        task = with_demo_limit(task, options.max_examples)
    if (limit := options.limit) is not None:
        train, dev, test = (limit, limit, limit) if isinstance(limit, int) else limit
        task = replace(task, train=task.train[:train], dev=task.dev[:dev], test=task.test[:test])
    return task, reading


def with_judges(task: Task) -> Task:
    """Return the task with the tuned judges that its metrics name. Raises InputError."""
    found = {}
    for spec in task.metrics:
        if spec.name != "judge" or not (reference := str(spec.options.get("judge", ""))):
            continue
        where, mode = f"{task.folder}/task.toml:1: judge = {quoted(reference)}", spec.options.get("mode", "rubric")
        try:
            path = Path(task.folder) / reference if reference.endswith(".md") else reference
            release = load_prompt(path).release
            made = TunedPrompt(release, release.version, parameters_of(release))
        except (ReleaseError, InputError) as error:
            raise InputError(f"{where}: {error}") from None
        known = [field.name for field in task.signature.inputs]
        if lacking := [each for each in made.prompt.inputs[: -made.judged] if each not in known]:
            raise InputError(f"{where}: it was tuned with the input {lacking[0]}, which {task.name} does not have")
        if made.mode != mode:
            raise InputError(f'{where}: it judges by mode = "{made.mode}", not "{mode}"; set it')
        found[reference] = made
    judges = task.judges or tuple(dict.fromkeys(each.prompt.target for each in found.values()))
    hashes = {f"judge {reference}": made.version for reference, made in found.items()}
    return replace(task, tuned_judges=found, judges=judges, hashes={**task.hashes, **hashes})


def source_of(part: str, options: RecordedOptions) -> str:
    """Return the file that a `part` of the task (`dev`, `task.toml`) comes from."""
    if part == METRIC:
        return f"the metric {options.metric or ''}".rstrip()
    if part in (AGENT_PART, TEXTS_PART):
        return f"the agent {options.agent}" if part == AGENT_PART else f"the texts in {options.texts}"
    if not options.prompt:
        return part if not options.agent else options.task
    if part == "knowledge":
        return f"the documents in {options.knowledge}"
    if part == TOOLS_FILE:
        return f"the tools in {options.tools}"
    prompt = str(options.prompt)
    named = prompt if len(prompt) <= 80 else "the prompt"
    return f"{named} (or how {options.task} is read)" if part == "task.toml" else options.task


def changed_parts(row: Row, task: Task, names: Iterable[str] = ()) -> list[str]:
    """Return the task's files that differ from those of a run. `names`: the parts to compare (default: all)."""
    options, then = started_with(row), row["hashes"]
    parts = names or dict.fromkeys([*then, *task.hashes])
    return list(dict.fromkeys(source_of(name, options) for name in parts if then.get(name) != task.hashes.get(name)))


def require_judging(task: Task) -> None:
    """Raise InputError if --judge would have no effect."""
    if not task.is_judged:
        raise InputError(
            f'{task.name}: --judge, but no metric of the task is a judge; write name = "judge" in [[metrics]]'
        )


def copy_task(folder: Path, *sources: Path) -> None:
    """Copy the files of all sources to `folder`, whole or not at all. Raises InputError."""
    with new_task_folder(folder) as (new, _):
        for source in sources:
            shutil.copytree(source, new, copy_function=shutil.copyfile, dirs_exist_ok=True)


def _scored_as_asked(task: Task, words: str) -> Task:
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
    if spec.options.get("mode") == "faithfulness" and task.knowledge is None:
        raise InputError(f"--metric {words}: it goes by passages of documents, and {task.name} has no [knowledge]")
    scored = replace(task, metrics=(spec,))
    for row in (*task.train, *task.dev, *task.test) if scored.accepted else ():
        try:
            require_accepted(calls_in(row.labels[spec.field]))
        except ValueError as error:
            raise InputError(f"--metric {words}: the label of the row {row.id} cannot be used: {error}") from None
    return replace(scored, hashes={**task.hashes, METRIC: hashlib.sha256(words.encode()).hexdigest()})


def _load(options: RecordedOptions, observer: Observer) -> tuple[Task, Reading | None]:
    if options.text is not None:
        from agent.programs.text_file import text_task  # here, as the programs would slow down every command

        return text_task(Path(options.task), options.text, options.seed, observer.on_message), None
    name, target = options.task, options.target
    prompt = None if options.prompt is None else str(options.prompt)
    path, asked = Path(name), asked_of(options, not options.metric_source)
    if path.suffix.lower() in TABLES:
        if not path.is_file():
            raise InputError(f"{name}: no such file")
        if target is None or (prompt is None and not options.agent):
            raise InputError(
                f"{name}: a data file needs --target COL (the column to predict) and --prompt FILE, or its text"
            )
        if options.agent:
            require_texts(options)
        asked = asked.changed(knowledge=str(options.knowledge or ""))
        if asked.knowledge and not Path(asked.knowledge).exists():
            raise InputError(f"--knowledge {asked.knowledge}: no such file or folder; name that of your documents")
        if options.tools:
            asked = asked.changed(tools=tools_in_file(Path(options.tools)))
        instruction = "" if prompt is None else prompt_text(prompt)
        if prompt is not None and not instruction.strip():
            raise InputError(f"{prompt}:1: the prompt is empty; write what the model is told today")
        task, reading = task_from_file(path, target, instruction, options.seed, asked=asked)
        for line in reading.lines():
            if line not in reading.metric_lines or not options.metric_source:  # a function of the user scores
                observer.on_message(line)
        return with_agent(task, options) if options.agent else task, reading
    if path.suffix.lower() in SPREADSHEETS or ((target or prompt) and path.is_file()):
        raise InputError(f"{name}: not a .csv or .jsonl file; save a spreadsheet as CSV UTF-8")
    of_files = ("target", "prompt", "type", "input", "ignore", "encoding", "sheet", "strip_html")
    given = [each for each in (*of_files, "tools", "knowledge", "agent") if getattr(options, each)]
    if given:
        words = ", ".join(f"--{each.replace('_', '-')}" for each in given)
        raise InputError(f"{name}: {words} needs a data file (.csv, .jsonl); a task folder has it in task.toml")
    return load_task(find_task(name)), None


def with_demo_limit(task: Task, most: int) -> Task:
    """Limit the examples of a prompt, also in the sizes of example sets. Raises InputError."""
    if most < 0:
        raise InputError(f"--max-examples {most}: write a whole number of at least 0; 0 tries instructions only")
    own = task.constraints.max_examples
    limit = most if own is None else min(most, own)
    if not limit and not task.program and all("few-shot" in name for name in task.space.techniques):
        names = ", ".join(task.space.techniques)
        raise InputError(
            f"--max-examples {most}: every technique of {task.name} shows examples ({names}); add zero-shot to "
            "techniques in task.toml, or allow some examples"
        )
    counts = tuple(dict.fromkeys(min(count, limit) for count in task.space.demo_counts))
    return replace(
        task, constraints=replace(task.constraints, max_examples=limit), space=replace(task.space, demo_counts=counts)
    )
