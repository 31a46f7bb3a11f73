"""Single-key labelling in the terminal or in the browser, and blinded rating in the terminal."""

from __future__ import annotations

import os
import select
import shutil
import sys
import termios
import textwrap
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from agent.cli.common import plain
from agent.cli.ui import serve_pages
from agent.extras import require
from agent.jobs.label import HELP, QUIT, SKIP, UNDO, keys_of
from agent.ledger.connect import is_there
from agent.ledger.provenance import user
from agent.ledger.store import open_ledger
from agent.options.jobs import LabelOptions
from agent.report.blinded import BlindedAnswer, RatingSession, agreement
from agent.task.label_files import LabelledTask
from agent.task.label_session import LabelQueue, LabelSession, NextRow

GLUED = "\N{NO-BREAK SPACE}"


def ask_labels(task: LabelledTask, options: LabelOptions, queue: LabelQueue, db: Path) -> None:
    """Ask for labels, by single keys or in the browser, until the user quits."""

    labeller = options.labeller or user()
    if not options.web:
        _Labelling(LabelSession(task, labeller, queue, options.overlap), options.count).run()
        return

    require("ui", "optimize label --web")
    from agent.report.web.labelling_pages import LabelPlace

    if not is_there(db):
        open_ledger(db).close()
    place = LabelPlace(task, keys_of(task.choices), labeller, queue, options.overlap)
    serve_pages(db, options.port, options.no_open, False, f"the labels are in {task.log.path}", labelling=place)


class _Labelling:
    """A session on a terminal, or over pipes, where each letter of stdin is a key."""

    def __init__(self, session: LabelSession, count: int | None) -> None:
        self._session, self._count = session, count
        self.keys = keys_of(session.task.choices)
        self._skipped: set[str] = set()
        self._given = 0
        self._read: Callable[[], str]

    def run(self) -> None:
        """Ask until the labeller quits or has given `count` labels."""
        with _single_keys() as self._read:
            self._ask()

    def _ask(self) -> None:
        click.echo(plain(self._help()))
        again: NextRow | None = None
        while self._count is None or self._given < self._count:
            events = self._session.task.log.events()
            shown = again or self._session.next(events, self._skipped)
            again = None
            click.echo(self._page(shown, self._session.done(events)) if shown else self._end())
            key = self._key(bool(shown))
            if key == QUIT:
                return
            if key == UNDO:
                again = self._undone() or shown
            elif shown is None:
                continue
            elif key == SKIP:
                self._skipped.add(shown.row.id)
                click.echo("skipped")
            else:
                self._session.label(shown.row.id, self.keys[key], shown.chosen)
                self._given += 1
                click.echo(plain(f"-> {self.keys[key]}"))

    def _undone(self) -> NextRow | None:
        taken = self._session.undo()
        if taken is None:
            click.echo("nothing to take back")
            return None
        self._given -= self._given > 0
        click.echo(plain(f"taken back: {taken.label}"))
        return self._session.again(taken.row)

    def _page(self, shown: NextRow, done: int) -> str:
        lines = ["", f"[{done + 1}] {shown.why}" + f" {'-' * 20}"]
        lines += [f"{name}: {text}" for name, text in shown.row.inputs.items()]
        lines += [f"{name} says {label}" for name, label in shown.others.items()]
        return plain("\n".join(lines + self._choices()))

    def _end(self) -> str:
        skipped = f" but {len(self._skipped)} that you skipped" if self._skipped else ""
        return f"\nno row is left{skipped}\nu undo  q end"

    def _choices(self) -> list[str]:
        choices = [*(f"{key} {label}" for key, label in self.keys.items()), "s skip", "u undo", "? help"]
        whole = "  ".join(choice.replace(" ", GLUED) for choice in choices)
        width = shutil.get_terminal_size().columns - 1
        return [line.replace(GLUED, " ") for line in textwrap.wrap(whole, width, break_on_hyphens=False)]

    def _help(self) -> str:
        task = self._session.task
        meanings = task.definitions
        about = [
            f"  {key}  {label}" + f": {meanings[label]}" * bool(meanings[label]) for key, label in self.keys.items()
        ]
        return "\n".join([f"{task.name}: {task.field}", *about, "  s  skip   u  undo   ?  this   q  end"])

    def _key(self, has_row: bool) -> str:
        while True:
            key = self._read()
            if key in (UNDO, QUIT) or (has_row and (key in self.keys or key == SKIP)):
                return key
            click.echo(plain(self._help() if key == HELP else f"{key!r} is no key here; ? lists them"))


@contextmanager
def _single_keys() -> Iterator[Callable[[], str]]:
    if not sys.stdin.isatty():
        yield _piped_key
        return

    file = sys.stdin.fileno()
    before = termios.tcgetattr(file)
    # until the end, so that no key is lost that is pressed before a row is shown
    tty.setcbreak(file, termios.TCSADRAIN)
    try:
        yield lambda: _pressed_key(file)
    finally:
        termios.tcsetattr(file, termios.TCSADRAIN, before)


def _piped_key() -> str:
    while (key := sys.stdin.read(1)).isspace():
        pass
    return key or QUIT


def _pressed_key(file: int) -> str:
    try:
        data = os.read(file, 1)
        while (
            data.startswith(b"\x1b") and select.select([file], [], [], 0.02)[0]
        ):  # an arrow, say: one key, and no label
            data += os.read(file, 16)
    except (KeyboardInterrupt, OSError):
        return QUIT
    return QUIT if data in (b"", b"\x04") else data.decode("ascii", "replace")


# -- ratings: a rater sees inputs and answer, never which prompt wrote it ---------------------------------------------


def ask_ratings(session: RatingSession) -> None:
    """Ask for ratings of blinded answers until the rater quits."""
    todo, of, rater = session.todo, len(session.items), plain(session.rater)
    rated = of - len(todo)
    click.echo(f"{of} answers, {rated} rated before by {rater}; ratings go to {session.file.path}")
    for number, shown in enumerate(todo, rated + 1):
        click.echo(_rated_page(shown, number, of, session.field))
        marks = _marks(session)
        if marks is None:
            break
        if marks:
            session.file.add(shown.rated(session.rater, session.field, marks))
    done = len(session.file.done(session.rater))
    click.echo(f"{done} of {of} rated by {rater}{'' if done >= of else '; the same command continues'}")
    if agreed := agreement(session.file.rows, session.rubric):
        click.echo(agreed)
    click.echo(plain(f"measure a judge with them: {session.command}"))


def _rated_page(shown: BlindedAnswer, number: int, of: int, field: str) -> str:
    lines = ["", f"[{number}/{of}] " + "-" * 60]
    lines += [f"{plain(name)}: {plain(text)}" for name, text in shown.parts.items()]
    return "\n".join([*lines, "", f"{plain(field)}:", plain(shown.answer), ""])


def _marks(session: RatingSession) -> dict[str, int] | None:
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
