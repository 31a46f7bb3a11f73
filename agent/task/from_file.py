"""A task out of one data file: read, cleaned, split, written as a folder that `load_task` accepts, and explained."""

from __future__ import annotations

import json
import random
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.errors import InputError, ProblemsError
from agent.files import new_files
from agent.metrics.metric_registry import METRICS
from agent.shipped import fold
from agent.task.checks import DEFAULTS, PLACEHOLDER
from agent.task.columns import (
    DataColumn,
    answer_inside,
    decide_columns,
    field_name,
    find_target,
    label_reader,
    other_spellings,
    target_type,
    text_of,
    thousands_warning,
    why_text,
)
from agent.task.input_files import read_rows
from agent.task.load import SPLITS, load_task
from agent.task.splits import split_rows
from agent.task.words import quoted, shown
from agent.types import FieldType, MetricSpec, Task, canonical

MIN_ROWS = 30
SCHEMA_FILE = "task.schema.json"
SCHEMA_LINE = f"#:schema ../{SCHEMA_FILE}\n"


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
    target: str
    target_type: FieldType
    choices: tuple[str, ...]
    counts: Mapping[str, Mapping[str, int]]
    """Rows by split and class; one class "" when the target is not a choice."""
    why_text: str
    """Why a target of few values, or of numbers, is a text all the same."""
    thousands_warning: str
    spellings: Mapping[str, Sequence[str]]
    """By choice, its other spellings in the file."""
    inside: Mapping[str, int]
    """Inputs that contain the answer word for word, and in how many rows."""
    metric: MetricSpec

    def lines(self) -> Iterator[str]:
        """The reading for people, one line each."""
        dropped = ", ".join(f"{count} {reason}" for reason, count in self.dropped.items() if count)
        left_out = f"left out of the splits (near-duplicates, or past their sizes): {self.unused}"
        yield f"{self.file}: {self.rows} rows; dropped: {dropped or 'none'}; {left_out}"
        for column in self.columns:
            yield f"column {quoted(column.name)}: {column.use} ({column.reason})"
        for name, count in self.inside.items():
            fix = "if it will not be known when the prompt is used, name the other inputs in the prompt: {{column}}"
            yield f"column {quoted(name)}: the answer stands in it word for word in {count} rows; {fix}"
        about = f" of {len(self.choices)}" if self.choices else f" ({self.why_text})" if self.why_text else ""
        yield f"target {self.target}: {self.target_type}{about}"
        if self.thousands_warning:
            yield f"target {self.target}: {self.thousands_warning}"
        for choice, others in self.spellings.items():
            yield f"target {self.target}: {', '.join(map(quoted, others))} read as {quoted(choice)}, the usual spelling"
        yield f"metric: {self.metric.name}" + ", whatever the case" * self.metric.options.get("ignore_case", False)
        for split, classes in self.counts.items():
            each = ", ".join(f"{name} {count}" for name, count in classes.items() if name)
            yield f"{split}: {sum(classes.values())} rows" + (f" ({each})" if each else "")


def task_from_file(
    path: str | Path, target: str, instruction: str = "", seed: int = 0, name: str | None = None
) -> tuple[Task, Reading]:
    """A checked task out of a .csv or .jsonl file, with no folder (`folder` is ""); `seed` decides the splits.

    Without an `instruction` a plain one is written. Raises InputError (unknown target, fewer than 30 usable rows, no
    usable column, a `{{placeholder}}` that is no column) or ProblemsError (the file has broken rows).
    """
    files, reading = _draft(Path(path), target, instruction, seed, name)
    with tempfile.TemporaryDirectory() as temporary:
        _write(Path(temporary), files)
        return replace(load_task(temporary), folder=""), reading


def write_task(
    folder: str | Path,
    path: str | Path,
    target: str,
    instruction: str = "",
    seed: int = 0,
    name: str | None = None,
    table: Sequence[dict[str, Any]] | None = None,
    metric: MetricSpec | None = None,
) -> tuple[Task, Reading]:
    """`task_from_file`, kept as a new task folder; a `table` that was read already stands for the rows of `path`, and a
    `metric` for the usual one. The schema of task.toml is put beside the folder, where it is missing.

    Raises also InputError when `folder` exists or cannot be made.
    """
    folder = Path(folder)
    if folder.exists() or folder.is_symlink():
        raise InputError(f"{shown(folder)} exists; choose another name or remove it first")
    files, reading = _draft(Path(path), target, instruction, seed, name or folder.resolve().name, table, metric)
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
    target: str,
    instruction: str,
    seed: int,
    name: str | None,
    table: Sequence[dict[str, Any]] | None = None,
    metric: MetricSpec | None = None,
) -> tuple[dict[str, str], Reading]:
    """The files of the task folder as texts, and the reading."""
    table = _table(path) if table is None else list(table)
    _enough(path, len(table), "rows")
    target = find_target(list(dict.fromkeys(key for row in table for key in row)), target)
    if re.search("[\x00\ud800-\udfff]", instruction):
        raise InputError("the prompt holds a NUL or half a character; save it as plain UTF-8 text")
    prompt_fields = frozenset(placeholder[1] for placeholder in PLACEHOLDER.finditer(instruction))
    each_once = {tuple((key, text_of(value)) for key, value in row.items()): row for row in table}
    columns = decide_columns(list(each_once.values()), target, prompt_fields)
    kept, kind, dropped = _clean(table, columns, target, METRICS.get(metric.name).types if metric else ())
    _enough(path, len(kept), f"usable rows ({', '.join(f'{n} {why}' for why, n in dropped.items() if n)} dropped)")
    field = next(column.field for column in columns if column.use == "target")
    labels = {canonical(row[field]) for row in kept}
    if len(labels) < 2:
        raise InputError(
            f"the target {quoted(target)} holds one value only in {shown(path)}; take a column that varies"
        )
    choices = tuple(sorted({row[field] for row in kept})) if kind == "choice" else ()
    parts = split_rows(kept, field, random.Random(seed), stratify=kind == "choice")
    if not all(parts):
        raise InputError(
            f"the rows of {shown(path)} are too much alike to split: nearly all are near-duplicates; add others"
        )
    instruction = _rename(instruction, columns) if instruction.strip() else _plain(columns, kind, choices, parts[0])
    files = {"task.toml": _toml(_slug(name or path.stem), columns, kind, choices, instruction, metric)}
    counts: dict[str, dict[str, int]] = {}
    for split, rows in zip(SPLITS, parts, strict=True):
        files[f"{split}.jsonl"] = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
        classes = Counter(row[field] if kind == "choice" else "" for row in rows)
        counts[split] = {choice: classes[choice] for choice in choices or ("",)}
    unused = len(kept) - sum(map(len, parts))
    return files, Reading(
        shown(path),
        len(table),
        dropped,
        unused,
        columns,
        field,
        kind,
        choices,
        counts,
        why_text([row[field] for row in kept]) if kind == "text" else "",
        thousands_warning([row.get(target) for row in table]) if kind == "number" else "",
        other_spellings([row.get(target) for row in table], choices),
        {} if prompt_fields else answer_inside(columns, kept, field),
        metric or MetricSpec(DEFAULTS[kind][-1][0], field),
    )


def _table(path: Path) -> list[dict[str, Any]]:
    found, problems = read_rows(path)
    if problems:
        raise ProblemsError(tuple(problems))
    return [row for _, row in found]


def _enough(path: Path, count: int, what: str) -> None:
    if count < MIN_ROWS:
        raise InputError(f"{shown(path)} has {count} {what}; at least {MIN_ROWS} are needed to split and compare")


def _clean(
    table: list[dict[str, Any]], columns: tuple[DataColumn, ...], target: str, kinds: Sequence[FieldType]
) -> tuple[list[dict[str, Any]], FieldType, dict[str, int]]:
    """Rows of fields without empty, repeated or contradictory ones, the target's type, and how many went for what. The
    target is text where its type is not one of `kinds`, if there are any."""
    inputs = [column for column in columns if column.use == "input"]
    needed = [column.name for column in inputs] + [target]
    full = [row for row in table if all(text_of(row.get(name)).strip() for name in needed)]
    if not full:
        return [], "text", {"empty": len(table)}
    kind = target_type([row[target] for row in full])
    kind = "text" if kinds and kind not in kinds else kind
    label = label_reader(kind, [row[target] for row in full])
    field = next(column.field for column in columns if column.use == "target")
    has_id = any(column.use == "id" for column in columns)
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in full:
        made: dict[str, Any] = {"id": text_of(row["id"]).strip()} if has_id else {}
        made |= {column.field: text_of(row[column.name]) for column in inputs}
        made[field] = label(row[target])
        groups.setdefault(tuple(fold(made[column.field]) for column in inputs), []).append(made)
    agreed = [rows for rows in groups.values() if len({canonical(row[field]) for row in rows}) == 1]
    in_agreed = sum(map(len, agreed))
    dropped = {
        "empty": len(table) - len(full),
        "duplicate": in_agreed - len(agreed),
        "conflicting": len(full) - in_agreed,
    }
    return [rows[0] for rows in agreed], kind, dropped


def _rename(instruction: str, columns: tuple[DataColumn, ...]) -> str:
    """The prompt with every `{{DataColumn Name}}` under its field name."""
    names = {key: column.field for column in columns if column.use == "input" for key in (column.field, column.name)}
    return PLACEHOLDER.sub(lambda found: f"{{{{{names[found[1]]}}}}}", instruction.strip())


def _plain(
    columns: tuple[DataColumn, ...], kind: FieldType, choices: tuple[str, ...], rows: list[dict[str, Any]]
) -> str:
    """A plain fair prompt: what to do, the fields, every choice, the form of the answer. `rows` are of train, since the
    labels of the other splits stay unseen."""
    inputs = [_words(column.field) for column in columns if column.use == "input"]
    answer = next(_words(column.field) for column in columns if column.use == "target")
    given = inputs[0] if len(inputs) == 1 else f"{', '.join(inputs[:-1])} and {inputs[-1]}"
    start = f"Read the {given} and give the {answer}."
    if braced := next((choice for choice in choices if PLACEHOLDER.search(choice)), None):
        raise InputError(f"the choice {quoted(braced)} looks like a placeholder; rename it or give a prompt without it")
    if kind == "choice":
        options = "\n".join(f"- {choice}" for choice in choices)
        return f"{start}\nThe {answer} is exactly one of:\n{options}\nAnswer with that one only, spelled as above."
    if kind == "number":
        return f"{start}\nAnswer with one number only, in digits, without a unit or other words."
    if kind == "json":
        field = next(column.field for column in columns if column.use == "target")
        keys = ", ".join(sorted({json.dumps(key, ensure_ascii=False) for row in rows for key in row[field]})[:50])
        about = f" It may hold the keys {keys}." if keys else ""
        return f"{start}\nThe {answer} is one JSON object.{about}\nAnswer with the JSON object only."
    return f"{start}\nAnswer with the {answer} only, without an explanation."


def _words(field: str) -> str:
    return field.replace("_", " ")


def _slug(name: str) -> str:
    made = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-")[:80]
    return made or field_name(name, 1, ())


def _toml(
    name: str,
    columns: tuple[DataColumn, ...],
    kind: FieldType,
    choices: tuple[str, ...],
    instruction: str,
    metric: MetricSpec | None,
) -> str:
    """The text of task.toml; every key left out has its default."""
    inputs = [column for column in columns if column.use == "input"]
    output = next(column for column in columns if column.use == "target")
    description = f"Give the {_words(output.field)} for the {' and '.join(_words(c.field) for c in inputs)}."
    lines = [
        SCHEMA_LINE.rstrip(),
        f"name = {_string(name)}",
        f"description = {_string(description)}",
        f"signature = {_string(', '.join(c.field for c in inputs) + ' -> ' + output.field)}",
        f"instruction = {_string(instruction)}",
    ]
    for column in (*inputs, output):
        about = [f"description = {_string(' '.join(column.name.split()))}"] if column.name != column.field else []
        if column is output and kind != "text":
            about.append(f'type = "{kind}"')
        if column is output and choices:
            about += ["choices = [", *(f"    {_string(choice)}," for choice in choices), "]"]
        if about:
            lines += ["", f"[fields.{column.field}]", *about]
    if metric:
        lines += ["", "[[metrics]]", f"name = {_string(metric.name)}"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in metric.options.items()]
    return "\n".join(lines) + "\n"


def _string(text: str) -> str:
    """`text` as a TOML string, over several lines where it has them."""
    made = json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
    if "\n" not in text:
        return made
    body = made[1:-1].replace("\\\\", "\x00").replace("\\n", "\n").replace("\x00", "\\\\")
    if '""' not in text and not text.endswith('"'):
        body = made[1:-1].replace("\\\\", "\x00").replace("\\n", "\n").replace('\\"', '"').replace("\x00", "\\\\")
    return f'"""\n{body}"""'
