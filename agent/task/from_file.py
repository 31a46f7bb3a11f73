"""A task from one data file: columns, scoring and splits are inferred and explained."""

from __future__ import annotations

import json
import random
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.conversation import messages_of
from agent.errors import InputError, refuse_all
from agent.retrieval.passages import CONTEXT
from agent.safe_file import disk_errors
from agent.safe_text import counted, quoted, shown
from agent.shipped import fold
from agent.task.answers import lost_as_number, misspelled, other_spellings, parse_number, thousands_warning, why_text
from agent.task.checks import PLACEHOLDER
from agent.task.columns import (
    DataColumn,
    answer_inside,
    column_named,
    decide_columns,
    expanded,
    field_name,
    filled_in_later,
    find_targets,
)
from agent.task.examples import conversations_in, listed_problems
from agent.task.html_text import html_notes, stripped
from agent.task.load import load_task
from agent.task.scoring_rule import ScoringRule, metric_asked, scoring_rule, usual_rule
from agent.task.splits import MIN_ROWS, DataTable, RuleOf, Splitting, each_once
from agent.task.tables import DataFile
from agent.task.task_text import (
    SCHEMA_LINE,
    Reading,
    TargetReading,
    listed_counts,
    plain_prompt,
    slug,
    string,
    task_toml,
)
from agent.task.tools import TOOLS_FILE, tools_json, with_calls
from agent.types import SPLITS, MetricSpec, Task, canonical

if TYPE_CHECKING:
    from agent.options.shared import Asked

SINGLE = re.compile(r"(?<!\{)\{\s*+((?:[^\s{}]++(?:\s++(?=[^\s{}]))?)++)\s*+\}(?!\})")

Targets = str | Sequence[str]
"""The columns to predict."""
GivenRows = tuple[Sequence[dict[str, Any]], MetricSpec | None]
"""Rows already read, and their metric (None: the default of their type)."""
Table = list[dict[str, Any]]


def task_from_file(
    path: str | Path, target: Targets, instruction: str = "", seed: int = 0, asked: Asked | None = None
) -> tuple[Task, Reading]:
    """Make a task from a data file, without a folder. Raises InputError or ProblemsError."""
    files, reading = _draft(Path(path), target, instruction, seed, slug(Path(path).stem), asked, None)
    with tempfile.TemporaryDirectory() as temporary:
        for file, text in files.items():
            Path(temporary, file).write_bytes(text.encode("utf-8"))
        documents = Path(asked.knowledge) if asked and asked.knowledge else None
        return replace(load_task(temporary, documents), folder=""), reading


def write_task(
    folder: str | Path,
    path: str | Path,
    target: Targets,
    instruction: str = "",
    seed: int = 0,
    asked: Asked | None = None,
    given: GivenRows | None = None,
) -> tuple[Task, Reading]:
    """Make a task from a data file in a new folder; `given` replaces the rows."""
    folder = Path(folder)
    require_new(folder)
    files, reading = _draft(Path(path), target, instruction, seed, slug(folder.resolve().name), asked, given)
    write_task_files(folder, files)
    return load_task(folder), reading


def require_new(folder: Path, fix: str = "choose another name or remove it first") -> None:
    """Raise InputError if the folder exists."""
    if folder.exists() or folder.is_symlink():
        raise InputError(f"{shown(folder)} exists; {fix}")


def write_task_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write the files of a task to a new folder, if they load."""
    with new_task_folder(folder) as (new, has_schema):
        for file, text in files.items():
            (new / file).write_bytes((text if has_schema else text.removeprefix(SCHEMA_LINE)).encode("utf-8"))
        load_task(new)


@contextmanager
def new_task_folder(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Yield a temporary folder that becomes `folder`, and whether it has the editor schema."""
    from agent.task.task_file import has_schema

    with disk_errors(f"{shown(folder)} cannot be written", "choose another place", InputError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        is_there = has_schema(folder.parent)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=folder.parent) as temporary:
            new = Path(temporary) / folder.name
            new.mkdir()
            yield new, is_there
            new.rename(folder)


def renamed(instruction: str, columns: tuple[DataColumn, ...]) -> str:
    """Replace every `{{Column Name}}` in the prompt by its field name."""
    names = {key: column.field for column in columns if column.use == "input" for key in (column.field, column.name)}
    return PLACEHOLDER.sub(lambda mark: f"{{{{{names.get(mark[1], mark[1])}}}}}", instruction.strip())


def _draft(
    path: Path, target: Targets, instruction: str, seed: int, name: str, asked: Asked | None, given: GivenRows | None
) -> tuple[dict[str, str], Reading]:
    if asked is None:
        from agent.options.shared import Asked

        asked = Asked()
    marks = [mark[1] for mark in PLACEHOLDER.finditer(instruction) if not (asked.knowledge and mark[1] == CONTEXT)]
    named = (target,) if isinstance(target, str) else tuple(target)
    data, notes = _data_table(path, named, asked, marks, given)
    if re.search("[\x00\ud800-\udfff]", instruction):
        raise InputError("the prompt holds a NUL or half a character; save it as plain UTF-8 text")
    names = _names(data.table)
    for found in SINGLE.finditer(instruction):  # it would be sent unchanged
        if column_named(names, found[1]) is not None:
            raise InputError(f"the prompt holds {quoted(found[0])}, a column; did you mean {{{{{found[1]}}}}}?")
    rows = each_once(data.table)
    columns = decide_columns(rows, data.targets, frozenset(marks), asked, data.siblings, spoken=data.spoken)
    inputs = [column for column in columns if column.use == "input"]
    if asked.knowledge and any(column.field == CONTEXT and column.use != "ignored" for column in columns):
        raise InputError(f"--knowledge: a column is called {CONTEXT}, as the place of passages is; rename it")
    splitting = Splitting(data, columns, asked)
    rules = splitting.read(_rule_maker(splitting.fields, asked, given))
    dropped, kept, empty = splitting.dropped, splitting.kept, splitting.empty
    columns = tuple(replace(column, is_optional=column.name in empty) for column in columns)
    _enough(path, len(kept), f"usable rows (dropped: {listed_counts(dropped)})")
    parts = splitting.parts(random.Random(seed), rules)
    made = [splitting.made(at) for at in kept]
    splits: dict[str, Table] = {
        split: [splitting.made(at) for at in part] for split, part in zip(SPLITS, parts, strict=True)
    }
    targets = tuple(
        _target_reading(field, rule, [row.get(column) for row in data.table], made, splits, asked)
        for column, field, rule in zip(data.targets, splitting.fields, rules, strict=True)
    )
    for column, field in zip(data.targets, splitting.fields, strict=True):
        if len({canonical(row[field]) for row in made}) < 2:
            raise InputError(f"{shown(path)}: the target {quoted(column)} holds one value only; take another column")
    if not all(parts):
        raise InputError(f"{shown(path)}: nearly all rows are near-duplicates, too few to split; add others")
    prompt = renamed(instruction, columns) if instruction.strip() else plain_prompt(columns, targets, splits["train"])
    tools = {TOOLS_FILE: tools_json(asked.tools)} if asked.tools else {}
    has_metrics = given is None or given[1] is not None
    toml = task_toml(name, columns, targets, prompt, has_metrics, tools="".join(tools))
    if asked.knowledge:
        toml += f"\n[knowledge]\npath = {string(Path(asked.knowledge).resolve().name)}\n"
    files = {"task.toml": toml, **tools}
    talks = [column.field for column in inputs if column.is_conversation]
    for split, part in splits.items():
        said = [row | {talk: messages_of(row[talk]) for talk in talks} for row in part]
        files[f"{split}.jsonl"] = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in said)
    is_named = bool(marks or asked.input)
    inside = {} if is_named else {k: n for one in targets for k, n in answer_inside(columns, made, one.field).items()}
    return files, Reading(
        file=shown(path),
        rows=len(data.table),
        dropped=dropped,
        unused=len(kept) - sum(map(len, parts)),
        columns=columns,
        targets=targets,
        empty=empty,
        split_line=splitting.split_line,
        later=[] if is_named else filled_in_later(columns),
        inside=inside,
        notes=(*notes, *html_notes(data.table, [column.name for column in inputs], asked)),
    )


def _data_table(
    path: Path, named: Sequence[str], asked: Asked, marks: Sequence[str], given: GivenRows | None
) -> tuple[DataTable, Sequence[str]]:
    if given is None:
        table, spoken, lines, notes = _read(path, named, asked, marks)
    else:
        table, spoken, lines, notes = list(given[0]), frozenset[str](), [], ()
    _enough(path, len(table), "rows")
    table, siblings = expanded(table, named)
    targets = find_targets(_names(table), named)
    if len(targets) > 1 and asked.type:
        raise InputError(f"--type {asked.type}: there are {len(targets)} targets; set their types in a task.toml")
    if len(targets) > 1 and asked.tools:
        raise InputError("--tools: the answer is one column of calls; give one --target")
    if asked.tools:
        outputs = [field_name(targets[0], _names(table).index(targets[0]) + 1, ())]
        accepted = bool(asked.metric and metric_asked(asked.metric, outputs).options.get("accepted"))
        table = with_calls(table, lines, path, targets[0], asked.tools, accepted)
    opened, _ = expanded(table, [*marks, *asked.input, *asked.ignore])
    return DataTable(table, opened, targets, siblings, spoken), notes


def _read(
    path: Path, targets: Sequence[str], asked: Asked, marks: Sequence[str]
) -> tuple[Table, frozenset[str], list[int], Sequence[str]]:
    file = DataFile(path, asked)
    file.refuse_all()
    rows, names = file.rows, _names([row for _, row in file.rows])
    if asked.strip_html:
        kept = {name for each in targets for name in (each.partition(".")[0], column_named(names, each), each)}
        rows = [
            (line, {name: cell if name in kept else stripped(cell) for name, cell in row.items()}) for line, row in rows
        ]
    marked = {name: mark for mark in marks if (name := column_named(names, mark)) is not None}
    named = [*marked] if marks else [name for name in names if name in asked.input] or names
    rows, spoken, wrong = conversations_in(rows, [name for name in named if name not in (*targets, *asked.ignore)])
    if mark := next((mark for name, mark in marked.items() if name in spoken), ""):
        raise InputError(f"the prompt holds {{{{{mark}}}}}, but conversations follow the prompt; take it out")
    refuse_all(listed_problems(wrong, shown(path)))
    return [row for _, row in rows], spoken, [line for line, _ in rows], file.notes


def _rule_maker(fields: Sequence[str], asked: Asked, given: GivenRows | None) -> RuleOf:
    scored = metric_asked(asked.metric, fields).field if asked.metric and len(fields) > 1 else ""

    def rule_of(field: str, values: Sequence[Any], texts: Sequence[str]) -> ScoringRule:
        if given is not None:
            return usual_rule(values, field, given[1])
        return scoring_rule(values, field, asked.changed(metric=None) if scored not in ("", field) else asked, texts)

    return rule_of


def _target_reading(
    field: str,
    rule: ScoringRule,
    values: Sequence[Any],
    made: Sequence[Mapping[str, Any]],
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    asked: Asked,
) -> TargetReading:
    labels = [row[field] for row in made]
    choices = _choices(set(labels), rule) if rule.type == "choice" else ()
    counts: dict[str, dict[str, int]] = {}
    for split, part in rows.items():
        classes = Counter(row[field] if choices else "" for row in part)
        counts[split] = {choice: classes[choice] for choice in choices or ("",)}
    why = why_text(labels) if rule.type == "text" and not rule.labels and not asked.is_any else ""
    remarks = [warning] if rule.type == "number" and (warning := thousands_warning(values)) else []
    for choice, others in other_spellings(values, choices).items():
        remarks.append(f"{', '.join(map(quoted, others))} read as {quoted(choice)}, the usual spelling")
    for rare, count, other, many in misspelled(labels) if choices else ():
        remarks.append(f"{quoted(rare)} ({counted(count, 'row')}) looks like {quoted(other)} ({many}) misspelled")
    return TargetReading(field, rule, choices, why, remarks, counts)


def _choices(labels: set[str], rule: ScoringRule) -> tuple[str, ...]:
    ordered = [label for step in rule.order for label in labels if fold(label) == fold(step)]
    if ordered or any(map(lost_as_number, labels)):
        return tuple(dict.fromkeys([*ordered, *sorted(labels)]))
    return tuple(sorted(labels, key=lambda label: (parse_number(label), label)))


def _names(table: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for row in table for key in row))


def _enough(path: Path, count: int, what: str) -> None:
    if count < MIN_ROWS:
        raise InputError(f"{shown(path)} has {count} {what}; at least {MIN_ROWS} are needed to split and compare")
