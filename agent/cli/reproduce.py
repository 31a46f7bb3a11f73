"""`optimize reproduce`: makes a run again from the replies in the ledger, in a copy, and compares. Sends nothing."""

from __future__ import annotations

from pathlib import Path

import click

from agent.cli.common import SETTINGS, db_option, json_option, plain, print_json


@click.command(context_settings=SETTINGS)
@click.argument("run", required=False, default="")
@click.option("--offline", is_flag=True, default=True, help="From stored replies only; there is no other way yet.")
@db_option
@json_option
def reproduce_command(run: str, offline: bool, db: Path, as_json: bool) -> None:
    """Make RUN (default: the latest) again from the stored replies, without a request, and report what drifted.

    Compared are every trial, the score of every row, the result and the released prompt. Ends with 0 when all are the
    same, with 1 otherwise. Refuses when the task, its rows or the program changed since.
    """
    from agent.run.reproduce import reproduce

    found = reproduce(run, db)
    if as_json:
        print_json(found.to_json())
    else:
        click.echo("".join(f"{plain(line)}\n" for line in found.drift), nl=False)
        count = len(found.drift)
        things = f"{count} thing{'s' * (count > 1)} drifted" if count else "the same"
        click.echo(f"{found.run_id}: {things}: {found.trials} trials, {found.scores} scores, 0 requests")
    if found.drift:
        raise SystemExit(1)
