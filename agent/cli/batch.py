"""`optimize batch`: the batches of calls that go on at providers, and their cancellation."""

from __future__ import annotations

from dataclasses import asdict
from operator import attrgetter
from pathlib import Path

import click

from agent.cli.common import SETTINGS, ledger_options, plain, print_json
from agent.report.blocks import Column
from agent.report.terminal import print_table

COLUMNS = (
    Column("run"),
    Column("batch"),
    Column("at the provider"),
    Column("model", rank=2, floor=12),
    Column("calls"),
    Column("$ at most", rank=1),
    Column("since", rank=3),
    Column("state"),
)


@click.group(context_settings=SETTINGS)
def batch_command() -> None:
    """Batches of calls at providers, as `--batch` sends them: list them, cancel those of a run."""


@batch_command.command("list", context_settings=SETTINGS)
@click.argument("run", required=False, default="")
@click.option("--all", "ended", is_flag=True, help="Also those that have ended.")
@ledger_options
def list_command(run: str, ended: bool, db: Path, as_json: bool) -> None:
    """List the batches (of RUN) that are not known to have ended. Nobody is asked: it is what the ledger has."""
    from agent.run.batches import list_batches

    found = list_batches(db, run, ended)
    if as_json:
        print_json({"batches": [asdict(each) for each in found]})
        return
    shown = attrgetter("run_id", "name", "job", "model", "calls")
    rows = [(*shown(each), f"{each.reserved_usd:.4f}", each.since_utc[:16], each.state) for each in found]
    print_table("batches", COLUMNS, rows)


@batch_command.command("cancel", context_settings=SETTINGS)
@click.argument("run")
@ledger_options
def cancel_command(run: str, db: Path, as_json: bool) -> None:
    """Ask the providers to end the batches of RUN. What is answered by then is paid, and the run takes it when it goes
    on; the rest goes one by one then, or with --batch-only stays without an answer."""
    from agent.run.batches import NOT_CANCELLED, cancel_batches

    cancelled = cancel_batches(run, db)
    if as_json:
        print_json({"cancelled": cancelled})
    else:
        for each in cancelled:
            click.echo(plain(f"{each['name']} ({each['job'] or 'no id'}): {each['status']}"))
    if any(each["status"].startswith(NOT_CANCELLED) for each in cancelled):
        raise SystemExit(1)
