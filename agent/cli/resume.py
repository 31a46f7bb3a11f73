"""`optimize resume`: goes on with a run that was interrupted, killed or stopped, from where it stood."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agent.cli.common import SETTINGS, db_option, json_option
from agent.cli.progress import Progress
from agent.cli.run import finish
from agent.observer import NO_OBSERVER
from agent.run.resume import going_on
from agent.run.session import start


@click.command(context_settings=SETTINGS)
@click.argument("run", required=False, default="")
@click.option("--fork", is_flag=True, help="Start a new run from it, with the task as it is now.")
@click.option("-m", "--model", help="Another model; only with --fork.")
@click.option("--max-calls", type=click.IntRange(1), help="A new cap on model calls; what was paid before counts.")
@click.option("--max-tokens", type=click.IntRange(1), help="A new cap on tokens.")
@click.option("--max-cost", type=click.FloatRange(0), help="A new cap in US dollars.")
@click.option("--time-limit", help="A new cap on wall time: 90, 5m or 1h30m.")
@click.option("-j", "--max-concurrency", type=click.IntRange(1), help="Calls in flight at once.")
@click.option("--max-wait", help="Longest wait for a provider that is down or asks to wait: 90, 5m.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@db_option
@json_option
def resume_command(
    run: str, fork: bool, model: str | None, quiet: bool, db: Path, as_json: bool, **changes: Any
) -> None:
    """Go on with RUN (default: the latest that did not finish). Nothing that was paid for is bought again.

    Refuses when the task, its data or metrics, the model or the program changed since, naming what changed; --fork
    starts a new run with what is there now, which still takes every call that it shares from the ledger.
    """
    progress = Progress(quiet)
    going = going_on(run, changes, model, fork, db, NO_OBSERVER if as_json else progress)
    with progress:
        for line in going.lines:
            progress.on_message(line)
        result = start(going.launch, db, progress, going.resumed)
    finish(result, db, as_json)
