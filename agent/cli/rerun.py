"""What runs a run again: `optimize reproduce` from its stored replies."""

from __future__ import annotations

from pathlib import Path

import click

from agent.cli.common import (
    SETTINGS,
    ledger_options,
    plain,
    print_json,
)


@click.command(context_settings=SETTINGS)
@click.argument("run", required=False, default="")
@click.option(
    "--offline",
    is_flag=True,
    default=True,
    show_default=True,
    help="From stored replies only; there is no other way yet.",
)
@ledger_options
def reproduce_command(run: str, offline: bool, db: Path, as_json: bool) -> None:
    """Make RUN (default: the latest) again from the stored replies, without a request, and report what drifted.

    Compared are every trial, the score of every row, the result and the released prompt. Of a comparison (`optimize
    customize`) each adapter is trained again, as long as it took then, and its file compared. Ends with 0 when all are
    the same, with 1 otherwise. Refuses when the task, its rows or the program changed since.
    """
    from agent.run.reproduce import reproduce

    result = reproduce(run, db, lambda line: click.echo(plain(line), err=True))
    if as_json:
        print_json(result.to_json())
    else:
        click.echo("".join(f"{plain(line)}\n" for line in result.drift), nl=False)
        count = len(result.drift)
        things = f"{count} thing{'s' * (count > 1)} drifted" if count else "the same"
        made = f"{result.trials} trials, {result.scores} scores"
        if result.trainings:
            made = f"{len(result.trainings)} trainings"
        click.echo(f"{result.run_id}: {things}: {made}, 0 requests")
    if result.drift:
        raise SystemExit(1)
