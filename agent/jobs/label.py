"""`optimize label`: a task to label, rows added to it, answers of prompts, and what is still needed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from agent.errors import BudgetExhausted, InputError
from agent.evaluate.evaluator import Evaluator
from agent.jobs.locations import open_history
from agent.jobs.models import earlier_prices
from agent.jobs.observers import Watcher
from agent.jobs.recorded import best_trials, recorded_prompt
from agent.jobs.registry import DB, After, Printed, job
from agent.jobs.released import Readable
from agent.jobs.session import Session
from agent.jobs.tasks import task_of
from agent.jobs.unlabelled import CONFIRMED_BY, Table, confirmed_answers, made_rows, names_in, require_rows, table_of
from agent.jobs.work import Work
from agent.ledger.connect import is_there
from agent.ledger.query import Row, started_with
from agent.models.model_registry import create_model
from agent.options.jobs import LabelOptions
from agent.options.shared import FormOptions, SpendingOptions
from agent.programs.kinds import program_for
from agent.prompt.template import label_text
from agent.redact import silence
from agent.report.job_blocks import sections_of
from agent.report.terminal import lines_of
from agent.results.rows import LabellingResult, LabelResult
from agent.safe_file import locked, new_file
from agent.safe_text import counted, listed, near, quoted, shown
from agent.stats.power import rows_for
from agent.task.answers import text_of
from agent.task.by_name import find_task
from agent.task.columns import column_named
from agent.task.examples import folded
from agent.task.label_files import UNLABELLED_FILE, LabelledTask, read_fields, rows_text
from agent.task.label_session import LabelQueue, LabelSession, agreements, disagreement, queue_of
from agent.task.splits import FRACTIONS
from agent.task.tables import read_rows
from agent.types import SPLITS, Example

GAINS = (0.3, 0.1)
"""Gains for which the labels are counted, as shares."""
MOST_NEXT = 20
"""Rows to label next that are listed."""
KIND = "label_answers"
SKIP, UNDO, HELP, QUIT = "s", "u", "?", "q"
"""Keys that are not labels."""
MOST_PROMPTS = 3
"""Prompts that are asked: the user's and the best others."""
AT_ONCE = 100
"""Rows that are started together; not all, as rows in progress may lack answers when the budget ends."""


@job("label", asks="asking prompts")
def label(
    task: str, options: LabelOptions, *, observer: Watcher, as_json: bool, db: Path = DB
) -> After[LabellingResult] | Printed[LabellingResult | None]:
    """Label rows of TASK with single keys. Train, dev and test are made from the labels.

    The next row is the most informative one: where the best prompts of the last run disagree (--ask), of the rarest
    label, far from labelled rows. A key gives a label, s skips, u undoes the last one, ? explains the labels, q quits.
    Each label is saved at once. Several labellers write to one file: their agreement is printed, and rows on which they
    disagree are shown again.
    """
    if options.web and as_json:
        raise InputError("--web labels in the browser until you end it, without --json; leave one of them out")
    said = [] if options.add is None else _add_rows(task, options.add, options)
    found, is_asked = opened(task), not (options.status or as_json)
    if is_asked:
        keys_of(found.choices)  # where they are too few, no model is asked first

    def labelled(answered: LabelResult | None = None) -> Printed[LabellingResult | None]:
        lines = said if answered is None else [*said, *lines_of(sections_of(answered))[1:]]
        if as_json:
            rows = tuple(_rows_next(found, answers_of(found, db)))
            return Printed(_labels_wanted(found).model_copy(update={"next_rows": rows}), lines=lines)

        def ended() -> LabellingResult:
            if is_asked:
                observer.on_labelling(found, options, queue_of(found, answers_of(found, db)), db)
            return _labels_wanted(found)

        return Printed(None, lines=lines, later=ended)

    if not options.ask:
        return labelled()
    silence()
    return After(label_answers(found, options, db), labelled)


def keys_of(labels: Sequence[str]) -> dict[str, str]:
    """Return a key for each label: digits from 1, then letters that are not commands. Raises InputError."""
    letters = "".join(letter for letter in ascii_lowercase if letter not in (SKIP, UNDO, QUIT))
    keys = f"123456789{letters}{letters.upper()}"
    if len(labels) > len(keys):
        raise InputError(
            f"{len(labels)} labels, but only {len(keys)} keys; label in a column of a table: "
            "optimize init NAME --from FILE --target COLUMN"
        )
    return dict(zip(keys, labels, strict=False))


def opened(name: str) -> LabelledTask:
    """Return the task of this name or path, with splits made from its labels. Raises InputError."""
    task = LabelledTask(find_task(name))
    task.write_splits()
    return task


def _labels_wanted(task: LabelledTask) -> LabellingResult:
    events = task.log.events()
    status = task.status(events)
    splits = ", ".join(f"{split} {count}" for split, count in status.splits.items())
    wanted = [f"rows: {splits}"]
    if status.missing:
        wanted = [f"wanted before train, dev and test are written: {status.missing}"]
    wanted += list(verdict_lines(len(task.choices)))
    if status.chosen_in_test:
        wanted.append(
            f"{status.chosen_in_test} of {status.splits['test']} test rows were chosen because prompts disagreed on "
            "them: the measured gain is larger than on all rows"
        )
    name = task.folder.name if task.folder.parent == Path("tasks") else str(task.folder)
    more = " --add FILE" * (status.labelled == status.rows)
    return LabellingResult(
        task=task.name,
        folder=str(task.folder),
        rows=status.rows,
        labelled=status.labelled,
        disputed=status.disputed,
        by_label=status.by_label,
        splits=status.splits,
        agreement=tuple(agreements(task, events)),
        wanted=tuple(wanted),
        next=f"optimize label {name}{more}" if status.missing else f"optimize run {name}",
    )


def _rows_next(task: LabelledTask, answers: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    session, found = LabelSession(task, "next", queue_of(task, answers), 0), list[dict[str, Any]]()
    events = task.log.events()
    while len(found) < MOST_NEXT and (shown := session.next(events, [each["row"] for each in found])) is not None:
        found.append({"row": shown.row.id, "inputs": dict(shown.row.inputs), "why": shown.why})
    return found


def verdict_lines(labels: int) -> list[str]:
    """Say how many labels show which gain; `labels` is the number of different labels."""
    parts = []
    for gain in GAINS:
        rows = rows_for(gain, 0.5) or 0
        count = math.ceil(rows / FRACTIONS[2])
        parts.append(f"{100 * gain:.0f} points about {count} labels ({math.ceil(count / labels)} a label)")
    return [f"to show a gain of {', of '.join(parts)} are wanted, as {FRACTIONS[2]:.0%} of them become test rows"]


# -- rows of a file ---------------------------------------------------------------------------------------------------


def _add_rows(name: str, path: Path, form: FormOptions) -> list[str]:
    folder = find_task(name)
    inputs, field = read_fields(folder)
    table, notes, traces = table_of(path, form)
    columns = _columns(table, inputs, path, traces is not None or path.suffix.lower() == ".txt")
    made = made_rows(table, columns, path)
    require_rows(made, inputs, path)
    unlabelled = folder / UNLABELLED_FILE
    with locked(folder):
        known = _known(folder, inputs)
        new = [row for row in made if folded(row.inputs) not in known]
        if new:
            before = unlabelled.read_bytes() if unlabelled.exists() else b""
            end = b"\n" if before and not before.endswith(b"\n") else b""  # an editor may have left it out
            with new_file(unlabelled) as opened:
                opened.write(before + end + rows_text(new).encode("utf-8"))
    answers, labelled = list[tuple[str, str]](), 0
    if traces and unlabelled.exists():
        task = LabelledTask(folder)
        known_labels = task.labels(task.log.events())
        confirmed = confirmed_answers(traces, columns).items()
        answers = [(row, answer) for row, answer in confirmed if row in task.by_id and row not in known_labels]
        labelled = task.label_confirmed(answers, CONFIRMED_BY)
    if not new and not labelled:
        raise InputError(f"{shown(path)}: none of its rows is new to {field} of {name}; give a file with others")
    lines = [*(traces.lines if traces else ()), *notes, f"added {counted(len(new), 'row')} to label"]
    if answers:
        lines.append(f"labelled by {CONFIRMED_BY}: {labelled} of {len(answers)}; other answers are no labels here")
    column = "" if traces else column_named(names_in(table), field) or ""
    if not_taken := sum(bool(text_of(row.get(column)).strip()) for _, row in table):
        lines.append(f"column {quoted(column)}, with {not_taken} filled in, is left out: people give the labels")
    return lines


def _columns(table: Table, inputs: Sequence[str], path: Path, is_text: bool) -> dict[str, str]:
    names = names_in(table)
    if is_text and len(names) == len(inputs) == 1:
        return {inputs[0]: names[0]}
    columns = {own: column_named(names, own) for own in inputs}
    if missing := [own for own, column in columns.items() if column is None]:
        if path.suffix.lower() == ".txt":
            raise InputError(
                f"{shown(path)}: a line is one text, and the inputs are {listed(inputs)}; give a .csv file"
            )
        raise InputError(f"{shown(path)}: no column for the input {quoted(missing[0])}{near(missing[0], names)}")
    return {own: column or "" for own, column in columns.items()}


def _known(folder: Path, inputs: Sequence[str]) -> set[tuple[str, ...]]:
    known = {folded(row.inputs) for row in LabelledTask(folder).rows} if (folder / UNLABELLED_FILE).exists() else set()
    for split in SPLITS:
        if (file := folder / f"{split}.jsonl").exists():
            rows, _ = read_rows(file)
            known |= {folded({own: str(row.get(own, "")) for own in inputs}) for _, row in rows}
    return known


# -- answers of prompts -----------------------------------------------------------------------------------------------


def label_answers(labelled: LabelledTask, options: LabelOptions, db: Path) -> Work[LabelResult]:
    """Ask the last run's best prompts about unlabelled rows, within the caps."""
    with closing(open_history(db)) as history:
        run = next((row for row in history.runs() if _is_of(row, labelled)), None)
        if run is None:
            raise InputError(
                f"{labelled.name}: no run of this task in {db} yet; label rows, then `optimize run {labelled.folder}`"
            )
        trials = history.trials(run["id"])
        own = [trial for trial in trials if trial["state"] == "complete" and trial["number"] == 0]
        found = [history.candidate(trial["candidate_id"]) for trial in [*own, *best_trials(trials)]]
        whole = [row for row in found if not (row["picks"] or row["passages"])]  # these look up rows of that run
        prompts = [recorded_prompt(row) for row in whole[:MOST_PROMPTS]]
    begun, of_run = started_with(run), str(run["id"])
    if len(prompts) < 2:
        raise InputError(f"{of_run}: fewer than two prompts of it can be asked without its rows; run the task again")
    most = options.max_calls // len(prompts) if options.max_calls else len(labelled.rows)
    rows = _rows(labelled, most)
    if not rows:
        raise InputError(f"{labelled.name}: no row is left to ask, or --max-calls is below {len(prompts)}, for one row")
    task, lm = task_of(begun.model_copy(update={"task": str(labelled.folder)})), create_model(run["model"])

    async def perform(asking: Session[LabelResult]) -> LabelResult:
        program, field = program_for(asking.task, lm), asking.task.signature.outputs[0].name
        evaluator = Evaluator(asking.task, asking.gateway, lm, [Readable()], [program])
        answers: dict[str, tuple[str, ...]] = {}
        for start in range(0, len(rows), AT_ONCE):
            some = rows[start : start + AT_ONCE]
            calls = [evaluator.outcome(prompt, row) for row in some for prompt in prompts]
            outcomes = iter(await asking.gathered(calls))
            for row in some:
                given = islice(outcomes, len(prompts))
                known = [each.prediction.fields.get(field) for each in given if each is not None]
                if len(known) == len(prompts):
                    answers[row.id] = tuple("" if value is None else label_text(value) for value in known)
            if asking.stopped:
                break
        if not answers:
            raise BudgetExhausted(asking.stopped)
        return LabelResult(
            run_id=asking.id,
            of_run=of_run,
            task=task.name,
            folder=task.folder,
            prompts=len(prompts),
            answers=answers,
            apart=sum(disagreement(given) > 0 for given in answers.values()),
            status=asking.status,
            **asking.spent(),
        )

    planned = len(prompts) * len(rows)
    return Work(
        KIND,
        "answered_unlabelled",
        perform,
        task,
        [lm],
        options.part(SpendingOptions),
        planned,
        options.budget_for(planned),
        command="label",
        chained=_for_chain,
        prices=earlier_prices(begun, lm.name),
    )


def _for_chain(result: LabelResult) -> Mapping[str, Any]:
    kept = ("of_run", "prompts", "apart", "status")
    return {**{name: getattr(result, name) for name in kept}, "rows": len(result.answers)}


def _is_of(run: Row, labelled: LabelledTask) -> bool:
    is_search = bool(run["options"]) and "command" not in run["options"] and run["status"] in ("complete", "budget")
    return is_search and Path(run["folder"]).resolve() == labelled.folder.resolve()


def _rows(labelled: LabelledTask, most: int) -> list[Example]:
    labels = labelled.labels(labelled.log.events())
    queue = LabelQueue([row.text for row in labelled.rows], {})
    left = [at for at, row in enumerate(labelled.rows) if row.id not in labels]
    taken = {at: "" for at, row in enumerate(labelled.rows) if row.id in labels}
    found: list[Example] = []
    while left and len(found) < most:
        at = queue.pick(taken, left)
        left.remove(at)
        taken[at] = ""
        found.append(Example(labelled.rows[at].id, labelled.rows[at].inputs, {}))
    return found


def answers_of(labelled: LabelledTask, db: Path) -> dict[str, tuple[str, ...]]:
    """Return, by row, the answers of the prompts of the run that was asked last."""
    if not is_there(db):
        return {}
    folder = labelled.folder.resolve()
    with closing(open_history(db)) as history:
        results = [run["result"] or {} for run in history.runs()]  # the latest first
    asked = [LabelResult.from_json(each) for each in results if each.get("kind") == KIND]
    here = [each for each in asked if Path(each.folder).resolve() == folder]
    return {
        row: given
        for result in reversed(here)
        if result.of_run == here[0].of_run
        for row, given in result.answers.items()
    }
