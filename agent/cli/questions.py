"""Commands that ask the user or show a download: `audit erase`, `judge rate` and `models fetch`.

A rater sees inputs and answer, never which prompt wrote it, and in a random order.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.common import PATH, SETTINGS, db_option, ledger_options, plain, print_shown
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
@click.option("--only", type=PATH, help="Rate only the answers that this file names, as `judge tune` writes it.")
@db_option
def rate_command(
    run: str, rater: str, output: str | None, count: int, path: Path | None, only: Path | None, db: Path
) -> None:
    """Rate answers of RUN (default: the latest) on the rubric's scale, blind to their prompts.

    For each answer, type a number for every criterion and one for the whole; s skips it, q quits. Ratings are kept: the
    same command continues. Several raters write to one file; their agreement is printed at the end.
    """
    from agent.report.blinded import agreement, rating_session

    history = open_history(db)
    session = rating_session(history, run, rater, output=output, count=count, path=path, only=only)
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
    click.echo(f"{done} of {of} rated by {plain(rater)}{'' if done >= of else '; the same command continues'}")
    if agreed := agreement(session.file.rows, session.rubric):
        click.echo(agreed)
    click.echo(plain(f"measure a judge with them: {session.command}"))


def _page(shown: BlindedAnswer, number: int, of: int, field: str) -> str:
    lines = ["", f"[{number}/{of}] " + "-" * 60]
    lines += [f"{plain(name)}: {plain(text)}" for name, text in shown.parts.items()]
    return "\n".join([*lines, "", f"{plain(field)}:", plain(shown.answer), ""])


def _ask(session: RatingSession) -> dict[str, int] | None:
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


@click.command(context_settings=SETTINGS)
@click.option("--hash", "hashes", multiple=True, metavar="H", help="A text by its SHA-256; repeatable.")
@click.option("--containing", metavar="TEXT", help="Every text that holds TEXT, also where JSON writes it otherwise.")
@click.option("--actor", required=True, help="Who wants it; is recorded.")
@click.option("--reason", required=True, help="Why; is recorded.")
@click.option("--yes", is_flag=True, allow_from_autoenv=False, help="Do not ask.")
@ledger_options
def erase_command(
    hashes: tuple[str, ...], containing: str | None, actor: str, reason: str, yes: bool, db: Path, as_json: bool
) -> None:
    """Erase prompts, requests and replies for good; the chain keeps their hashes.

    The chain also keeps the actor and the reason. An erased reply is bought again when it is needed. Text that rows and
    events quote, such as an error message, cannot be erased, and is listed.
    """
    from agent.jobs.audit import erase

    def confirm(count: int, kinds: Mapping[str, int]) -> None:
        if not as_json:
            words = ", ".join(f"{number} {kind}{'s' if number > 1 else ''}" for kind, number in kinds.items())
            click.echo(f"{count} texts go for good: {words}" if count else "no text holds it", err=True)
        if count and not yes:
            click.confirm("erase them?", abort=True, err=True)

    found = erase(hashes, containing, actor, reason, db, confirm)
    print_shown(found, as_json)
    for line in () if as_json else found.left:
        click.echo(f"still there: {plain(line)}", err=True)


@click.command(context_settings=SETTINGS)
@click.argument("name", default="local/smollm2-135m")
def fetch_command(name: str) -> None:
    """Download the weights of NAME into the cache and verify their SHA-256. Resumes a partial download."""
    from agent.cli.progress import Progress
    from agent.models.weights import fetch

    with Progress(quiet=False) as progress:
        path = fetch(name, progress.download)
    click.echo(f"{name}: {path}")
