"""A task out of one data file: read, cleaned, split, written as a folder that `load_task` accepts, and explained."""

from __future__ import annotations

import json
import random
import re
import shlex
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.conversation import messages_of
from agent.errors import InputError, ProblemsError
from agent.files import new_files
from agent.retrieval.passages import CONTEXT
from agent.shipped import fold
from agent.task.answers import lost_as_number, misspelled, other_spellings, thousands_warning, why_text
from agent.task.asked import NOTHING, Asked, metric_asked
from agent.task.called_tools import TOOLS_FILE, tools_json, with_calls
from agent.task.checks import PLACEHOLDER
from agent.task.clean_rows import MIN_ROWS, Splitting, each_once
from agent.task.columns import (
    DataColumn,
    answer_inside,
    column_named,
    decide_columns,
    field_name,
    filled_in_later,
    find_targets,
)
from agent.task.conversations import conversations_in
from agent.task.examples import listed_problems, parse_number
from agent.task.html_text import html_notes, stripped
from agent.task.input_files import read_data_file
from agent.task.load import SPLITS, load_task
from agent.task.nested import Rows, expanded
from agent.task.scoring_rule import ScoringRule, scoring_rule, usual_rule
from agent.task.task_text import SCHEMA_FILE, SCHEMA_LINE, Output, plain_prompt, slug, string, task_toml
from agent.task.words import counted, quoted, shown
from agent.types import MetricSpec, Task, canonical

SINGLE = re.compile(r"(?<!\{)\{\s*+((?:[^\s{}]++(?:\s++(?=[^\s{}]))?)++)\s*+\}(?!\})")


Targets = str | Sequence[str]
"""The column to predict, or several; an answer then is one value for each."""


@dataclass(frozen=True, slots=True)
class TargetReading:
    """How a column to predict was understood."""

    field: str
    rule: ScoringRule
    choices: tuple[str, ...]
    why_text: str
    """Why a target of few values, or of numbers, is a text all the same."""
    thousands_warning: str
    spellings: Mapping[str, Sequence[str]]
    """By choice, its other spellings in the file."""
    misspelled: Sequence[tuple[str, int, str, int]]
    """Rare labels that look like a frequent one: the label, its rows, the frequent one, its rows."""
    counts: Mapping[str, Mapping[str, int]]
    """Rows by split and class; one class "" when the target is not a choice."""

    def lines(self) -> Iterator[str]:
        """The reading for people, one line each, without the metric."""
        about = f" of {len(self.choices)}" if self.choices else f" ({self.why_text})" if self.why_text else ""
        yield f"target {self.field}: {self.rule.type}{about}"
        if self.thousands_warning:
            yield f"target {self.field}: {self.thousands_warning}"
        for choice, others in self.spellings.items():
            yield f"target {self.field}: {', '.join(map(quoted, others))} read as {quoted(choice)}, the usual spelling"
        for rare, rows, other, many in self.misspelled:
            seen = f"{quoted(rare)} ({rows} of the rows) looks like {quoted(other)} ({many}) misspelled"
            yield f"target {self.field}: {seen}; correct the file if it is"

    @property
    def metric_text(self) -> str:
        """The metric and why it fits."""
        metric = self.rule.metric
        given = {key: " < ".join(value) if key == "order" else value for key, value in metric.options.items()}
        options = ", ".join(f"{key} {value}" for key, value in given.items())
        if not self.rule.because:
            return f"{metric.name}{', whatever the case' * bool(metric.options.get('ignore_case'))}"
        return f"{metric.name}{f' ({options})' * bool(options)}, because {self.rule.because}"


@dataclass(frozen=True, slots=True)
class Reading:
    """How a data file was understood."""

    file: str
    rows: int
    dropped: Mapping[str, int]
    """Rows by reason."""
    unused: int
    """Usable rows that no split took."""
    columns: tuple[DataColumn, ...]
    targets: tuple[TargetReading, ...]
    empty: Mapping[str, int]
    """Inputs that are empty in rows that are kept, and in how many."""
    split_line: str
    """How a column of the file splits the rows; "" where none does."""
    later: Sequence[str]
    """Inputs whose names say that they are filled in later."""
    inside: Mapping[str, int]
    """Inputs that contain the answer word for word, and in how many rows."""
    notes: Sequence[str] = ()
    """What to say of the file itself: its encoding, its sheet, HTML in it."""

    @property
    def metric_lines(self) -> list[str]:
        """The metric of each target, and why it fits."""
        if len(self.targets) == 1:
            return [f"metric: {self.targets[0].metric_text}"]
        return [f"metric of {target.field}: {target.metric_text}" for target in self.targets]

    def lines(self) -> Iterator[str]:
        """The reading for people, one line each."""
        yield from self.notes
        left_out = f"left out of the splits (near-duplicates, or past their sizes): {self.unused}"
        yield f"{self.file}: {self.rows} rows; dropped: {listed_counts(self.dropped)}; {left_out}"
        for column in self.columns:
            kept = f"; empty in {counted(self.empty[column.name], 'row')}, kept" if column.name in self.empty else ""
            yield f"column {quoted(column.name)}: {column.use} ({column.reason}{kept})"
        for name in self.later:
            yield f"column {quoted(name)}: is it known when the prompt is used? If not: --ignore {shlex.quote(name)}"
        for name, count in self.inside.items():
            fix = "if it will not be known when the prompt is used, name the other inputs in the prompt: {{column}}"
            yield f"column {quoted(name)}: the answer stands in it word for word in {count} rows; {fix}"
        for target in self.targets:
            yield from target.lines()
        if len(self.targets) > 1:
            lines = " and ".join(quoted(f"{target.field}: ...") for target in self.targets)
            yield f"replies: the lines {lines}, or one JSON object with these keys; ask for one of them in your prompt"
        yield from self.metric_lines
        usual = "splits: train rows give examples, dev rows compare prompts, test rows are opened once, at the end"
        yield self.split_line or usual
        for split in SPLITS:
            classes = [(target, target.counts[split]) for target in self.targets]
            each = [
                f"{target.field + ' ' if len(self.targets) > 1 else ''}"
                + ", ".join(f"{name}: {count}" for name, count in counts.items())
                for target, counts in classes
                if target.choices
            ]
            yield f"{split}: {sum(classes[0][1].values())} rows" + (f" ({'; '.join(each)})" if each else "")


def task_from_file(
    path: str | Path,
    target: Targets,
    instruction: str = "",
    seed: int = 0,
    name: str | None = None,
    asked: Asked = NOTHING,
) -> tuple[Task, Reading]:
    """A checked task out of a data file, with no folder (`folder` is ""); `seed` decides the splits.

    Without an `instruction` a plain one is written. `target`: the column to predict, or several; `asked`: what else the
    user says of the file. Raises InputError (unknown target, fewer than 30 usable rows, no usable column, a
    `{{placeholder}}` that is no column, an option that does not fit) or ProblemsError (the file has broken rows).
    """
    files, reading = _draft(Path(path), target, instruction, seed, name, asked)
    with tempfile.TemporaryDirectory() as temporary:
        _write(Path(temporary), files)
        documents = Path(asked.knowledge) if asked.knowledge else None
        return replace(load_task(temporary, documents), folder=""), reading


def write_task(
    folder: str | Path,
    path: str | Path,
    target: Targets,
    instruction: str = "",
    seed: int = 0,
    name: str | None = None,
    table: Sequence[dict[str, Any]] | None = None,
    metric: MetricSpec | None = None,
    asked: Asked = NOTHING,
) -> tuple[Task, Reading]:
    """`task_from_file`, kept as a new task folder; a `table` that was read already stands for the rows of `path`, with
    a `metric` for the usual one of its answers. The schema of task.toml is put beside the folder, where it is missing.

    Raises also InputError when `folder` exists or cannot be made.
    """
    folder = Path(folder)
    if folder.exists() or folder.is_symlink():
        raise InputError(f"{shown(folder)} exists; choose another name or remove it first")
    files, reading = _draft(Path(path), target, instruction, seed, name or folder.resolve().name, asked, table, metric)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if not has_schema(folder.parent):
            files["task.toml"] = files["task.toml"].removeprefix(SCHEMA_LINE)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=folder.parent) as temporary:
            beside = Path(temporary) / folder.name  # one that is cut or would not load is never left behind
            beside.mkdir()
            _write(beside, files)
            load_task(beside)
            beside.rename(folder)
    except OSError as error:
        raise InputError(f"{shown(folder)} cannot be written ({error.strerror}); choose another place") from error
    return load_task(folder), reading


def has_schema(folder: Path) -> bool:
    """Whether `folder` has the schema of task.toml for editors, which is written where it is missing."""
    from agent.task.task_file import json_schema

    path = folder / SCHEMA_FILE
    if path.is_file() or path.is_symlink():
        return True
    try:
        with new_files(folder) as beside:
            (beside / SCHEMA_FILE).write_text(json.dumps(json_schema(), indent=2) + "\n", "utf-8")
    except OSError:
        return False
    return True


def _write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (folder / name).write_bytes(text.encode("utf-8"))


def _draft(
    path: Path,
    target: Targets,
    instruction: str,
    seed: int,
    name: str | None,
    asked: Asked,
    table: Sequence[dict[str, Any]] | None = None,
    metric: MetricSpec | None = None,
) -> tuple[dict[str, str], Reading]:
    """The files of the task folder as texts, and the reading."""
    spoken = frozenset[str]()
    is_read, lines, notes = table is not None, list[int](), list[str]()
    marks = [mark[1] for mark in PLACEHOLDER.finditer(instruction) if not (asked.knowledge and mark[1] == CONTEXT)]
    named = (target,) if isinstance(target, str) else tuple(target)
    if table is None:
        table, spoken, lines, notes = _table(path, named, asked, marks)
    _enough(path, len(table), "rows")
    table, beside = expanded(list(table), named)
    targets = find_targets(_names(table), named)
    _require_one_target(targets, asked)
    if asked.tools:
        outputs = [field_name(targets[0], _names(table).index(targets[0]) + 1, ())]
        accepted = bool(asked.metric and metric_asked(asked.metric, outputs).options.get("accepted"))
        table = with_calls(table, lines, path, targets[0], asked.tools, accepted)
    if re.search("[\x00\ud800-\udfff]", instruction):
        raise InputError("the prompt holds a NUL or half a character; save it as plain UTF-8 text")
    prompt_fields, plain = frozenset(marks), table
    table, _ = expanded(table, [*marks, *asked.inputs, *asked.ignored])
    if asked.reading > 1:
        _require_double_braces(instruction, _names(table))
    columns = decide_columns(
        each_once(table), targets, prompt_fields, asked, beside, dates=asked.reading == 1, spoken=spoken
    )
    splitting = Splitting(plain, table, targets, columns, beside, asked)
    scored = metric_asked(asked.metric, splitting.fields).field if asked.metric and len(targets) > 1 else ""

    def rule_of(field: str, values: Sequence[Any], texts: Sequence[str]) -> ScoringRule:
        if is_read or asked.reading == 1:
            return usual_rule(values, field, metric)
        return scoring_rule(values, field, replace(asked, metric="") if scored not in ("", field) else asked, texts)

    rules = splitting.read(rule_of)
    dropped, kept = splitting.dropped, splitting.usable.kept
    _enough(path, len(kept), f"usable rows (dropped: {listed_counts(dropped)})")
    parts = splitting.parts(random.Random(seed), rules)
    made = [splitting.made(at) for at in kept]
    rows: dict[str, Rows] = {
        split: [splitting.made(at) for at in part] for split, part in zip(SPLITS, parts, strict=True)
    }
    readings = tuple(
        _target_reading(field, rule, [row.get(target) for row in table], made, rows, asked)
        for target, field, rule in zip(targets, splitting.fields, rules, strict=True)
    )
    for constant, field in zip(targets, splitting.fields, strict=True):
        if len({canonical(row[field]) for row in made}) < 2:
            raise InputError(
                f"the target {quoted(constant)} holds one value only in {shown(path)}; take a column that varies"
            )
    if not all(parts):
        raise InputError(
            f"the rows of {shown(path)} are too much alike to split: nearly all are near-duplicates; add others"
        )
    answers = [Output(each.field, each.rule, each.choices) for each in readings]
    instruction = (
        renamed(instruction, columns) if instruction.strip() else plain_prompt(columns, answers, rows["train"])
    )
    tools = {TOOLS_FILE: tools_json(asked.tools)} if asked.tools else {}
    toml = task_toml(
        slug(name or path.stem),
        columns,
        answers,
        instruction,
        has_metrics=not (is_read or asked.reading == 1) or metric is not None,
        spoken=spoken,
        tools="".join(tools),
        optional=frozenset(splitting.empty),
    )
    files = {"task.toml": toml, **tools}
    if asked.knowledge:
        if any(column.field == CONTEXT and column.use != "ignored" for column in columns):
            raise InputError(f"--knowledge: a column is called {CONTEXT}, as the place of passages is; rename it")
        files["task.toml"] += f"\n[knowledge]\npath = {string(Path(asked.knowledge).resolve().name)}\n"
    talks = [column.field for column in columns if column.use == "input" and column.name in spoken]
    for split, part in rows.items():
        said = [row | {talk: messages_of(row[talk]) for talk in talks} for row in part]
        files[f"{split}.jsonl"] = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in said)
    is_named = bool(prompt_fields or asked.inputs)
    return files, Reading(
        shown(path),
        len(table),
        dropped,
        len(kept) - sum(map(len, parts)),
        columns,
        readings,
        splitting.empty,
        splitting.split_line,
        [] if is_named else filled_in_later(columns),
        {} if is_named else {k: n for each in answers for k, n in answer_inside(columns, made, each.field).items()},
        (*notes, *html_notes(table, [column.name for column in columns if column.use == "input"], asked.form)),
    )


def _target_reading(
    field: str,
    rule: ScoringRule,
    values: Sequence[Any],
    made: Sequence[Mapping[str, Any]],
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    asked: Asked,
) -> TargetReading:
    """How a target was understood: its cells, and the usable rows, all of them and by split."""
    labels = [row[field] for row in made]
    choices = _choices(set(labels), rule, asked) if rule.type == "choice" else ()
    counts: dict[str, dict[str, int]] = {}
    for split, part in rows.items():
        classes = Counter(row[field] if choices else "" for row in part)
        counts[split] = {choice: classes[choice] for choice in choices or ("",)}
    return TargetReading(
        field,
        rule,
        choices,
        why_text(labels) if rule.type == "text" and not rule.labels and not asked.is_any else "",
        thousands_warning(values) if rule.type == "number" else "",
        other_spellings(values, choices),
        misspelled(labels) if choices and asked.reading > 1 else (),
        counts,
    )


def _require_one_target(targets: Sequence[str], asked: Asked) -> None:
    """Raises InputError for options that go with one target only."""
    if len(targets) == 1:
        return
    if asked.type:
        fix = "leave it out, or make a task folder with `optimize init` and set the types in task.toml"
        raise InputError(f"--type {asked.type}: there are {len(targets)} targets; {fix}")
    if asked.tools:
        raise InputError("--tools: the answer is one column of calls; give one --target")


def _choices(labels: set[str], rule: ScoringRule, asked: Asked) -> tuple[str, ...]:
    """The labels in the order of their scale, of their numbers, or of the alphabet."""
    ordered = [label for step in rule.order for label in labels if fold(label) == fold(step)]
    if asked.reading > 3 and not ordered and all(not lost_as_number(label) for label in labels):
        return tuple(sorted(labels, key=lambda label: (parse_number(label), label)))
    return tuple(dict.fromkeys([*ordered, *sorted(labels)]))


def listed_counts(counts: Mapping[str, int]) -> str:
    """The counts above 0 with what they count; `none` without any."""
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "none"


def _names(table: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for row in table for key in row))


def _require_double_braces(instruction: str, names: Sequence[str]) -> None:
    """Raises InputError for a mark of one brace that names a column: it would be sent as it stands."""
    for found in SINGLE.finditer(instruction):
        if column_named(names, found[1]) is not None:
            raise InputError(
                f"the prompt holds {quoted(found[0])}, and {found[1]} is a column; did you mean {{{{{found[1]}}}}}?"
            )


def _table(
    path: Path, targets: Sequence[str], asked: Asked, marks: Sequence[str]
) -> tuple[list[dict[str, Any]], frozenset[str], list[int], list[str]]:
    """The rows, the columns that hold conversations, whose texts are in the rows, the line of each row, and notes on
    the file. `marks`: the columns in the prompt, which hold none."""
    file = read_data_file(path, asked.form)
    found, problems = file.rows, file.problems
    if asked.form.strip_html:
        names = _names([row for _, row in found])
        kept = {name for each in targets for name in (each.partition(".")[0], column_named(names, each), each)}
        found = [
            (line, {name: cell if name in kept else stripped(cell) for name, cell in row.items()})
            for line, row in found
        ]
    spoken = frozenset[str]()
    if asked.reading > 2 and not problems:
        names = _names([row for _, row in found])
        marked = {name: mark for mark in marks if (name := column_named(names, mark)) is not None}
        named = [*marked] if marks else [name for name in names if name in asked.inputs] or names
        left = [name for name in named if name not in (*targets, *asked.ignored)]
        found, spoken, wrong = conversations_in(found, left)
        if mark := next((mark for name, mark in marked.items() if name in spoken), ""):
            raise InputError(
                f"the prompt holds {quoted(f'{{{{{mark}}}}}')}, a column of conversations, whose messages follow the "
                "prompt anyway; take it out"
            )
        problems = list(listed_problems(wrong, shown(path)))
    if problems:
        raise ProblemsError(tuple(problems))
    return [row for _, row in found], spoken, [line for line, _ in found], [*file.notes]


def _enough(path: Path, count: int, what: str) -> None:
    if count < MIN_ROWS:
        raise InputError(f"{shown(path)} has {count} {what}; at least {MIN_ROWS} are needed to split and compare")


def renamed(instruction: str, columns: tuple[DataColumn, ...]) -> str:
    """The prompt with every `{{DataColumn Name}}` under its field name."""
    names = {key: column.field for column in columns if column.use == "input" for key in (column.field, column.name)}
    return PLACEHOLDER.sub(lambda mark: f"{{{{{names.get(mark[1], mark[1])}}}}}", instruction.strip())
