"""Progress on stderr: a live block on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from agent.cli.common import plain
from agent.errors import Interrupted
from agent.report.facts import dollars
from agent.run.observers import Snapshot, Watcher
from agent.run.session import PreparedJob, run_job

if TYPE_CHECKING:
    from agent.gateway.budget import Account

LINE_SECONDS = 5.0
ENOUGH = 16
"""Calls before a line says how long it takes: the first ones wait for the model and run side by side."""


class Progress(Watcher):
    """Shows snapshots of a run. Use as a context manager; `quiet` shows nothing but warnings."""

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._live: Any = None
        self._last = 0.0
        self._stage = ""

    def __enter__(self) -> Progress:
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live("", console=Console(stderr=True), refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def on_snapshot(self, snapshot: Snapshot) -> None:
        if self._quiet:
            return
        if self._live is not None:
            from rich.text import Text

            self._live.update(Text(describe(snapshot)))
            return
        now = time.monotonic()
        if now - self._last >= LINE_SECONDS or snapshot.stage != self._stage:
            self._last, self._stage = now, snapshot.stage
            click.echo(describe(snapshot), err=True)

    def on_message(self, line: str) -> None:
        if self._live is not None:
            self._live.console.print(plain(line), markup=False, highlight=False)
        elif not self._quiet:
            click.echo(plain(line), err=True)

    def warn(self, line: str) -> None:
        click.echo(plain(line), err=True)

    def leave(self, line: str) -> NoReturn:
        self.warn(line)
        os._exit(Interrupted.exit_code)

    def download(self, done: int, total: int) -> None:
        now = time.monotonic()
        if not self._quiet and (now - self._last >= 1.0 or done == total):
            self._last = now
            share = f" of {total / 1e6:.0f}" if total else ""
            click.echo(f"fetching the model: {done / 1e6:.0f}{share} MB", err=True)


def describe(snapshot: Snapshot) -> str:
    """One line: stage, best dev score with its interval, trials, spending of the cap per role, cache, retries, ETA."""
    account, plan = snapshot.account, snapshot.plan
    used = account.total_used.calls
    best = "best -"
    if snapshot.best is not None:
        mean, low, high = (100 * value for value in snapshot.best)
        best = f"best {mean:.0f} [{low:.0f}, {high:.0f}]"
    roles = " ".join(f"{role} {spend.calls}" for role, spend in sorted(account.paid.items(), reverse=True)) or "none"
    eta = account.seconds / used * max(0, plan.calls - used) if used else 0.0
    return (
        f"[{account.seconds:4.0f}s] {snapshot.stage:<11} {best:<18} "
        f"trials {snapshot.trials} ({snapshot.pruned} pruned)  "
        f"calls {used}/{plan.calls} (paid: {roles}; cached {account.cached}; retries {snapshot.retries}; "
        f"limit {snapshot.width})  "
        f"tokens {account.total_paid.tokens}  {dollars(account.total_paid.usd, account.unpriced)}  "
        f"at most {eta:.0f}s left"
    )


def run_shown(job: PreparedJob, options: Mapping[str, Any], db: Path, as_json: bool) -> dict[str, Any]:
    """Runs a job to its end with its progress on stderr, but for --quiet and --json; returns its result."""
    return run_job(job, options, db, JobProgress(bool(options["quiet"] or as_json)))


class JobProgress(Progress):
    """The calls of a job, which is no search: a line on stderr every few seconds."""

    def __init__(self, quiet: bool) -> None:
        super().__init__(quiet)
        self._last = time.monotonic()

    def on_job_progress(self, done: int, planned: int, account: Account) -> None:
        now = time.monotonic()
        if self._quiet or now - self._last < LINE_SECONDS:
            return
        self._last = now
        paid = f"tokens {account.total_paid.tokens}  {dollars(account.total_paid.usd, account.unpriced)}"
        if done >= ENOUGH:
            paid += f"  at most {account.seconds / done * max(0, planned - done):.0f}s left"
        click.echo(f"[{account.seconds:4.0f}s] calls {done}/{planned} (cached {account.cached})  {paid}", err=True)
