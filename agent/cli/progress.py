"""Progress on stderr: a live block on a terminal, an occasional line elsewhere.

The run's event loop draws the block, not a thread: if the loop hangs, clock and mark stop.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from agent.cli import progress_view as views
from agent.cli.common import plain
from agent.errors import Interrupted
from agent.gateway.budget import Account
from agent.gateway.in_flight import InFlight
from agent.jobs.observers import CellLine, Snapshot, Watcher
from agent.observer import TrainingProgress
from agent.report.wording import dollars
from agent.stats.figures import points

if TYPE_CHECKING:
    from agent.cli.progress_screen import Screen
    from agent.options.jobs import LabelOptions
    from agent.report.blinded import RatingSession
    from agent.task.label_files import LabelledTask
    from agent.task.label_session import LabelQueue

LINE_SECONDS = 30.0
"""Seconds between two lines of one stage if stderr is not a terminal."""
DRAW_SECONDS = 0.1


class Progress(Watcher):
    """Shows the progress of a run; a context manager. `quiet` shows only warnings."""

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._screen: Screen | None = None
        self._keys = contextlib.ExitStack()
        self._last = self._drawn = 0.0
        self._stage = ""
        self._view: Callable[[], views.View] | None = None
        self._in_flight, self._beats = InFlight(), 0
        self._states: dict[str, str] = {}

    def __enter__(self) -> Progress:
        if not self._quiet and sys.stderr.isatty():
            from agent.cli.progress_screen import screen_on_stderr

            self._screen = screen_on_stderr()
        if self._screen is not None:
            self._keys.enter_context(_ignored_keys(sys.stderr.fileno()))
            self._screen.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._screen is not None:
            self._screen.stop()
            self._screen = None
            self._keys.close()

    def on_snapshot(self, snapshot: Snapshot) -> None:
        self._view = lambda: views.search_view(snapshot)
        self._show(views.stage_key(snapshot))

    def on_cells(self, cells: Sequence[CellLine]) -> None:
        if self._screen is not None:
            self._screen.show_cells(cells)
            return
        for line in cells:
            was = self._states.get(line.name)
            self._states[line.name] = line.state
            if was != line.state and not self._quiet and (was is not None or not line.state.startswith("waits")):
                score = "" if line.score is None else f", sealed test {points(line.score)}, {dollars(line.usd)}"
                click.echo(plain(f"{line.name}: {line.state}{score}"), err=True)

    def on_labelling(self, task: LabelledTask, options: LabelOptions, queue: LabelQueue, db: Path) -> None:
        from agent.cli.label import ask_labels

        ask_labels(task, options, queue, db)

    def on_rating(self, session: RatingSession) -> None:
        from agent.cli.label import ask_ratings

        ask_ratings(session)

    def confirm(self, question: str) -> None:
        click.confirm(question, abort=True, err=True)

    def on_heartbeat(self, in_flight: InFlight) -> None:
        self._in_flight, self._beats = in_flight, self._beats + 1
        self._show(self._stage)

    def on_message(self, line: str) -> None:
        if not self._quiet:
            self.warn(line)

    def warn(self, line: str) -> None:
        if self._screen is not None:
            self._screen.print_line(line)
        else:
            click.echo(plain(line), err=True)

    def leave(self, line: str) -> NoReturn:
        self.__exit__()
        self.warn(line)
        os._exit(Interrupted.exit_code)

    def download(self, done: int, total: int) -> None:
        words = f"{done / 1e6:.0f}{f' of {total / 1e6:.0f}' if total else ''} MB"
        if self._quiet:
            return
        if self._screen is not None:
            if self._is_due() or done == total:
                self._drawn = time.monotonic()
                self._screen.show_bar(done, total or done, f"{words} of the model")
        elif self._is_time(done == total):
            click.echo(f"fetching the model: {words}", err=True)

    def _show(self, stage: str) -> None:
        if self._quiet or self._view is None:
            return
        is_new, self._stage = stage != self._stage, stage
        if self._screen is None:
            if self._is_time(is_new):
                click.echo(views.as_line(self._view(), self._in_flight), err=True)
        elif is_new or self._is_due():
            self._drawn = time.monotonic()
            self._screen.show_view(self._view(), self._in_flight, self._beats)

    def _is_time(self, is_new: bool) -> bool:
        now = time.monotonic()
        if not is_new and now - self._last < LINE_SECONDS:
            return False
        self._last = now
        return True

    def _is_due(self) -> bool:
        return time.monotonic() - self._drawn >= DRAW_SECONDS


class JobProgress(Progress):
    """Shows the calls of a job that is not a search; a short job prints no line outside of a terminal."""

    def __init__(self, quiet: bool, title: str) -> None:
        super().__init__(quiet)
        self._title = title
        self._account: Account | None = None
        self._last = time.monotonic()

    def on_job_progress(self, done: int, planned: int, account: Account, retries: int = 0) -> None:
        self._account = account
        self._view = lambda: views.job_view(self._title, done, planned, account, retries)
        self._show(self._stage)

    def on_training_progress(self, progress: TrainingProgress) -> None:
        if (account := self._account) is not None:
            self._view = lambda: views.training_view(progress, account)
            self._show(self._stage)


@contextlib.contextmanager
def _ignored_keys(terminal: int) -> Iterator[None]:
    """Keep typed keys off the screen, and drawn output whole.

    An echoed key moves the cursor, and Ctrl-C discards output that the terminal has not read, unless NOFLSH is set:
    after either, the next drawing would erase lines above the block. In the background, setting modes stops a process.
    """
    before = None
    with contextlib.suppress(OSError, termios.error):
        if os.tcgetpgrp(terminal) == os.getpgrp():
            before = termios.tcgetattr(terminal)
            modes = [*before[:3], before[3] & ~termios.ECHO | termios.NOFLSH, *before[4:]]
            termios.tcsetattr(terminal, termios.TCSADRAIN, modes)
    try:
        yield
    finally:
        with contextlib.suppress(OSError, termios.error):
            if before is not None and os.tcgetpgrp(terminal) == os.getpgrp():
                termios.tcsetattr(terminal, termios.TCSADRAIN, before)
