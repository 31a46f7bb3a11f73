"""`optimize init`: make a task folder from a file, traces or a sentence, or copy a sample. Drafts are no labels."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from agent.errors import BadResponse, BudgetExhausted, InputError, RowRefused
from agent.jobs.label import verdict_lines
from agent.jobs.registry import DB, job
from agent.jobs.released import bare_task
from agent.jobs.session import Session
from agent.jobs.skills import ABOUT, source_of, write_skill_task
from agent.jobs.tasks import copy_task
from agent.jobs.unlabelled import (
    CONFIRMED_BY,
    TEXT,
    DraftPlan,
    input_columns,
    labels_given,
    made_rows,
    require_choice,
    table_of,
    unlabelled,
    write_draft,
)
from agent.jobs.work import Work
from agent.models.model_registry import DEFAULT_MODEL, create_model
from agent.options.jobs import InitOptions
from agent.options.shared import Asked, SpendingOptions, asked_of
from agent.prompt import draft_requests as drafts
from agent.report.blocks import Block
from agent.report.blocks import text as prose
from agent.results.base import Result
from agent.results.rows import DraftResult
from agent.safe_file import new_file, prompt_text
from agent.safe_text import counted, listed, near, shown
from agent.task.answers import label_reader, target_type
from agent.task.by_name import SAMPLES, samples
from agent.task.checks import PLACEHOLDER
from agent.task.columns import DataColumn
from agent.task.from_file import Targets, renamed, require_new, write_task
from agent.task.label_files import SYNTHETIC, UNLABELLED_FILE, UnlabelledRow, json_line, rows_text
from agent.task.promptfoo_tests import EXPECTED, is_promptfoo, promptfoo_tests
from agent.task.skills import NO_SKILL
from agent.task.splits import MIN_ROWS
from agent.task.task_text import Reading, slug, words
from agent.task.traces import TraceRows, is_traces, read_traces
from agent.types import Field, Message, Request, Signature, content_id

T = TypeVar("T")
REPLY_TOKENS = 160
MOST_REASONS = 5
GUESSED_LABELS = 6
"""Number of labels assumed for the plan if they are unknown."""
NO_MEANINGS: Mapping[str, str] = {}
SYSTEM_LINE = "prompt: the system text of most traces"


@job("init", asks="drafting the task")
def init(
    name: str = "", file: Path | None = None, *, options: InitOptions, db: Path = DB
) -> Work[DraftResult] | MadeTask:
    """Make the task folder NAME (under tasks/, or a path) from your FILE. Shows how its columns were read.

    With --sample SAMPLE instead: tasks/SAMPLE, a copy of a task that ships with Promptassay.

    With --describe instead: a task without labels, from a sentence. A model drafts labels, their definitions and a
    first prompt in small, checked steps; rows come from --from (in a .txt file one per line), or the model writes
    synthetic ones. `optimize label NAME` then asks you for labels: a model's draft is never used as one. Traces with
    fewer than 30 confirmed answers are treated alike; those answers are the first labels.

    With --from-skills: the descriptions of skills or tools are optimized, by queries that say which one is meant.
    `optimize export RUN --format skills` shows the new ones as a diff of your files.
    """
    if file is not None:
        if options.source is not None:
            raise InputError(f"{file} and --from {options.source}: give one of them")
        options = options.changed(source=file)
    if options.from_skills is not None:
        _require_name(name)
        return _from_skills(name, options)
    asked, source, targets = asked_of(options), options.source, options.target
    prompt = None if options.prompt is None else str(options.prompt)
    target = targets[0] if targets else ""
    if options.describe:
        if len(targets) > 1:
            raise InputError("--describe drafts labels of one kind: give one --target")
        if options.sample or prompt:
            raise InputError("--describe drafts a task: give no --sample, and no --prompt")
        _require_name(name)
        return _draft(name, options, asked)
    is_traced = source is not None and not target and is_traces(source)
    if options.labels and not is_traced:
        raise InputError("--labels goes with --describe, or with traces")
    if options.sample:
        if name or source or target or prompt or asked.is_any or asked.has_form:
            raise InputError("--sample copies a task as it is: give no NAME, and no option for a file of yours")
        return _wrote(_copy_sample(options.sample), [], f"run {options.sample}")
    _require_name(name)
    if source is None:
        made = f"optimize init NAME {name}" if Path(name).is_file() else f"optimize init {name} FILE"
        raise InputError(f"Missing argument 'FILE'; name your data file: `{made} --target COLUMN`")
    if is_traced:
        if asked.has_form:
            raise InputError("--encoding, --sheet and --strip-html go with tables; leave them out for traces")
        return _from_traces(name, source, prompt, asked, options)
    columns = targets if len(targets) > 1 else target
    folder, reading = _make_task(name, source, columns, prompt, options.seed, asked)
    return _wrote(folder, list(reading.lines()), name)


def _require_name(name: str) -> None:
    if not name:
        raise InputError("Missing argument 'NAME'; name the folder of the task")


class MadeTask(Result):
    """A new task folder: how the data was `read`, and the `next` command."""

    folder: Path
    read: tuple[str, ...]
    next: str

    def blocks(self) -> Iterator[Block]:
        made = f"wrote {self.folder}; look at {self.folder / 'task.toml'}, then: {self.next}"
        yield prose(*self.read, made, exact=True)


def _wrote(folder: Path, lines: Sequence[str], then: str) -> MadeTask:
    return MadeTask(folder=folder, read=tuple(lines), next=f"optimize {then}")


def _folder(name: str) -> Path:
    if not re.fullmatch(r"[^\W_][\w.-]*", Path(name).name):
        raise InputError(f"{name!r}: a task's folder has a name of letters, digits, dots, dashes and underscores")
    return Path(name) if len(Path(name).parts) > 1 else Path("tasks") / name


def _new_folder(name: str) -> Path:
    require_new(folder := _folder(name))
    return folder


def _make_task(
    name: str,
    source: Path,
    target: Targets,
    prompt: str | None,
    seed: int,
    asked: Asked | None = None,
    rows: Sequence[dict[str, Any]] | None = None,
) -> tuple[Path, Reading]:
    folder = _folder(name)
    instruction = prompt_text(prompt) if prompt else ""
    tests = not target and is_promptfoo(source)
    if not target and not tests:
        raise InputError(
            f"{source}: name the column to predict with --target COLUMN; without answers, describe the task: "
            f"`optimize init {name} --describe TEXT --from {source}`"
        )
    if tests and asked and (asked.is_any or asked.has_form):
        names = "--metric, --type, --input, --ignore, --encoding, --sheet and --strip-html"
        raise InputError(f"{source}: {names} do not go with promptfoo's tests")
    given = promptfoo_tests(source) if tests else None if rows is None else (rows, None)
    column = EXPECTED if tests else target
    _, reading = write_task(folder, source, column, instruction, seed, asked, given)
    return folder, reading


def _copy_sample(name: str) -> Path:
    if name not in (known := samples()):
        raise InputError(f"--sample {name}: no sample of this name{near(name, known)}")
    folder = Path("tasks") / name
    require_new(folder, f"`optimize run {name}` runs it, or remove it first")
    copy_task(folder, SAMPLES / name)
    return folder


# -- out of a sentence ------------------------------------------------------------------------------------------------


def _draft(
    name: str, options: InitOptions, asked: Asked, meanings: Mapping[str, str] = NO_MEANINGS
) -> Work[DraftResult]:
    description = " ".join(options.describe.split())
    if len(description.split()) < 3 or not description.isprintable():
        raise InputError('--describe: say in a sentence what the task is, such as "Sort mails into bug or question"')
    target = next(iter(options.target), "label")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,63}", target) or target in (TEXT, "id", "source", "drafted"):
        raise InputError(f"--target {target}: give a name of letters, digits and underscores, such as label")
    require_choice(asked)
    labels, source = labels_given(options.labels), options.source
    own = (DataColumn(TEXT, TEXT, "input", "drafted"), DataColumn(target, target, "target", "the label"))
    plan = DraftPlan(_new_folder(name), description, target, labels, own, (), options.rows)
    if source:
        table, _, traces = table_of(source, asked)
        columns, rows, confirmed = unlabelled(table, source, target, asked, traces)
        plan = replace(plan, columns=columns, rows=tuple(rows), synthetic=0, confirmed=confirmed)
    lm = create_model(options.model or DEFAULT_MODEL)
    calls = (not labels) + (len(labels) or GUESSED_LABELS) - len(meanings) + 1 + plan.synthetic
    have = f"{counted(len(plan.rows) or plan.synthetic, 'row')} {f'of {shown(source)}' if source else 'to write'}"
    signature = Signature(tuple(map(Field, plan.inputs)), (Field(target),))
    digest = hashlib.sha256(rows_text(plan.rows).encode()).hexdigest()

    async def perform(asking: Session[DraftResult]) -> DraftResult:
        refused: list[str] = []

        async def ask(make: Callable[[int], tuple[Message, ...]], read: Callable[[str], T], seed: int = 0) -> T | None:
            for attempt in range(drafts.ATTEMPTS):
                # rows are to differ; all else is first asked without chance
                heat = 0.9 if seed else 0.7 * (attempt > 0)
                request = Request(make(attempt), REPLY_TOKENS, temperature=heat, seed=1000 * seed + attempt)
                try:
                    return read((await asking.gateway.complete("proposer", lm, request)).text)
                except (drafts.Refused, RowRefused, BadResponse) as error:
                    refused.append(str(error))
            return None

        async def row(label: str, number: int) -> str | None:
            meaning, before = definitions[label], [row.inputs[TEXT] for row in rows if row.drafted == label]
            texts = [row.inputs[TEXT] for row in rows]
            return await ask(
                lambda n: drafts.row_request(description, label, meaning, before, number + n),
                lambda text: drafts.read_row(text, description, meaning, texts),
                1 + number,
            )

        async def definition(label: str) -> str | None:
            others = list(definitions.values())
            return await ask(
                lambda n: drafts.request_for("definition", description, n, f"Labels: {', '.join(named)}", label=label),
                lambda text: drafts.read_definition(text, description, label, others),
            )

        named = labels
        if not named:
            found = await ask(
                lambda n: drafts.request_for("labels", description, n),
                lambda text: drafts.read_labels(text, description),
            )
            named = found or ()
        if not named:
            raise InputError(f"{lm.name} named no labels that can be used ({refused[-1]}); give them: --labels a,b,c")
        definitions: dict[str, str] = {}
        opening, rows = "", list(plan.rows)
        try:
            for label in named:
                definitions[label] = meanings.get(label) or await definition(label) or ""
            inputs = " and ".join(map(words, plan.inputs))
            opening = (
                await ask(lambda n: drafts.request_for("opening", description, n, inputs=inputs), drafts.read_opening)
                or ""
            )
            for number in range(plan.synthetic):
                label = named[number % len(named)]
                if (text := await row(label, number)) is not None:
                    rows.append(UnlabelledRow(content_id("row", {TEXT: text}), {TEXT: text}, SYNTHETIC, label))
        except BudgetExhausted as stop:
            asking.stopped = str(stop)
        if not rows:
            raise BudgetExhausted(asking.stopped or "no row could be drafted; give your own rows with --from FILE")
        said = all(label.casefold() in description.casefold() for label in named)
        return DraftResult(
            run_id=asking.id,
            task=asking.task.name,
            folder=str(plan.folder),
            model=lm.name,
            labels={label: definitions.get(label, "") for label in named},
            labels_from="the user" if labels else "the description" if said else "the model",
            opening=opening,
            rows=len(rows),
            synthetic=sum(row.source == SYNTHETIC for row in rows),
            confirmed=write_draft(plan, named, definitions, opening, rows),
            refused=len(refused),
            why_refused=tuple(why + f", {n} times" * (n > 1) for why, n in Counter(refused).most_common(MOST_REASONS)),
            wanted=tuple(verdict_lines(len(named))),
            status=asking.status,
            **asking.spent(),
        )

    return Work(
        "draft",
        "drafted",
        perform,
        bare_task(slug(plan.folder.name), description, signature, plan.folder, {"unlabelled": digest}),
        [lm],
        options.part(SpendingOptions),
        calls,
        options.budget_for(drafts.ATTEMPTS * calls),
        command="init",
        chained=_for_chain,
        opening=f"{plan.folder.name}: {lm.name} drafts {listed(labels) or 'labels'}, definitions and a prompt; {have}",
    )


def _for_chain(result: DraftResult) -> Mapping[str, object]:
    kept = ("rows", "synthetic", "refused", "labels_from", "status", "model")
    return {**{name: getattr(result, name) for name in kept}, "labels": len(result.labels)}


# -- out of skills ----------------------------------------------------------------------------------------------------


def _from_skills(name: str, options: InitOptions) -> Work[DraftResult] | MadeTask:
    source = source_of(Path(options.from_skills or ""))
    if options.draft:
        about = {tool.name: tool.description for tool in source} | {NO_SKILL[1]: "No skill is needed."}
        asked = {"describe": ABOUT, "labels": ",".join(about), "target": ("skill",), "rows": options.draft}
        drafting = options.changed(**asked, from_skills=None, draft=None, queries=())
        return _draft(f"{name}-queries", drafting, asked_of(drafting), about)
    folder = _new_folder(name)
    return _wrote(folder, write_skill_task(folder, source, options), f"run {name}")


# -- out of traces ----------------------------------------------------------------------------------------------------


def _from_traces(name: str, source: Path, prompt: str | None, asked: Asked, options: InitOptions) -> MadeTask:
    found, choices = read_traces(source), labels_given(options.labels)
    lines = list(found.lines)
    if len(found.labelled) < MIN_ROWS:
        if choices or (choices := _labels_in(found.answers)):
            origin = "--labels" if options.labels else "the answers in the file"
            folder, more = _task_to_label(name, source, found, prompt, asked, choices)
            return _wrote(folder, [*lines, f"labels, from {origin}: {listed(choices)}", *more], f"label {name}")
        confirmed = counted(len(found.labelled), "answer is", "answers are")
        file = Path(f"{Path(name).name}-{UNLABELLED_FILE}")
        if file.exists():
            raise InputError(f"{shown(file)} exists, and the rows to label would be written there; move it away")
        _write(file, "".join(map(json_line, [*found.labelled, *found.unlabelled])))
        lines.append(
            f"{shown(source)}: {confirmed} confirmed by a score or feedback, and a task "
            f"needs {MIN_ROWS}; wrote the rows to {shown(file)}: fill in {found.column!r}, then "
            f"`optimize init {name} --from {shown(file)} --target {found.column}`; where the answer is one of "
            f"some labels, give them: `optimize init {name} --from {shown(source)} --labels A,B`"
        )
        raise InputError("\n".join(lines))
    if choices:
        raise InputError(f"--labels: {len(found.labelled)} answers are confirmed and say the labels; leave it out")
    if prompt is None and found.instruction:
        prompt = f"{found.instruction}\n"  # with the end of a line it is never taken as the name of a file
        lines.append(SYSTEM_LINE)
    folder, reading = _make_task(name, source, found.column, prompt, options.seed, asked, found.labelled)
    table = [(line, row) for line, row in found.table if found.column not in row]
    if rows := made_rows(table, input_columns(reading.columns), source):
        _write(folder / UNLABELLED_FILE, rows_text(rows))
        lines.append(f"{folder / UNLABELLED_FILE}: {counted(len(rows), 'row')} without a label, which no run reads")
    return _wrote(folder, [*lines, *reading.lines()], f"run {name}")


def _task_to_label(
    name: str, source: Path, found: TraceRows, prompt: str | None, asked: Asked, labels: tuple[str, ...]
) -> tuple[Path, list[str]]:
    require_choice(asked)
    folder = _new_folder(name)
    instruction = prompt_text(prompt) if prompt else found.instruction
    marks = frozenset(mark[1] for mark in PLACEHOLDER.finditer(instruction))
    columns, rows, confirmed = unlabelled(found.questions, source, found.column, asked, found, marks)
    own = renamed(instruction, columns)
    plan = DraftPlan(folder, "", found.column, labels, columns, tuple(rows), confirmed=confirmed, prompt=own)
    labelled = write_draft(plan, labels, {}, "", rows)
    lines = [f"{folder / UNLABELLED_FILE}: {counted(len(rows), 'row')}, {labelled} of them labelled by {CONFIRMED_BY}"]
    if others := len(confirmed) - labelled:
        are = counted(others, "confirmed answer is", "confirmed answers are")
        lines.append(f"{are} none of the labels: such a row has no label")
    if not prompt:
        lines.append(SYSTEM_LINE if found.instruction else "prompt: a plain one")
    return folder, [*lines, *verdict_lines(len(labels))]


def _labels_in(answers: Sequence[str]) -> tuple[str, ...]:
    if target_type(answers) != "choice":
        return ()
    read = label_reader("choice", answers)
    try:
        return drafts.checked_labels(sorted({read(answer) for answer in answers}))
    except drafts.Refused:  # a text that can be no label stands among them
        return ()


def _write(path: Path, text: str) -> None:
    with new_file(path, private=True) as file:
        file.write(text.encode("utf-8"))
