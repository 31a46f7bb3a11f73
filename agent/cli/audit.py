"""`optimize audit` and `reproduce`: is the ledger whole, did a run measure what it says, and can it be made again?"""

from __future__ import annotations

import json
from pathlib import Path

import click

from agent.cli.audit_views import lineage_command, show_command
from agent.cli.common import SETTINGS, db_option, json_option, plain, print_json
from agent.cli.tables import print_table
from agent.errors import InputError
from agent.run.locations import open_history

SHOWN = 5  # findings of one check that the table has


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
    from agent.run.ledger_audit import verify_ledger

    found = verify_ledger(db, anchor)
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
    from agent.run.ledger_audit import anchor_ledger

    found = anchor_ledger(db)
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
    from agent.ledger.anchors import snapshot
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


@click.command(context_settings=SETTINGS)
@click.argument("run", required=False, default="")
@db_option
@json_option
def check_command(run: str, db: Path, as_json: bool) -> None:
    """Check RUN (default: the latest) for contamination, and whether its books add up.

    Contamination: demos or instructions that hold dev or test rows, a test that was opened twice. Books: scores without
    a reply, means, charges and caps that do not follow from the calls. Ends with 1 when anything does not hold. What
    needs the rows is left out (-) when the task is gone or its rows changed since.
    """
    from agent.run.ledger_audit import check_run

    history = open_history(db)
    found = history.run(run)
    done = check_run(history, found)
    holds = all(check.ok is not False for check in done)
    if as_json:
        listed = [{"check": check.name, "ok": check.ok, "found": list(check.found)} for check in done]
        print_json({"run_id": found["id"], "holds": holds, "checks": listed})
    else:
        words = {True: "ok", False: "PROBLEM", None: "-"}
        print_table(
            f"checks of {found['id']}",
            ("check", "ok", "found"),
            [(check.name, words[check.ok], _lines(check.found)) for check in done],
        )
    if not holds:
        raise SystemExit(1)


def _lines(found: tuple[str, ...]) -> str:
    more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return "; ".join([*found[:SHOWN], *more])


@click.command(context_settings=SETTINGS)
@click.option("--hash", "hashes", multiple=True, metavar="H", help="A text by its SHA-256; repeatable.")
@click.option("--containing", metavar="TEXT", help="Every text that holds TEXT, also where JSON writes it otherwise.")
@click.option("--actor", required=True, help="Who wants it; is recorded.")
@click.option("--reason", required=True, help="Why; is recorded.")
@click.option("--yes", is_flag=True, allow_from_autoenv=False, help="Do not ask.")
@db_option
@json_option
def erase_command(
    hashes: tuple[str, ...], containing: str | None, actor: str, reason: str, yes: bool, db: Path, as_json: bool
) -> None:
    """Erase prompts, requests and replies for good; the chain keeps their hashes, and who asked and why.

    A reply that is gone is bought again when it is needed. What rows and events say in their own words, such as an
    error message, cannot be erased, and is named.
    """
    from agent.run.ledger_audit import erase, prepare_erasure

    plan = prepare_erasure(hashes, containing, actor, reason, db)
    count = len(plan.texts)
    if not as_json:
        words = ", ".join(f"{number} {kind}{'s' if number > 1 else ''}" for kind, number in plan.kinds.items())
        click.echo(f"{count} texts go for good: {words}" if count else "no text holds it", err=True)
    if count and not yes:
        click.confirm("erase them?", abort=True, err=True)
    erased = erase(plan, actor, reason)
    if as_json:
        print_json(erased.to_json())
        return
    click.echo(f"erased {count} texts; the ledger is whole, head {erased.head}")
    for line in erased.left:
        click.echo(f"still there: {plain(line)}", err=True)


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
