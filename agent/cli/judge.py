"""`optimize judge rate`: blinded rating of answers.

A rater sees inputs and answer, never which prompt wrote it. Every rater gets the same items in another order.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.common import (
    PATH,
    SETTINGS,
    db_option,
    plain,
)
from agent.jobs.locations import open_history

if TYPE_CHECKING:
    from agent.report.blinded import BlindedAnswer, RatingSession

SKIP, QUIT = "s", "q"


@click.command(context_settings=SETTINGS)
@click.argument("run", required=False, default="")
@click.option("--rater", required=True, help="Who rates: a name or initials, kept with each rating.")
@click.option("--output", help="The field to rate, when the task has several. Default: the one that its judge rates.")
@click.option("--count", type=click.IntRange(1), default=40, show_default=True, help="How many answers.")
@click.option("-o", "--file", "path", type=PATH, help="Default: ratings.jsonl in the run's folder.")
@db_option
def rate_command(run: str, rater: str, output: str | None, count: int, path: Path | None, db: Path) -> None:
    """Rate answers of RUN (default: the latest) on the rubric's scale, without knowing which prompt wrote them.

    For each answer type a number for every criterion and for the whole; s skips it, q stops. What was rated is kept,
    and the same command goes on from there. Several raters write to one file; their agreement is printed at the end.
    """
    from agent.report.blinded import agreement, rating_session

    history = open_history(db)
    session = rating_session(history, run, rater, output=output, count=count, path=path)
    history.close()
    todo, of = session.todo, len(session.items)
    rated = of - len(todo)
    click.echo(f"{of} answers, {rated} rated before by {plain(rater)}; ratings go to {session.file.path}")
    for number, shown in enumerate(todo, rated + 1):
        click.echo(_page(shown, number, of, session.field))
        marks = _ask(session)
        if marks is None:
            break
        if marks:
            session.file.add(shown.rated(rater, session.field, marks))
    done = len(session.file.done(rater))
    click.echo(f"{done} of {of} rated by {plain(rater)}{'' if done >= of else '; the same command goes on from there'}")
    if agreed := agreement(session.file.rows, session.rubric):
        click.echo(agreed)
    click.echo(plain(f"measure a judge with them: {session.command}"))


def _page(shown: BlindedAnswer, number: int, of: int, field: str) -> str:
    lines = ["", f"[{number}/{of}] " + "-" * 60]
    lines += [f"{plain(name)}: {plain(text)}" for name, text in shown.parts.items()]
    return "\n".join([*lines, "", f"{plain(field)}:", plain(shown.answer), ""])


def _ask(session: RatingSession) -> dict[str, int] | None:
    """The marks of one answer; empty when it was skipped, None when the rater stops."""
    low, high = session.rubric.low, session.rubric.high
    marks: dict[str, int] = {}
    for key, part in session.marks:
        while key not in marks:
            try:
                prompt = f"{plain(part.name)} {low}-{high} (s skip, q stop)"
                answer = click.prompt(prompt, prompt_suffix=": ").strip().casefold()
            except (click.Abort, EOFError):
                click.echo("")
                return None
            if answer in (SKIP, QUIT):
                return {} if answer == SKIP else None
            if answer.isdecimal() and low <= int(answer) <= high:
                marks[key] = int(answer)
            else:
                click.echo(f"a whole number from {low} to {high}, s or q")
    return marks
