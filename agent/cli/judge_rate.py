"""`optimize judge rate`: answers of a run, blinded, for people to rate; the file feeds `judge calibrate`.

Who rates sees inputs and answer, never which prompt wrote it. Every rater gets the same items in another order.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.common import SETTINGS, db_option, plain
from agent.errors import InputError
from agent.run.locations import open_history

if TYPE_CHECKING:
    from agent.report.blinded import Shown
    from agent.types import Rubric

SKIP, QUIT = "s", "q"


@click.command(context_settings=SETTINGS)
@click.argument("run", required=False, default="")
@click.option("--rater", required=True, help="Who rates: a name or initials, kept with each rating.")
@click.option("--output", help="The field to rate, when the task has several. Default: the one that its judge rates.")
@click.option("--count", type=click.IntRange(1), default=40, show_default=True, help="How many answers.")
@click.option(
    "-o", "--file", "path", type=click.Path(path_type=Path), help="Default: ratings.jsonl in the run's folder."
)
@db_option
def rate_command(run: str, rater: str, output: str | None, count: int, path: Path | None, db: Path) -> None:
    """Rate answers of RUN (default: the latest) on the rubric's scale, without knowing which prompt wrote them.

    For each answer type a number for every criterion and for the whole; s skips it, q stops. What was rated is kept,
    and the same command goes on from there. Several raters write to one file; their agreement is printed at the end.
    """
    from agent.ledger.places import run_folder
    from agent.report.blinded import calibrating, field_of, items_of, order_of, rated_task, rubric_of
    from agent.task.ratings import RatedFile

    history = open_history(db)
    found = history.run(run)
    path = path or run_folder(db.parent, found["id"]) / "ratings.jsonl"
    task = rated_task(found)
    field = field_of(task, output)
    rubric = rubric_of(task, field)
    file = RatedFile(path)
    items = items_of(history, found["id"], task, field, count)
    history.close()
    if not items:
        raise InputError(f"{found['id']}: no answer of a prompt that saw the whole of dev has the field {field}")
    todo = [shown for shown in order_of(items, found["id"], rater) if shown.item not in file.done(rater)]
    rated = len(items) - len(todo)
    click.echo(f"{len(items)} answers, {rated} rated before by {plain(rater)}; ratings go to {path}")
    for number, shown in enumerate(todo, rated + 1):
        click.echo(_page(shown, number, len(items), field))
        marks = _ask(rubric)
        if marks is None:
            break
        if marks:
            file.add(shown.rated(rater, field, marks))
    _close(file, rubric, rater, len(items))
    told = calibrating(found, task, field, rubric, path)
    click.echo(plain(f"measure a judge with them: {told}"))


def _page(shown: Shown, number: int, of: int, field: str) -> str:
    lines = ["", f"[{number}/{of}] " + "-" * 60]
    lines += [f"{plain(name)}: {plain(text)}" for name, text in shown.inputs.items()]
    return "\n".join([*lines, "", f"{plain(field)}:", plain(shown.answer), ""])


def _ask(rubric: Rubric) -> dict[str, int] | None:
    """The marks of one answer; empty when it was skipped, None when the rater stops."""
    names = [c.name for c in rubric.criteria] if len(rubric.criteria) > 1 else []
    marks: dict[str, int] = {}
    for name in [*names, ""]:
        while True:
            label = f"{plain(name) or 'the whole'} {rubric.low}-{rubric.high} (s skip, q stop)"
            try:
                said = click.prompt(label, prompt_suffix=": ").strip().casefold()
            except (click.Abort, EOFError):
                click.echo("")
                return None
            if said in (SKIP, QUIT):
                return {} if said == SKIP else None
            if said.isdecimal() and rubric.low <= int(said) <= rubric.high:
                marks[f"rating_{name}" if name else "rating"] = int(said)
                break
            click.echo(f"a whole number from {rubric.low} to {rubric.high}, s or q")
    return marks


def _close(file: Any, rubric: Rubric, rater: str, of: int) -> None:
    from agent.report.blinded import agreement

    done = len(file.done(rater))
    click.echo(
        f"{done} of {of} rated by {plain(rater)}" + ("" if done >= of else "; the same command goes on from there")
    )
    if told := agreement(file.rows, rubric):
        click.echo(told)
