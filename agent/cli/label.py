"""`optimize label`: people label rows by single keys, in the terminal or in the browser."""

from __future__ import annotations

import os
import select
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING

import click

from agent.cli.common import (
    plain,
    print_json,
    print_shown,
)
from agent.cli.declared import command
from agent.errors import InputError
from agent.options.jobs import LabelOptions
from agent.options.shared import ShownOptions

if TYPE_CHECKING:
    from agent.task.label_files import LabelledTask
    from agent.task.label_session import LabelSession, NextRow

SKIP, UNDO, HELP, QUIT = "s", "u", "?", "q"
GLUED = "\N{NO-BREAK SPACE}"


@command(LabelOptions, ShownOptions)
@click.argument("task")
def label_command(options: LabelOptions, output: ShownOptions, task: str) -> None:
    """Label rows of TASK by single keys; train, dev and test are made of the labels.

    The next row is the one whose label says most: where the best prompts of the last run disagree (--ask), of the label
    that fewest rows have, and far from the rows that have a label. A key gives a label, s skips, u takes the last one
    back, ? explains the labels, q ends. Each label is on the disk at once. Several labellers write to one file: their
    agreement is printed, and rows on which they disagree are shown again.
    """
    from agent.jobs.label import add_rows, answers_of, label_answers, labels_wanted, opened, rows_next
    from agent.ledger.provenance import user

    db, as_json, status, web = output.db, output.as_json, options.status, options.web
    if options.ask and not (options.max_calls or options.max_cost):
        raise click.UsageError("--ask asks models: give a cap with it, --max-calls N or --max-cost USD")
    if web and (options.count or status or as_json):
        other = "--count" if options.count else "--status" if status else "--json"
        raise click.UsageError(f"--web labels in the browser until you end it, without {other}; leave one of them out")
    if options.add is not None:
        for line in add_rows(task, options.add, options):
            click.echo(plain(line), err=as_json)
    found = opened(task)
    if not (status or as_json):
        keys_of(found.choices)  # where they are too few, no model is asked first
    if options.ask:
        from agent.cli.progress import run_shown
        from agent.jobs.launch import silence
        from agent.report.job_blocks import job_sections
        from agent.report.terminal import lines_of

        silence()
        work = label_answers(found, options, db)
        result = run_shown(work, db, output.quiet or as_json, "asking prompts")
        click.echo("\n".join(lines_of(job_sections(result))[1:]), err=as_json)
    if not (status or as_json):
        browser = (options.port, not options.no_open) if web else None
        _label(found, options.labeller or user(), options.count, options.overlap, browser, db)
    summary = labels_wanted(found)
    if as_json:
        print_json({**summary.to_json(), "next_rows": rows_next(found, answers_of(found, db))})
    else:
        print_shown(summary, as_json=False)


def _label(
    task: LabelledTask, labeller: str, count: int | None, overlap: int, web: tuple[int, bool] | None, db: Path
) -> None:
    from agent.jobs.label import answers_of
    from agent.task.label_session import LabelSession, queue_of

    queue = queue_of(task, answers_of(task, db))
    if web is None:
        Labelling(LabelSession(task, labeller, queue, overlap), count).run()
        return
    from agent.cli.ui import serve_pages
    from agent.extras import require
    from agent.jobs.locations import open_ledger
    from agent.ledger.connect import is_there

    require("ui", "optimize label --web")
    from agent.report.web.label_page import LabelPlace

    if not is_there(db):
        open_ledger(db).close()
    place = LabelPlace(task, keys_of(task.choices), labeller, queue, overlap)
    serve_pages(db, web[0], not web[1], False, f"the labels are in {task.log.path}", labelling=place)


class Labelling:
    """A session on a terminal, or over pipes, where each letter of stdin is a key."""

    def __init__(self, session: LabelSession, count: int | None) -> None:
        self._session, self._count = session, count
        self.keys = keys_of(session.task.choices)
        self._skipped: set[str] = set()
        self._given = 0
        self._read: Callable[[], str]

    def run(self) -> None:
        """Until the labeller ends, or has given `count` labels."""
        with single_keys() as self._read:
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
        """What stands where no row is left but those that were skipped."""
        skipped = f" but {len(self._skipped)} that you skipped" if self._skipped else ""
        return f"\nno row is left{skipped}\nu undo  q end"

    def _choices(self) -> list[str]:
        """The keys and what each does, in lines of the terminal's width that part no key from its label."""
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


def keys_of(labels: Sequence[str]) -> dict[str, str]:
    """A key for each label: digits from 1, then letters that no command has. Raises InputError for too many labels."""
    letters = "".join(letter for letter in ascii_lowercase if letter not in (SKIP, UNDO, QUIT))
    keys = f"123456789{letters}{letters.upper()}"
    if len(labels) > len(keys):
        raise InputError(
            f"{len(labels)} labels, and single keys are enough for {len(keys)}; write the labels into a column of a "
            "table instead, and make a task of it: optimize init NAME --from FILE --target COLUMN"
        )
    return dict(zip(keys, labels, strict=False))


@contextmanager
def single_keys() -> Iterator[Callable[[], str]]:
    """A function that waits for the next key, and gives QUIT at the end of stdin or after Ctrl-C or Ctrl-D.

    A terminal is in a mode for single keys all the while, so that none is lost that is pressed before a row is shown.
    Line ends and blanks of a pipe are no keys.
    """
    if not sys.stdin.isatty():
        yield _piped_key
        return
    import termios
    import tty

    file = sys.stdin.fileno()
    before = termios.tcgetattr(file)
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
