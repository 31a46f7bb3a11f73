"""A released prompt applied to a file of rows: one call a row, and the answers as new columns of a new file.

The calls go through a budget and the ledger like all others, and replies that the ledger holds are not bought again:
the same command goes on where an earlier one stopped. The file is written at the end, whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.conversation import user_text
from agent.errors import BudgetExhausted, InputError, Problem, ProblemsError, RunRefused
from agent.evaluate.evaluator import Evaluator
from agent.gateway.embedding import Embedder
from agent.options.jobs import ApplyOptions
from agent.programs.released import ReleasedProgram
from agent.redact import mask, rare_secrets_in
from agent.release.adapted_model import brought
from agent.release.regression import require_place
from agent.release.runtime import Prompt, load_prompt
from agent.results.rows import ApplyResult
from agent.retrieval.pool import text_of
from agent.run.answer_file import require_kind, write_answers
from agent.run.embeddings import embedder_of, model_of_prompt
from agent.run.job import Job, Resources
from agent.run.locations import has_goals, models_of, prompt_path, require_named
from agent.run.prompt_rows import Readable, rows_task
from agent.run.session import PreparedJob
from agent.task.documents import html_notes, stripped
from agent.task.examples import reader_of
from agent.task.input_files import read_bytes
from agent.task.tables import TEXT_CELLS, FileForm, data_file
from agent.task.words import listed, problem, quoted, shown
from agent.types import (
    LM,
    Example,
    Outcome,
    Task,
)

ERROR = "error"
"""The column that says why a row has no answer, or which part of a reply could not be read."""
AT_ONCE = 1000
"""Rows that are begun together, however long the file is."""
IN_BATCHES = 50_000
"""The same where they go as batches, which are waited for together."""


@dataclass(frozen=True, slots=True)
class Application:
    """What to apply to what: the rows of `source` as they were read, and where they go."""

    prompt: Prompt
    lm: LM
    source: Path
    rows: Sequence[Mapping[str, Any]]
    columns: Sequence[str]
    task: Task
    out: Path
    prefix: str
    embedder: LM | None = None
    notes: Sequence[str] = ()

    @property
    def added(self) -> list[str]:
        """The new columns."""
        return _added(self.prompt, self.prefix)


class Apply(Job[ApplyResult]):
    """One application. Rows whose inputs are empty are not asked."""

    command = kind = "apply"
    done = "applied"
    chained = ("name", "version", "model", "rows", "answered", "unreadable", "failed")

    def __init__(self, applied: Application, resources: Resources) -> None:
        super().__init__(applied.task, (applied.lm.name,), resources)
        self._applied = applied
        self._secrets = rare_secrets_in(os.environ)

    @property
    def planned(self) -> int:
        rows = len(self.task.dev)
        return rows + (Embedder.calls(rows) if self._applied.embedder else 0)

    async def work(self) -> ApplyResult:
        applied = self._applied
        outcomes = await self._outcomes()
        answers = [self._answers(row, outcomes.get(str(number))) for number, row in enumerate(applied.rows)]
        failed = sum(outcome.value is None for outcome in outcomes.values()) + len(answers) - len(outcomes)
        if failed == len(answers):
            raise RunRefused(
                f"none of the {failed} rows got an answer, so nothing was written: {answers[0][applied.added[-1]]}"
            )
        rows = zip(applied.rows, answers, strict=True)
        is_text = applied.source.suffix.lower() in TEXT_CELLS
        write_answers(applied.out, applied.columns, applied.added, rows, trusted=is_text)
        return ApplyResult(
            run_id=self.id,
            name=applied.prompt.name,
            version=applied.prompt.version,
            model=applied.lm.name,
            source=str(applied.source),
            path=str(applied.out),
            rows=len(answers),
            answered=sum(outcome.value == 1 for outcome in outcomes.values()),
            unreadable=sum(outcome.value == 0 for outcome in outcomes.values()),
            failed=failed,
            notes=tuple(applied.notes),
            **self.spent(),
        )

    async def _outcomes(self) -> dict[str, Outcome]:
        """What came of each row that is asked, by its number. Raises BudgetExhausted where the budget ends before."""
        applied, rows = self._applied, self.task.dev
        embedder = await embedder_of(applied.prompt, self._gateway, applied.embedder, ())
        program = ReleasedProgram(applied.prompt, self.task, applied.lm, embedder)
        evaluator = Evaluator(self.task, self._gateway, applied.lm, [Readable()], [program])
        found: dict[str, Outcome] = {}
        many = AT_ONCE if self._gateway.batches is None else IN_BATCHES
        for start in range(0, len(rows), many):
            some = rows[start : start + many]
            if embedder is not None:
                embedder.forget()
                await embedder.vectors(text_of(row.inputs, applied.prompt.release.compared) for row in some)
            with self._gateway.together():
                outcomes = await self.gathered([evaluator.outcome(program.candidate, row) for row in some])
            found |= {row.id: each for row, each in zip(some, outcomes, strict=True) if each is not None}
            if self._stopped:
                raise BudgetExhausted(
                    f"{len(found)} of {len(rows)} rows are answered, and nothing was written: {self._stopped}; "
                    "the same command with a larger cap asks only the others"
                )
        return found

    def _answers(self, row: Mapping[str, Any], outcome: Outcome | None) -> dict[str, Any]:
        applied = self._applied
        if outcome is None:
            empty = [name for name in applied.prompt.release.inputs if _is_empty(row.get(name))]
            return {applied.added[-1]: f"not asked: {listed(empty or applied.prompt.release.inputs)} is empty"}
        prediction = outcome.prediction
        if prediction.confidence is None and (reply := mask(prediction.raw, self._secrets)) != prediction.raw:
            prediction = applied.prompt.parse(reply)  # as from the ledger, which holds no key
        found = {f"{applied.prefix}{name}": value for name, value in prediction.fields.items()}
        return {**found, applied.added[-1]: prediction.error} if prediction.error else found


def _added(prompt: Prompt, prefix: str) -> list[str]:
    return [f"{prefix}{name}" for name in (*(output.name for output in prompt.release.outputs), ERROR)]


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


# -- from the words of a command to an application --------------------------------------------------------------------


def prepare_apply(prompt: str, source: Path, options: ApplyOptions, db: Path) -> PreparedJob[ApplyResult]:
    """Finds the prompt, reads the rows and checks that the answers can be written; calls nothing.

    Args:
        prompt: the path of a prompt.md, NAME@ALIAS, NAME@VERSION, or the id of a run.
        source: the rows, a data file of one of the kinds `TABLES`, with a column for each input of the prompt.
        options: where they go with the answers (.csv or .jsonl), and which.
        db: the ledger.

    Raises:
        InputError: a file, a column or a model is wrong, or a ReleaseError for a prompt that is damaged.
    """
    out = options.output or Path()
    path = prompt_path(prompt, db)
    loaded = load_prompt(path)
    require_kind(out)
    if out.exists() and source.exists() and out.samefile(source):
        raise InputError(f"-o {out}: is the file of rows itself; name another file")
    form, prefix = FileForm.of(options), options.prefix
    rows, columns, digest, notes = _read(source, loaded, prefix, form, has_goals(loaded, db))
    rows = rows[: options.limit]
    name = options.model or loaded.model
    require_named(path, brought(loaded.release), {"--model": [] if options.model else [name]}, db)
    require_place(out, "-o")
    lm, _ = models_of(name, (), loaded)
    inputs = loaded.release.inputs
    asked = [row | {name: stripped(row.get(name)) for name in inputs} for row in rows] if form.strip_html else rows
    task = _task(loaded, path, source, asked, digest)
    embedder = model_of_prompt(loaded, path, db)
    notes = [*notes, *html_notes(rows, inputs, form)] if not form.strip_html else notes
    applied = Application(loaded, lm, source, rows, columns, task, out, prefix, embedder, notes)
    more = Embedder.calls(len(task.dev)) if embedder else 0
    budget = options.budget_for(max(1, len(task.dev)) + more)
    lms = (lm, *([embedder] if embedder else []))
    return PreparedJob(lambda resources: Apply(applied, resources), lms, budget)


def _read(
    source: Path, prompt: Prompt, prefix: str, form: FileForm, goals: bool = False
) -> tuple[list[dict[str, Any]], list[str], str, Sequence[str]]:
    """The rows, their columns, the hash of the file, and notes on it. Raises InputError where they do not fit.

    `goals`: the texts of a conversation's column are goals of a model that played the user, and no messages.
    """
    data, where = read_bytes(source), shown(source)
    file = data_file(data, source, form)
    found, problems = file.rows, file.problems
    if problems or not found:
        raise ProblemsError(tuple(problems) or (Problem(f"{where}:1", "no rows; write one for each call"),))
    rows = [row for _, row in found]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    inputs = prompt.release.inputs
    if missing := [name for name in inputs if name not in columns]:
        raise InputError(
            f"{where}: no column {listed(map(quoted, missing))}; the inputs of {prompt.name} are {listed(inputs)}, the "
            f"columns here {listed(columns)}"
        )
    if twice := [name for name in _added(prompt, prefix) if name in columns]:
        raise InputError(
            f"{where}: has a column {listed(map(quoted, twice))} already, which the answers would take; rename it, or "
            "give the new columns other names, such as --prefix answer_"
        )
    wrong, read = [], _reader(prompt, source, rows)
    for line, row in found:
        try:
            for name in inputs:
                if _is_empty(row.get(name)):
                    continue
                text = read(name, row[name])
                if goals and name == prompt.release.conversation and text == user_text(str(row[name])):
                    raise ValueError("is a goal, which no model plays here; write the list of messages so far")
        except ValueError as error:
            wrong.append(problem(where, line, f"{name}: {error}"))
    if wrong:
        raise ProblemsError(tuple(wrong))
    how = repr(form).encode() if form.is_any else b""
    return rows, columns, hashlib.sha256(data + how).hexdigest(), file.notes


def _task(prompt: Prompt, path: Path, source: Path, rows: Sequence[Mapping[str, Any]], digest: str) -> Task:
    """The rows that can be asked as the dev rows of a task; the id of each is its number."""
    inputs, read = prompt.release.inputs, _reader(prompt, source, rows)
    examples = [
        Example(str(number), {name: read(name, row[name]) for name in inputs}, {})
        for number, row in enumerate(rows)
        if not any(_is_empty(row.get(name)) for name in inputs)
    ]
    about = f"{prompt.name} applied to {shown(source)}"
    return rows_task(prompt, path.parent, about, examples, digest)


def _reader(prompt: Prompt, source: Path, rows: Sequence[Mapping[str, Any]]) -> Callable[[str, Any], str]:
    """Return what gives a value of an input as the text that a prompt was scored with, or raises ValueError."""
    talk = prompt.release.conversation
    said = reader_of([row.get(talk) for row in rows], source.suffix.lower() in TEXT_CELLS)

    def text(name: str, value: Any) -> str:
        if name == talk:
            return said(value)
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    return text
