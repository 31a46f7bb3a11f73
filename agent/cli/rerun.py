"""What runs a run again: `optimize reproduce` from its stored replies, `transfer` on other models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.common import (
    SETTINGS,
    ledger_options,
    plain,
    print_json,
    print_result,
)
from agent.cli.declared import command
from agent.cli.progress import run_shown
from agent.options.jobs import TransferOptions
from agent.options.shared import ShownOptions

if TYPE_CHECKING:
    pass


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


@command(TransferOptions, ShownOptions, models={"required": True})
@click.argument("run")
def transfer_command(options: TransferOptions, output: ShownOptions, run: str) -> None:
    """Score the best prompts of RUN, and your own, on other models over the same dev rows, and show the matrix.

    Only candidates that saw the whole of dev take part. The run's own model comes first, with the scores of the run;
    these prompts were chosen by them, so they flatter. Calls that the ledger holds are not made again. The sealed test
    is not touched.
    """
    from agent.run.launch import silence
    from agent.run.model_transfer import prepare_transfer

    silence()
    job = prepare_transfer(run, options, output.db)
    result = run_shown(job, options, output, "scoring prompts on other models")
    print_result(result, output.as_json)
