"""`optimize audit erase`: takes texts out of the ledger for good, and says where else they stand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.common import SETTINGS, db_option, json_option, plain, print_json
from agent.errors import InputError, LedgerError
from agent.run.locations import open_history

if TYPE_CHECKING:
    import sqlite3


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
    from agent.ledger.anchors import snapshot
    from agent.ledger.files import is_held, log_is_empty
    from agent.ledger.store import Ledger
    from agent.ledger.texts import events_with, kinds_of

    if not hashes and not containing:
        raise InputError("name what goes: --hash H (repeatable) or --containing TEXT")
    for option, words in (("--actor", actor), ("--reason", reason)):
        if not words.strip():
            raise InputError(f"{option} is empty; the ledger must say who erased and why")
        if containing and containing in words:
            raise InputError(f"{option} holds the very text that is to go, and would stay; say it without it")
    open_history(db).close()
    with snapshot(db) as connection:
        found = _named(connection, hashes, containing, db)
        kinds = kinds_of(connection, found)
        kept = events_with(connection, containing) if containing else []
    words = ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in kinds.items())
    if not as_json:
        click.echo(f"{len(found)} texts go for good: {words}" if found else "no text holds it", err=True)
    if found and not yes:
        click.confirm("erase them?", abort=True, err=True)
    if found or not (log_is_empty(db) or is_held(db)):  # what an earlier try erased may wait there to leave the file
        ledger = Ledger(db)
        try:
            ledger.erase(found, actor, reason)
        finally:
            ledger.close()
    left = _left(db, containing, kept)
    head = _still_whole(db)
    if as_json:
        print_json({"erased": found, "kinds": dict(kinds), "events": kept, "left": left, "head": head})
        return
    click.echo(f"erased {len(found)} texts; the ledger is whole, head {head}")
    for line in left:
        click.echo(f"still there: {plain(line)}", err=True)


def _named(db: sqlite3.Connection, hashes: tuple[str, ...], containing: str | None, path: Path) -> list[str]:
    """The texts that are meant, each once. Raises InputError for a hash that is none of them."""
    from agent.ledger.texts import texts_with

    for digest in hashes:
        if not db.execute("SELECT 1 FROM blobs WHERE hash = ?", (digest,)).fetchone():
            raise InputError(f"{digest}: no text of this hash in {path}; `optimize audit show` prints hashes")
    return list(dict.fromkeys([*hashes, *(texts_with(db, containing) if containing else ())]))


def _left(db: Path, containing: str | None, kept: list[int]) -> list[str]:
    """Where the text, or what was erased, can still be found, a line each."""
    from agent.ledger.files import log_is_empty, log_path
    from agent.ledger.texts import files_with, older_copies

    lines = []
    if kept:
        shown = ", ".join(map(str, kept[:20])) + (" ..." if len(kept) > 20 else "")
        lines.append(f"in the words of {len(kept)} events and their rows, which the chain covers: {shown}")
    if not log_is_empty(db):
        lines.append(f"{log_path(db)}: another process reads the ledger; end it, and run `optimize audit erase` again")
    copies = older_copies(db)
    lines += [f"{copy}: the ledger as it was before an update; delete it" for copy in copies]
    if containing:
        told = {*copies, db} if kept else {*copies}
        lines += [f"{path}: holds the text" for path in files_with(db.parent, containing) if path not in told]
    else:
        lines += [f"{path}: a bundle made before; delete it" for path in sorted(db.parent.glob("*.zip"))]
        lines += [f"{path}: a report made before; make it anew" for path in sorted(db.parent.glob("*/report.html"))]
    return lines


def _still_whole(db: Path) -> str:
    from agent.ledger.anchors import head_of, unchecked
    from agent.ledger.verify import verify

    with unchecked(db) as connection:
        head: Any = head_of(connection)[1]
        if findings := verify(connection):
            raise LedgerError(f"{db}: not whole: {findings[0]}; see `audit verify`")
    return str(head)
