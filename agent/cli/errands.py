"""What commands share that ask models and are no search: options of their cost, and progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from agent.cli.common import MAX_WAIT_HELP, PRICE_HELP, THINKING_HELP, plain
from agent.cli.progress import Progress
from agent.report.facts import dollars, spent
from agent.run.session import run_job as run_to_end

if TYPE_CHECKING:
    from agent.gateway.budget import Account
    from agent.run.job import Job, Means
    from agent.types import LM, Budget

LINE_SECONDS = 5.0
ENOUGH = 16
"""Calls before a line says how long it takes: the first ones wait for the model and run side by side."""

F = TypeVar("F", bound=Callable[..., Any])


def spending_options(function: F) -> F:
    """Caps, price, room to think, concurrency and patience."""
    options = (
        click.option("--max-calls", type=click.IntRange(1), help="Cap on model calls, retries (not 429s) included."),
        click.option("--max-tokens", type=click.IntRange(1), help="Cap on tokens in and out."),
        click.option("--max-cost", type=click.FloatRange(0), help="Cap in US dollars."),
        click.option("--price", help=PRICE_HELP),
        click.option("--thinking", type=click.IntRange(0), help=THINKING_HELP),
        click.option("-j", "--max-concurrency", type=click.IntRange(1), help="Calls in flight at once."),
        click.option("--max-wait", help=MAX_WAIT_HELP),
        click.option("-q", "--quiet", is_flag=True, help="No progress."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def run_job(
    make: Callable[[Means], Job],
    lms: Sequence[LM],
    models: Sequence[str],
    budget: Budget,
    options: Mapping[str, Any],
    db: Path,
    *,
    quiet: bool,
    use_cache: bool = True,
) -> dict[str, Any]:
    """`session.run_job`, shown on the terminal."""
    return run_to_end(make, lms, models, budget, options, db, Progress(quiet), Told(quiet), use_cache=use_cache)


class Told:
    """A line on stderr every few seconds."""

    def __init__(self, quiet: bool) -> None:
        self._quiet, self._last = quiet, time.monotonic()

    def __call__(self, done: int, planned: int, account: Account) -> None:
        now = time.monotonic()
        if self._quiet or now - self._last < LINE_SECONDS:
            return
        self._last = now
        paid = f"tokens {account.total_paid.tokens}  {dollars(account.total_paid.usd, account.unpriced)}"
        if done >= ENOUGH:
            paid += f"  at most {account.seconds / done * max(0, planned - done):.0f}s left"
        click.echo(f"[{account.seconds:4.0f}s] calls {done}/{planned} (cached {account.cached})  {paid}", err=True)


def cost_line(told: Mapping[str, Any]) -> str:
    """What an errand took, for people."""
    calls = dict(told["calls"])
    cached = calls.pop("cached")
    asked = ", ".join(f"{role} {count}" for role, count in calls.items()) or "none"
    over = f"; {told['overspent']}" if told.get("overspent") else ""
    tokens = told["tokens"]["prompt"] + told["tokens"]["completion"]
    paid = spent(told["cost_usd"], told.get("unpriced", ()), told.get("lost_usd"))  # an older run has none
    return plain(f"calls: {asked}, from the ledger {cached}; {tokens:,} tokens, {paid}, {told['seconds']:.0f} s{over}")
