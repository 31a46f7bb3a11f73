"""`optimize bless`: what a released prompt answers now becomes the reference of later checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agent.cli.common import (
    SETTINGS,
    db_option,
    json_option,
    plain,
    print_json,
    score,
)
from agent.cli.errands import cost_line, run_errand, spending_options
from agent.launch import silence


@click.command(context_settings=SETTINGS)
@click.argument("prompt")
@click.option("--reason", required=True, help="Why these answers are right to compare with; kept in the ledger.")
@click.option("--actor", default="", help="Who decides. Default: the user of this machine.")
@click.option("-m", "--model", help="The model to ask. Default: the one of the suite, else that of the prompt.")
@click.option("--judge", multiple=True, help="The model that judges; repeat it for a panel. Default: as before.")
@click.option("--task", help="Take the dev rows of this task; without it the suite's rows stay, if there is a suite.")
@click.option("--suite", type=click.Path(path_type=Path), help="Where to keep it. Default: suite.json beside PROMPT.")
@click.option("--limit", type=click.IntRange(1), help="Take the first so many rows.")
@click.option("--repeats", type=click.IntRange(1, 5), default=3, show_default=True, help="How often each row is asked.")
@spending_options
@db_option
@json_option
def bless_command(
    prompt: str,
    reason: str,
    actor: str,
    model: str | None,
    judge: tuple[str, ...],
    task: str | None,
    suite: Path | None,
    limit: int | None,
    repeats: int,
    db: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Record what a released PROMPT answers now as the reference of `optimize check`, in suite.json beside it.

    The reason goes into the ledger's chain. The rows are those of the suite that is there, else the dev rows of the
    prompt's task; never those of the sealed test. Asked more than once, the answers also say what is repeat noise.
    """
    from agent.run.bless import blessing

    silence()
    ready = blessing(prompt, reason, actor, model, judge, task, suite, limit, repeats, options, db)
    told = run_errand(ready, options, db, bool(options["quiet"] or as_json))
    if as_json:
        print_json(told)
        return
    click.echo(report(told))


def report(told: dict[str, Any]) -> str:
    """What was recorded, for people."""
    low, high = told["score"]["ci95"] or (None, None)
    rows = f"{told['rows']} rows, {told['repeats']} times each, {told['unanswered']} without an answer"
    lines = [
        plain(f"recorded: {told['path']} ({told['suite']}, before: {told['before'] or 'none'})"),
        plain(f"{told['name']} {told['version']} on {told['model']}: {rows}"),
        f"score: {score(told['score']['mean'])} (95 % CI {score(low)} to {score(high)})",
        cost_line(told),
    ]
    return "\n".join(lines)
