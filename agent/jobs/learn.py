"""`optimize learn`: add corrected production answers to the train rows of a new task version. Asks no model.

The copy is loaded with the new rows before anything is put in place; dev and test stay byte for byte the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.errors import InputError, ProblemsError
from agent.jobs.registry import job, key_option
from agent.options.kinds import File
from agent.options.option import option
from agent.redact import rare_secrets_in, redact
from agent.release.production_logs import MISSING, listed_once, value_of
from agent.results.base import WasNow
from agent.results.rows import LearnResult, LeftOutRows
from agent.safe_data import parse_data
from agent.safe_file import read_bytes
from agent.safe_text import quoted, shown
from agent.shipped import content_id
from agent.task.answers import parse_number
from agent.task.by_name import find_task
from agent.task.copies import near_duplicates
from agent.task.examples import PlacedExample, RowReader, folded, messages_in
from agent.task.load import load_task
from agent.task.tables import TEXT_CELLS, DataFile
from agent.task.task_file import parse_folder
from agent.types import Field, Task, canonical

LEARNED = "learned.jsonl"
"""Next to the train rows: source, hash of that file, line and date of each added row."""


@job("learn")
def learn(
    task: str,
    log: Path,
    *,
    output: File = option(None, "The new folder. Default: TASK-2 (or -3 ...) next to the task's.", short="-o"),
    in_place: bool = option(False, "Add the rows to TASK itself."),
    dry_run: bool = option(False, "Print what would be added; write nothing."),
    inputs_column: str = key_option("inputs"),
    answer_column: str = key_option("answer"),
) -> LearnResult:
    """Add corrected answers of LOG to the train rows of a new TASK version.

    LOG is a .jsonl or .csv file with a row for each answer that a person confirmed or corrected: the inputs by name (or
    in `inputs`), and the right answer as `answer` or by the output's name. Other keys are ignored. Skipped and counted:
    rows that equal or nearly equal a dev or test row, rows already in train, rows that contradict each other or hold
    what looks like a key, and rows that do not fit the task, such as an unknown label. Dev and test do not change;
    learned.jsonl says where each row came from. No model is asked.
    """
    if output is not None and in_place:
        raise InputError("-o and --in-place exclude each other; name a new folder, or add to the task itself")
    folder = find_task(task)
    loaded = load_task(folder)
    train = _train_file(folder)
    target = folder if in_place else output or _beside(folder)
    if not in_place and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{shown(target)}: is there already; name a new folder with -o, or say --in-place")
    file = DataFile(log, data=read_bytes(log))
    count = len(file.rows) + len(file.problems)
    placed, fields = _read(file, loaded, {"inputs": inputs_column, "answer": answer_column})
    secrets = rare_secrets_in(os.environ)
    found, left_out = _sorted_out(loaded, placed, lambda text: redact(text, secrets) != text)
    digest = hashlib.sha256(file.data).hexdigest()
    written = bool(found) and not dry_run
    if written:
        day = datetime.now(UTC).date().isoformat()
        ids = [content_id("learned", dict(row.example.inputs)) for row in found]
        rows = [{"id": own, **fields[row.line]} for own, row in zip(ids, found, strict=True)]
        sources = [
            {"id": own, "source": log.name, "sha256": digest, "line": row.line, "date": day}
            for own, row in zip(ids, found, strict=True)
        ]
        _write(folder, target, train, {train: rows, LEARNED: sources}, in_place)
    return LearnResult(
        task=loaded.name,
        source=str(folder),
        folder=str(target) if written else None,
        dry_run=dry_run,
        log=str(log),
        sha256=digest,
        rows=count,
        taken=len(found),
        lines=tuple(row.line for row in found),
        left_out=tuple(
            LeftOutRows(why=why, rows=len(lines), lines=tuple(lines))
            for why, lines in sorted(left_out.items(), key=lambda each: -len(each[1]))
        ),
        unreadable=count - len(placed),
        problems=tuple(map(str, listed_once(file.problems))),
        train=WasNow(was=len(loaded.train), now=len(loaded.train) + len(found)),
    )


def _train_file(folder: Path) -> str:
    name = parse_folder(folder).file.splits.train or (
        "train.jsonl" if (folder / "train.jsonl").exists() else "train.csv"
    )
    if Path(name).suffix.lower() != ".jsonl":
        raise InputError(f"{shown(folder / name)}: rows are added to a .jsonl file; save the train rows as train.jsonl")
    return name


def _beside(folder: Path) -> Path:
    name, parent = folder.resolve().name, folder.resolve().parent if folder.name in ("", "..") else folder.parent
    if (folder / LEARNED).exists():
        name = re.sub(r"-\d+$", "", name)
    number = 2
    while (place := parent / f"{name}-{number}").exists():
        number += 1
    return place


def _read(
    file: DataFile, task: Task, columns: Mapping[str, str]
) -> tuple[list[PlacedExample], dict[int, dict[str, Any]]]:
    reader = RowReader(task.signature, task.slices, task.knowledge)
    placed: list[PlacedExample] = []
    matched: dict[int, dict[str, Any]] = {}
    for line, row in file.rows:  # one at a time, as some rows of a table may have no answer
        with file.at(line):
            matched[line] = _matched(task, row, columns, file.suffix in TEXT_CELLS)
            valid, wrong = reader.examples([(line, matched[line])], file.where, False)
            placed += valid
            file.problems += wrong
    if not placed:
        if not file.problems:
            file.note(1, "no rows; write one object per line, with inputs and answer")
        raise ProblemsError(tuple(listed_once(file.problems)))
    return placed, matched


def _matched(task: Task, row: Mapping[str, Any], columns: Mapping[str, str], cells: bool) -> dict[str, Any]:
    signature = task.signature
    inputs, answer = (value_of(row, columns.get(key, key)) for key in ("inputs", "answer"))
    outputs = [field.name for field in signature.outputs]
    inputs, answer = _object(inputs, cells), _object(answer, cells) if len(outputs) > 1 else answer
    found: dict[str, Any] = {}
    for field in signature.inputs:
        value = (
            inputs[field.name] if isinstance(inputs, Mapping) and field.name in inputs else value_of(row, field.name)
        )
        if field.type == "conversation" and task.user is None:
            value = messages_in(value) if cells else value
            found[field.name] = [{"role": "user", "content": value}] if isinstance(value, str) else value
        else:
            found[field.name] = _typed(field, value, cells)
    for field in signature.outputs:
        value = value_of(row, field.name)
        if answer is not MISSING and len(outputs) > 1 and not isinstance(answer, Mapping):
            raise ValueError(f"answer: {quoted(answer)} is no object; write an answer for each output by its name")
        if answer is not MISSING:
            value = answer if len(outputs) == 1 else answer.get(field.name, MISSING)
        if value is None or value is MISSING or (isinstance(value, str) and not value.strip()):
            raise ValueError(f"{field.name}: no answer; write the right one, or name its key with --answer-column")
        found[field.name] = _typed(field, value, cells)
    for name in task.slices:
        if name != "id" and name not in found:
            found[name] = value_of(row, name)
    if task.knowledge and (source := task.knowledge.source) and source not in found:
        value = value_of(row, source)
        found[source] = "" if value is MISSING or value is None else value  # nobody said where the answer stands
    return {name: value for name, value in found.items() if value is not MISSING}


def _object(value: Any, cells: bool) -> Any:
    if cells and isinstance(value, str) and value.lstrip().startswith("{"):
        return parse_data(value)
    return value


def _typed(field: Field, value: Any, cells: bool) -> Any:
    if not cells or not isinstance(value, str):
        return value
    try:
        if field.type == "number":
            return parse_number(value)
        return parse_data(value) if field.type == "json" else value
    except json.JSONDecodeError as error:
        raise ValueError(f"{field.name}: {quoted(value)} is not JSON: {error.msg}; write JSON in the cell") from None
    except ValueError as error:
        raise ValueError(f"{field.name}: {error}") from None


def _write(folder: Path, target: Path, train: str, new: Mapping[str, list[dict[str, Any]]], in_place: bool) -> None:
    target = target.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=target.parent) as name:
        copy = Path(name) / target.name
        shutil.copytree(folder, copy, symlinks=True, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        for file, rows in new.items():
            _append(folder / file, copy / file, rows)
        load_task(copy)
        if not in_place:
            if target.exists():  # an empty folder
                target.rmdir()
            copy.rename(target)
            return
        for file in (LEARNED, train):  # the rows last: of a row in train it is known where it came from
            os.replace(copy / file, folder / file)


def _append(old: Path, new: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    before = old.read_bytes() if old.exists() else b""
    new.unlink(missing_ok=True)  # a link in its place would lead into the task that stays
    end = b"" if before.endswith(b"\n") or not before else b"\n"
    lines = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    with new.open("wb") as opened:
        opened.write(before + end + lines.encode("utf-8"))
        opened.flush()
        os.fsync(opened.fileno())
    if old.exists():
        shutil.copymode(old, new)


# -- corrected answers: unlike all rows of dev and test, new, and without secrets --------------------------------------


def _sorted_out(
    task: Task, rows: Sequence[PlacedExample], holds_secret: Callable[[str], bool]
) -> tuple[list[PlacedExample], dict[str, list[int]]]:
    held_out = _near_held_out(task, rows)
    train = {folded(row.inputs): canonical(dict(row.labels)) for row in task.train}
    keys = [(folded(row.example.inputs), canonical(dict(row.example.labels))) for row in rows]
    answers: dict[tuple[str, ...], set[str]] = {}
    for key, label in keys:
        answers.setdefault(key, set()).add(label)
    seen: set[tuple[str, ...]] = set()
    taken: list[PlacedExample] = []
    left_out: dict[str, list[int]] = {}
    for position, (row, (key, label)) in enumerate(zip(rows, keys, strict=True)):
        reason = held_out.get(position, "")
        if not reason and any(map(holds_secret, (*row.example.inputs.values(), label))):
            reason = "holds what looks like a key"
        if not reason and key in train:
            reason = "is in train already" if train[key] == label else "is in train with another answer"
        if not reason and len(answers[key]) > 1:
            reason = "also in the log with another answer"
        if not reason and key in seen:
            reason = "repeated in the log"
        seen.add(key)
        if reason:
            left_out.setdefault(reason, []).append(row.line)
        else:
            taken.append(row)
    return taken, left_out


def _near_held_out(task: Task, rows: Sequence[PlacedExample]) -> dict[int, str]:
    kept = ["dev"] * len(task.dev) + ["test"] * len(task.test)
    found: dict[int, str] = {}
    examples = (*task.dev, *task.test, *(row.example for row in rows))
    for group in near_duplicates(["\n".join(row.inputs.values()) for row in examples]):
        near = sorted({kept[position] for position in group if position < len(kept)})
        if near:
            reason = f"is equal or near to a row of {' and '.join(near)}"
            found |= {position - len(kept): reason for position in group if position >= len(kept)}
    return found
