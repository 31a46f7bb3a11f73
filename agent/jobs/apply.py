"""`optimize apply`: run a released prompt on a file of rows; the answers are new columns of a new file."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.conversation import user_text
from agent.errors import BudgetExhausted, InputError, RunRefused
from agent.jobs.locations import prompt_path
from agent.jobs.registry import DB, job
from agent.jobs.released import AskedRelease, has_goals, require_named, rows_task
from agent.jobs.session import Session
from agent.jobs.work import Work
from agent.options.jobs import ApplyOptions
from agent.options.shared import FormOptions
from agent.prompt.parts.adapter import named_models
from agent.redact import mask, rare_secrets_in
from agent.release.check_report import require_place
from agent.release.runtime import Prompt, load_prompt
from agent.results.rows import ApplyResult
from agent.retrieval.pick import text_of
from agent.safe_file import new_file, read_bytes
from agent.safe_text import listed, quoted, shown
from agent.shipped import label_text
from agent.task.examples import reader_of
from agent.task.html_text import html_notes, stripped
from agent.task.tables import TEXT_CELLS, DataFile
from agent.types import Example, Outcome

ERROR = "error"
"""The column that says why a row has no answer, or which part of a reply could not be read."""
AT_ONCE = 1000
"""Rows that are started together, however long the file is."""
IN_BATCHES = 50_000
"""Rows that are started together as provider batches."""
_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]")
_NUMBER = re.compile(r"[+-]?[\d.,]*")


@job("apply", asks="asking each row of the file", required=("output",))
def apply(prompt: str, file: Path, options: ApplyOptions, db: Path = DB) -> Work[ApplyResult]:
    """Run a released PROMPT on each row of FILE and write rows and answers.

    PROMPT is the path of a prompt.md, NAME@ALIAS, or the id of a run. FILE is a data file (.csv, .tsv, .jsonl, .json,
    .xlsx, .parquet) with a column for each input of the prompt; other columns are copied. The new columns are the
    prompt's outputs, and error, which says why a row has no answer. The file is written at the end, whole or not at
    all. Every reply is in the ledger: after a stop the same command continues and asks only what is missing. In a .csv
    a model's text that a spreadsheet would run as a formula (it begins with = + - @) gets an apostrophe in front;
    .jsonl is exact.
    """
    out, form = options.output or Path(), options.part(FormOptions)
    path = prompt_path(prompt, db)
    loaded = load_prompt(path)
    inputs, name = loaded.release.inputs, options.model or loaded.model
    added = [f"{options.prefix}{name}" for name in (*(output.name for output in loaded.release.outputs), ERROR)]
    if out.suffix.lower() not in (".csv", ".jsonl"):
        raise InputError(f"-o {out}: give a .csv or a .jsonl file")
    if out.exists() and file.exists() and out.samefile(file):
        raise InputError(f"-o {out}: is the file of rows itself; name another file")
    rows, columns, digest, notes = _read(file, loaded, added, form, has_goals(loaded, db))
    rows = rows[: options.limit]
    require_named(path, named_models(loaded.release), {"--model": [] if options.model else [name]}, db)
    require_place(out, "-o")
    prompted = AskedRelease.of(loaded, path, db, name)
    if form.strip_html:
        asked = [row | {name: stripped(row.get(name)) for name in inputs} for row in rows]
    else:
        asked, notes = rows, [*notes, *html_notes(rows, inputs, form)]
    read = _reader(loaded, file, asked)
    examples = [
        Example(str(number), {name: read(name, row[name]) for name in inputs}, {})
        for number, row in enumerate(asked)
        if not any(_is_empty(row.get(name)) for name in inputs)
    ]
    more = prompted.embedding_calls(len(examples))

    async def perform(asking: Session[ApplyResult]) -> ApplyResult:
        outcomes: dict[str, Outcome] = {}
        evaluator, candidate, embedder = await prompted.evaluator(asking, ())
        many = AT_ONCE if asking.gateway.batches is None else IN_BATCHES
        for start in range(0, len(examples), many):
            some = examples[start : start + many]
            if embedder is not None:
                embedder.forget()
                await embedder.vectors(text_of(row.inputs, loaded.release.compared) for row in some)
            with asking.gateway.together():
                found = await asking.gathered([evaluator.outcome(candidate, row) for row in some])
            outcomes |= {row.id: each for row, each in zip(some, found, strict=True) if each is not None}
            if asking.stopped:
                raise BudgetExhausted(
                    f"{len(outcomes)} of {len(examples)} rows are answered, and nothing was written: "
                    f"{asking.stopped}; the same command with a larger cap asks only the others"
                )
        secrets = rare_secrets_in(os.environ)
        answers = [
            _answers(loaded, row, outcomes.get(str(number)), options.prefix, secrets) for number, row in enumerate(rows)
        ]
        failed = sum(outcome.value is None for outcome in outcomes.values()) + len(answers) - len(outcomes)
        if failed == len(answers):
            why = answers[0][added[-1]]
            raise RunRefused(f"none of the {failed} rows got an answer, so nothing was written: {why}")
        is_text = file.suffix.lower() in TEXT_CELLS
        write_answers(out, columns, added, zip(rows, answers, strict=True), trusted=is_text)
        return ApplyResult(
            **prompted.head(asking),
            source=str(file),
            path=str(out),
            rows=len(answers),
            answered=sum(outcome.value == 1 for outcome in outcomes.values()),
            unreadable=sum(outcome.value == 0 for outcome in outcomes.values()),
            failed=failed,
            notes=tuple(notes),
            **asking.spent(),
        )

    return Work(
        "apply",
        "applied",
        perform,
        rows_task(loaded, path.parent, f"{loaded.name} applied to {shown(file)}", examples, digest),
        prompted.lms,
        options,
        len(examples) + more,
        options.budget_for(max(1, len(examples)) + more),
        chained=("name", "version", "model", "rows", "answered", "unreadable", "failed"),
    )


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _answers(
    prompt: Prompt, row: Mapping[str, Any], outcome: Outcome | None, prefix: str, secrets: tuple[str, ...]
) -> dict[str, Any]:
    if outcome is None:
        empty = [name for name in prompt.release.inputs if _is_empty(row.get(name))]
        return {f"{prefix}{ERROR}": f"not asked: {listed(empty or prompt.release.inputs)} is empty"}
    prediction = outcome.prediction
    if prediction.confidence is None and (reply := mask(prediction.raw, secrets)) != prediction.raw:
        prediction = prompt.parse(reply)  # as from the ledger, which holds no key
    found = {f"{prefix}{name}": value for name, value in prediction.fields.items()}
    return {**found, f"{prefix}{ERROR}": prediction.error} if prediction.error else found


def _read(
    source: Path, prompt: Prompt, added: Sequence[str], form: FormOptions, goals: bool
) -> tuple[list[dict[str, Any]], list[str], str, Sequence[str]]:
    data, where, inputs = read_bytes(source), shown(source), prompt.release.inputs
    file = DataFile(source, form, data)
    file.refuse_all()
    if not file.rows:
        raise file.refusal(1, "no rows; write one for each call")
    rows = [row for _, row in file.rows]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if missing := [name for name in inputs if name not in columns]:
        raise InputError(
            f"{where}: no column {listed(map(quoted, missing))}; the inputs of {prompt.name} are {listed(inputs)}, the "
            f"columns here {listed(columns)}"
        )
    if twice := [name for name in added if name in columns]:
        raise InputError(
            f"{where}: already has a column {listed(map(quoted, twice))}; rename it, or give the answers another name, "
            "such as --prefix answer_"
        )
    read = _reader(prompt, source, rows)
    for line, row in file.rows:
        try:
            for name in inputs:
                if _is_empty(row.get(name)):
                    continue
                text = read(name, row[name])
                if goals and name == prompt.release.conversation and text == user_text(str(row[name])):
                    raise ValueError("is a goal, which no model plays here; write the list of messages so far")
        except ValueError as error:
            file.note(line, f"{name}: {error}")
    file.refuse_all()
    how = repr(form).encode() if form.has_form else b""
    return rows, columns, hashlib.sha256(data + how).hexdigest(), file.notes


def _reader(prompt: Prompt, source: Path, rows: Sequence[Mapping[str, Any]]) -> Callable[[str, Any], str]:
    talk = prompt.release.conversation
    said = reader_of([row.get(talk) for row in rows], source.suffix.lower() in TEXT_CELLS)

    def text(name: str, value: Any) -> str:
        if name == talk:
            return said(value)
        return label_text(value)

    return text


def write_answers(
    path: Path,
    columns: Sequence[str],
    added: Sequence[str],
    rows: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]],
    trusted: bool,
) -> None:
    """Write rows with their answers, by the columns `added`, whole or not at all.

    `trusted`: the rows' cells come from a .csv or .tsv and are written unchanged.
    """
    with new_file(path) as file:
        text = io.TextIOWrapper(file, "utf-8", errors="backslashreplace", newline="")
        if path.suffix.lower() == ".csv":
            table = csv.writer(text)
            table.writerow([*(_cell(name, trusted) for name in columns), *added])
            for row, answers in rows:
                own = [_cell(row.get(name), trusted) for name in columns]
                table.writerow([*own, *(_cell(answers.get(name)) for name in added)])
        else:
            for row, answers in rows:
                text.write(json.dumps({**row, **answers}, ensure_ascii=False, allow_nan=False) + "\n")
        text.flush()
        text.detach()


def _cell(value: Any, trusted: bool = False) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return value if trusted else without_formula(value.replace("\0", "\\x00"))


def without_formula(text: str) -> str:
    """Put an apostrophe before text that spreadsheets run as a formula; numbers stay.

    >>> without_formula("=1+1"), without_formula("-5"), without_formula("- no")
    ("'=1+1", '-5', "'- no")
    """
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text
