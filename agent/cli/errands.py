"""What commands share that ask models and are no search: options of their cost, progress, and their `asyncio.run`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from agent.cli.common import plain
from agent.cli.launch import MAX_WAIT_HELP, PRICE_HELP, THINKING_HELP, fixed, seconds, unknown, watched
from agent.cli.progress import Progress
from agent.errors import InputError
from agent.report.facts import dollars, spent

if TYPE_CHECKING:
    from agent.errand import Errand, Means
    from agent.gateway.budget import Account
    from agent.types import LM, Budget

LINE_SECONDS = 5.0
ENOUGH = 16
"""Calls before a line says how long it takes: the first ones wait for the model and run side by side."""
SLACK = 2
"""Without any cap an errand may make so many times the calls that it plans: some fail and are tried again."""

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


def budget_of(options: Mapping[str, Any], planned: int | None = None) -> Budget:
    """The caps that were given; without any, twice the `planned` calls."""
    from agent.types import Budget

    caps = (options["max_calls"], options["max_tokens"], options["max_cost"])
    if planned is not None and caps == (None, None, None):
        return Budget(max_calls=SLACK * planned + 1)
    return Budget(*caps)


def whole_budget(options: Mapping[str, Any], planned: int, what: str) -> Budget:
    """The same for an errand that says nothing before its last call. Raises InputError where --max-calls is too few."""
    most = options["max_calls"]
    if most is not None and most < planned:
        raise InputError(f"--max-calls {most}: {what} takes {planned} calls at least; raise it, or lower --repeats")
    return budget_of(options, planned)


def run_errand(
    make: Callable[[Means], Errand],
    lms: Sequence[LM],
    models: Sequence[str],
    budget: Budget,
    options: Mapping[str, Any],
    db: Path,
    *,
    quiet: bool,
    use_cache: bool = True,
) -> dict[str, Any]:
    """Runs to the end, or to a Ctrl-C as of a run. `models` are the names whose weights may be fetched."""
    from agent.errand import Means
    from agent.gateway.gateway import MAX_WAIT
    from agent.gateway.prices import prices_for
    from agent.ledger.origin import new_run_id
    from agent.ledger.store import Ledger
    from agent.models.catalog import check_keys, fetch

    max_wait = seconds("--max-wait", options["max_wait"]) or MAX_WAIT
    for name in models:
        if name.startswith("local/") and not name.endswith(".gguf"):
            fetch(name, lambda done, total: None)
    check_keys(lms)
    prices = prices_for([lm.name for lm in lms], budget, fixed(options["price"]))
    ledger, progress = Ledger(db), Progress(quiet)
    try:
        means = Means(
            new_run_id(),
            ledger,
            prices,
            budget,
            options.get("seed") or 0,
            Told(quiet),
            options["max_concurrency"],
            use_cache,
            max_wait,
            options["thinking"],
            lambda line: progress.say(plain(line)),
        )
        errand = make(means)
        new = unknown(lms, ledger, errand.task, use_cache)
        return asyncio.run(watched(errand, lms, progress, new=new))
    finally:
        ledger.close()


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
    return plain(
        f"calls: {asked}, from the ledger {cached}; {tokens:,} tokens, {spent(told)}, {told['seconds']:.0f} s{over}"
    )
