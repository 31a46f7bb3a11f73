"""`optimize audit`: is the ledger whole, what does it say, and how is it taken out, noted elsewhere and cut."""

from __future__ import annotations

import json
from pathlib import Path

import click

from agent.cli.audit_check import check_command
from agent.cli.audit_erase import erase_command
from agent.cli.audit_views import lineage_command, show_command
from agent.cli.common import SETTINGS, db_option, json_option, plain, print_json
from agent.errors import InputError
from agent.finding import open_history


@click.group(context_settings=SETTINGS)
def audit_command() -> None:
    """Check, read, export and erase from the ledger: the record of every call, score and decision."""


@click.command(context_settings=SETTINGS)
@click.option("--anchor", help="A head that was noted elsewhere: the hash, or a file that holds it.")
@db_option
@json_option
def verify_command(anchor: str | None, db: Path, as_json: bool) -> None:
    """Check every byte that matters: structure, schema, the hash chain, each row and text against it.

    Prints `whole: N events, head HASH` and ends with 0, or each thing that does not hold, the first event first, and
    ends with 1 (with --json, `seq` 0 is the file as a whole). Releases, labels and reports beside the ledger name heads
    that it must have: an older copy in its place is found. The file of --anchor may be what `optimize audit anchor`
    wrote, a result of --json, or a released prompt.
    """
    from agent.run.auditing import verified

    found = verified(db, anchor)
    for note in found.notes:
        click.echo(f"note: {plain(note)}", err=True)
    if as_json:
        print_json(found.to_json())
    elif found.findings:
        click.echo("\n".join(plain(str(finding)) for finding in found.findings))
    else:
        click.echo(f"whole: {found.events} events, head {found.head}")
    if found.findings:
        raise SystemExit(1)


@click.command(context_settings=SETTINGS)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where to write it. Default: print it.")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@db_option
def anchor_command(output: Path | None, force: bool, db: Path) -> None:
    """Print the head of the chain as JSON, to keep where whoever can write the ledger cannot.

    The chain alone shows a change in its middle; who writes it all anew is shown by a head that was noted elsewhere:
    `optimize audit verify --anchor FILE`.
    """
    from agent.ledger.bundle import new_export
    from agent.run.auditing import anchored

    found = anchored(db)
    if output is None:
        print_json(found)
        return
    with new_export(output, force) as file:
        file.write((json.dumps(found, indent=2) + "\n").encode())
    click.echo(f"wrote {plain(str(output))}: event {found['seq']}, head {found['hash']}", err=True)


@click.command(context_settings=SETTINGS)
@click.argument("run", required=False, default="")
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "zip"]),
    default="jsonl",
    show_default=True,
    help="Every event as JSON lines, or a bundle with tables and texts that checks itself.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The file to write.")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@db_option
def export_command(run: str, form: str, output: Path, force: bool, db: Path) -> None:
    """Write every event of the ledger; with RUN, a zip holds only the rows and texts of that run.

    The chain is always whole, as it could not be checked in parts. `python FILE.zip` checks a bundle, without this
    program.
    """
    from agent.ledger.anchor import snapshot
    from agent.ledger.bundle import write_bundle, write_jsonl

    history = open_history(db)
    run_id = str(history.run(run)["id"]) if run else ""
    if output.is_dir():
        raise InputError(f"{output}: is a folder; name a file with -o")
    with snapshot(db) as connection:
        if form == "jsonl":
            click.echo(f"wrote {plain(str(output))}: {write_jsonl(connection, output, force)} events", err=True)
            return
        manifest = write_bundle(connection, output, force, run_id)
    counts, head = manifest["counts"], manifest["head"]["hash"]
    click.echo(
        f"wrote {plain(str(output))}: {counts['events']} events, {counts['texts']} texts, head {head}; "
        f"`python {plain(str(output))}` checks it",
        err=True,
    )


for command in (
    verify_command,
    show_command,
    lineage_command,
    export_command,
    anchor_command,
    check_command,
    erase_command,
):
    audit_command.add_command(command)
