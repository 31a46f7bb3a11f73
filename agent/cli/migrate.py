"""`optimize migrate`: a released prompt for another model, from the history of its run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agent.cli.common import (
    BATCH,
    CONCURRENCY_HELP,
    COUNT,
    DOLLARS,
    MAX_WAIT_HELP,
    PRICE_HELP,
    SETTINGS,
    batch_options,
    ledger_options,
    margin_option,
    max_demos_option,
)
from agent.cli.option_groups import GroupedCommand
from agent.cli.progress import Progress
from agent.cli.run import print_plan, print_run
from agent.observer import NO_OBSERVER
from agent.run.launch import prepare
from agent.run.migration_source import CALLS, migration_words
from agent.run.session import start
from agent.stats.noninferiority import MARGIN

MIGRATE_GROUPS = {
    "Models": ("model", "max_concurrency", "max_wait"),
    "Budget": ("max_calls", "max_tokens", "max_cost", "time_limit", "price", *BATCH, "dry_run"),
    "Search": ("margin", "max_demos"),
    "Output": ("quiet", "db", "as_json"),
}


@click.command(cls=GroupedCommand, groups=MIGRATE_GROUPS, context_settings=SETTINGS)
@click.argument("prompt")
@click.option("-m", "--model", metavar="NAME", required=True, help="The model to migrate to.")
@click.option(
    "--max-calls",
    metavar="N",
    type=COUNT,
    default=CALLS,
    show_default=True,
    help="Cap on model calls, retries (not 429s) included, all roles together.",
)
@click.option("--max-tokens", metavar="N", type=COUNT, help="Cap on tokens in and out, all roles together.")
@click.option("--max-cost", metavar="USD", type=DOLLARS, help="Cap in US dollars, all roles together.")
@click.option("--time-limit", metavar="TIME", help="Cap on wall time, the sealed test included: 90, 5m or 1h30m.")
@click.option("--price", metavar="IN,OUT", help=PRICE_HELP)
@batch_options
@margin_option(100 * MARGIN, "The loss against the old model that you accept.")
@max_demos_option
@click.option("-j", "--max-concurrency", metavar="N", type=click.IntRange(1), help=CONCURRENCY_HELP)
@click.option("--max-wait", metavar="TIME", help=MAX_WAIT_HELP)
@click.option("--dry-run", is_flag=True, help="Print the priced plan; call nothing, connect to nothing.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@ledger_options
def migrate_command(
    prompt: str, model: str, dry_run: bool, quiet: bool, db: Path, as_json: bool, **options: Any
) -> None:
    """Make PROMPT, which was released for one model, a prompt for another one, in few calls.

    PROMPT is a prompt.md or its folder, NAME@LABEL, NAME@VERSION, or the id of a run. The prompts that its run tried
    are raced on the new model, and a few are made from the best. The sealed test then asks whether the new model loses
    less than --margin against the old one, whose replies to the same rows are in the ledger and are not bought again.
    Exit codes, resume and promotion are as of `optimize run`.
    """
    progress = Progress(quiet)
    words = migration_words(prompt, model, options, db)
    launch = prepare(words, db, NO_OBSERVER if as_json else progress)
    if dry_run:
        print_plan(launch, as_json)
        return
    with progress:
        result = start(launch, db, progress)
    print_run(result, db, as_json)
