"""`optimize ledger`: many ledgers in one, and finished runs in a team's ledger."""

from __future__ import annotations

import shlex
from contextlib import closing
from pathlib import Path

import click

from agent.cli.common import PATH, SETTINGS, json_option, ledger_options, plain, print_json
from agent.errors import AgentError
from agent.report.terminal import print_table
from agent.run.locations import ledger_option, open_history

URL_HELP = "postgresql://USER@HOST/NAME (the password in PGPASSWORD or ~/.pgpass) or sqlite:///FILE."


@click.group(context_settings=SETTINGS)
def ledger_command() -> None:
    """Merge ledgers into one that is only read; publish finished runs into a team's ledger, and check them there."""


@ledger_command.command(context_settings=SETTINGS)
@click.argument("ledgers", nargs=-1, required=True, metavar="A.db B.db ...", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="The merged ledger to write.")
@click.option("--force", is_flag=True, help="Write over a merged ledger that is there.")
@json_option
def merge_command(ledgers: tuple[Path, ...], output: Path, force: bool, as_json: bool) -> None:
    """Merge ledgers into one that is only read, with --db: by `history`, `show`, `report`, `compare`, `ui`, `audit`.

    Each ledger is verified first, and its chain is kept whole: `optimize audit verify --db TEAM.db` proves each on its
    own. A copy adds nothing; of one that went on by itself comes what is new. A run in two of them is taken from the
    one that has more of it, and refused where each has something of its own. A text that one of them erased is left
    out.
    """
    from agent.ledger.merge import merge_ledgers

    merged = merge_ledgers(ledgers, output, force)
    if as_json:
        print_json(merged.to_json())
        return
    rows = [(plain(name), chain, events, head) for name, chain, events, head in merged.sources]
    print_table(f"merged into {plain(str(output))}", ("source", "chain", "events", "head"), rows)
    click.echo(f"{merged.runs} runs, {merged.calls} calls, {merged.events} events in {merged.chains} chains; only read")


@ledger_command.command(context_settings=SETTINGS)
@click.argument("run")
@click.option("--to", "url", required=True, metavar="URL", help=f"The team's ledger: {URL_HELP}")
@click.option(
    "--texts", is_flag=True, help="Prompts, requests and replies, too. Without it: numbers, names and hashes."
)
@ledger_options
def publish_command(run: str, url: str, texts: bool, db: Path, as_json: bool) -> None:
    """Publish RUN, which has finished, into a team's ledger: its rows and its events with their hashes.

    One transaction: all of it stands there or nothing. Again is harmless; what was recorded about the run since comes
    in its place. Keep the digest that is printed: `optimize ledger verify --anchor DIGEST` shows a run that was made
    anew there.
    """
    from agent.ledger.team_store import publish

    with closing(open_history(db)) as history:
        published = publish(history, run, url, texts)
    print_json(published.to_json()) if as_json else click.echo(plain(published.line()))


@ledger_command.command(context_settings=SETTINGS)
@click.argument("run")
@click.option("--from", "url", required=True, metavar="URL", help=f"The team's ledger: {URL_HELP}")
@click.option(
    "--anchor", help="A digest that `publish` printed, or a head of the run's ledger in its release; or its file."
)
@json_option
def verify_command(run: str, url: str, anchor: str | None, as_json: bool) -> None:
    """Read RUN, by its whole id, back out of a team's ledger: check each event, row and text against its hash.

    Prints `whole: ...` and ends with 0, or each thing that does not hold and ends with 1.
    """
    from agent.ledger.anchors import noted_hash
    from agent.ledger.team_store import verify_published

    found = verify_published(url, run, noted_hash(anchor) if anchor is not None else None)
    if as_json:
        print_json(found.to_json())
    elif found.findings:
        click.echo("\n".join(plain(str(finding)) for finding in found.findings))
    else:
        click.echo(f"whole: {found.events} events, {found.rows} rows, {found.texts} texts, digest {found.digest}")
    if found.findings:
        raise SystemExit(1)


def require_database(url: str | None) -> None:
    """Raises InputError, before anything is spent, for a --ledger-url that names no database."""
    if url is not None:
        from agent.ledger.team_store import database

        database(url)


def publish_finished(url: str | None, run_id: str, db: Path) -> None:
    """Publishes a run that has just finished. What goes wrong is only said, with the command that repeats it."""
    if url is None:
        return
    from agent.ledger.team_store import publish
    from agent.redact import without_password

    try:
        with closing(open_history(db)) as history:
            click.echo(plain(publish(history, run_id, url).line()), err=True)
    except AgentError as error:
        again = f"optimize ledger publish {run_id} --to {shlex.quote(without_password(url))}{ledger_option(db)}"
        click.echo(f"not published: {plain(str(error))}\npublish it with: {plain(again)}", err=True)
