"""Progress on stderr: a live block on a terminal, a short line now and then elsewhere."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

import click

from agent.cli.common import plain
from agent.cli.progress_screen import Screen, megabytes
from agent.cli.progress_view import View, as_line, job_view, search_view, stage_key, training_view
from agent.errors import Interrupted
from agent.gateway.in_flight import InFlight
from agent.run.observers import Snapshot, Watcher
from agent.run.session import Work, run_work
from agent.run.tracking import NO_TRACKING, Tracking

if TYPE_CHECKING:
    from agent.gateway.budget import Account
    from agent.observer import TrainingProgress
    from agent.results.base import CostedResult

_R = TypeVar("_R", bound="CostedResult")

LINE_SECONDS = 30.0
"""Between two lines of one stage, where stderr is no terminal."""


class Progress(Watcher):
    """Shows what a run does. Use as a context manager; `quiet` shows nothing but warnings."""

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._screen: Screen | None = None
        self._last = 0.0
        self._stage = ""
        self._view: Callable[[], View] | None = None
        self._in_flight, self._beats = InFlight(), 0

    def __enter__(self) -> Progress:
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console

            console = Console(stderr=True)
            if console.is_terminal and not console.is_dumb_terminal:
                self._screen = Screen(console)
        return self

    def __exit__(self, *_: object) -> None:
        self._take_down()

    def on_snapshot(self, snapshot: Snapshot) -> None:
        self._view = lambda: search_view(snapshot)
        self._show(stage_key(snapshot))

    def on_heartbeat(self, in_flight: InFlight) -> None:
        self._in_flight, self._beats = in_flight, self._beats + 1
        self._show(self._stage)

    def on_message(self, line: str) -> None:
        if not self._quiet:
            self.warn(line)

    def warn(self, line: str) -> None:
        if self._screen is not None:
            self._screen.print(line)
        else:
            click.echo(plain(line), err=True)

    def leave(self, line: str) -> NoReturn:
        self._take_down()
        self.warn(line)
        os._exit(Interrupted.exit_code)

    def download(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._quiet:
            return
        if self._screen is not None:
            if self._screen.is_due() or done == total:
                self._screen.draw_download(done, total)
        elif now - self._last >= LINE_SECONDS or done == total:
            self._last = now
            click.echo(f"fetching the model: {megabytes(done, total)}", err=True)

    def _show(self, stage: str) -> None:
        """Shows the view, at once where a stage begins, else when it is due."""
        if self._quiet or self._view is None:
            return
        is_new, self._stage = stage != self._stage, stage
        if self._screen is not None:
            if is_new or self._screen.is_due():
                self._screen.draw(self._view(), self._in_flight, self._beats)
            return
        now = time.monotonic()
        if is_new or now - self._last >= LINE_SECONDS:
            self._last = now
            click.echo(as_line(self._view(), self._in_flight), err=True)

    def _take_down(self) -> None:
        if self._screen is not None:
            self._screen.stop()
            self._screen = None


def run_shown(
    job: Work[_R],
    db: Path,
    is_quiet: bool,
    title: str,
    tracking: Tracking = NO_TRACKING,
) -> _R:
    """Run a job to its end with its progress, called `title`, on stderr."""
    with JobProgress(is_quiet, title) as progress:
        return run_work(job, db, progress, tracking=tracking)


class JobProgress(Progress):
    """Shows the calls of a job, which is no search; a short one, where stderr is no terminal, prints no line."""

    def __init__(self, quiet: bool, title: str) -> None:
        super().__init__(quiet)
        self._title = title
        self._account: Account | None = None
        self._last = time.monotonic()

    def on_job_progress(self, done: int, planned: int, account: Account, retries: int = 0) -> None:
        self._account = account
        self._view = lambda: job_view(self._title, done, planned, account, retries)
        self._show(self._stage)

    def on_training_progress(self, progress: TrainingProgress) -> None:
        if (account := self._account) is not None:
            self._view = lambda: training_view(progress, account)
            self._show(self._stage)
