"""`optimize load`, `rollback` and `labels`: what a label means, what it meant before, and putting it back."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.common import (
    SETTINGS,
    db_option,
    deciding_options,
    json_option,
    plain,
    print_json,
    short,
)
from agent.cli.tables import print_table
from agent.errors import InputError, LedgerBusy
from agent.ledger.origin import user
from agent.run.locations import open_history, open_ledger, releases_folder

if TYPE_CHECKING:
    from agent.release.labels import LabelChange
    from agent.release.promotion import ReleaseRegistry

BUSY_AFTER = 1.0  # seconds; a rollback does not wait for a run to end


@click.command(context_settings=SETTINGS)
@click.argument("name")
@click.option("--label", default="production", show_default=True, help="The label to put back.")
@deciding_options
@db_option
@json_option
def rollback_command(name: str, label: str, reason: str, actor: str, db: Path, as_json: bool) -> None:
    """Put a label of NAME back to the version before; again, and it goes back one more.

    The history grows by a line and is never rewritten. It works at once, also without a ledger and while a run holds
    it: the chain then takes the change in with the next run, promote or rollback.
    """
    from agent.release.promotion import ReleaseRegistry

    registry = ReleaseRegistry(releases_folder(db))
    change, late = _roll_back(registry, db, name, label, actor or user(), reason.strip())
    if as_json:
        print_json({**change.as_dict(), "in_chain": not late})
        return
    share = "" if change.share is None else f" for {100 * change.share:g} % of the units"
    click.echo(f"{name}@{label} is {change.version} again{share}; before: {change.before}")
    if late:
        click.echo(f"{late}; the change goes into its chain with the next run, promote or rollback", err=True)


def _roll_back(
    registry: ReleaseRegistry, db: Path, name: str, label: str, actor: str, reason: str
) -> tuple[LabelChange, str]:
    """The change, and why it is not in the chain yet ("" when it is)."""
    if not db.is_file():
        return registry.rollback(name, label, None, actor=actor, reason=reason), f"{db}: no ledger here"
    try:
        ledger = open_ledger(db, BUSY_AFTER)
    except LedgerBusy:
        with closing(open_history(db)) as history:
            change = registry.rollback(name, label, history, actor=actor, reason=reason)
        return change, f"{db}: another process writes to the ledger"
    with closing(ledger):
        return registry.rollback(name, label, ledger, actor=actor, reason=reason), ""


@click.command(context_settings=SETTINGS)
@click.argument("reference", metavar="NAME[@LABEL|@VERSION]")
@click.option("--unit", help="Whom an A/B label buckets.")
@db_option
@json_option
def load_command(reference: str, unit: str | None, db: Path, as_json: bool) -> None:
    """Print the prompt that NAME@LABEL or NAME@VERSION means now (default: @production), read from the files alone.

    --json has the release with its provenance, and the history of its labels.
    """
    from agent.release.export import export_markdown, export_messages
    from agent.release.labels import NeedsUnit, Reference, read_history
    from agent.release.runtime import load_prompt

    wanted = reference if "@" in reference else f"{reference}@production"
    found = Reference.of(wanted)
    if found is None:
        raise InputError(f"{reference}: write NAME@LABEL or NAME@VERSION; `optimize labels` lists them")
    root = releases_folder(db)
    try:
        prompt = load_prompt(wanted, root=root, unit=unit)
    except NeedsUnit:
        raise InputError(f"{wanted} is an A/B label: say whom it is for with --unit ID") from None
    if as_json:
        history = [change.as_dict() for change in read_history(root / found.name)]
        told = {"label": prompt.label or None, "arm": prompt.arm or None}
        print_json({**told, **json.loads(export_messages(prompt.release)), "history": history})
        return
    text = export_markdown(prompt.release)
    # exact bytes in a pipe, harmless on a terminal
    click.echo(plain(text) if sys.stdout.isatty() else text.encode("utf-8"), nl=False)


@click.command(context_settings=SETTINGS)
@click.argument("name", required=False, default="")
@db_option
@json_option
def labels_command(name: str, db: Path, as_json: bool) -> None:
    """List what every label means now; with NAME, each change that was ever made, oldest first.

    Each line of a history is checked: it holds the hash of the line before.
    """
    from agent.release.labels import NAME, current, read_history, released_names

    root = releases_folder(db)
    names = released_names(root)
    if not name:
        rows = [change for each in names for change in current(read_history(root / each)).values()]
        if as_json:
            print_json({"labels": [change.as_dict() for change in rows]})
        else:
            _print_changes([f"{change.name}@{change.label}" for change in rows], rows, f"labels in {root}")
        return
    if not NAME.fullmatch(name) or name not in names:
        raise InputError(f"{name}: no releases of this name in {root}; here are: {', '.join(names) or 'none'}")
    history = read_history(root / name)
    if as_json:
        labels = {label: change.as_dict() for label, change in current(history).items()}
        print_json({"name": name, "labels": labels, "history": [change.as_dict() for change in history]})
        return
    _print_changes([f"{change.seq} {change.label}" for change in history], history, f"{name}: every change of a label")


def _print_changes(heads: list[str], changes: list[LabelChange], title: str) -> None:
    rows = [
        [
            head,
            change.version + ("" if change.share is None else f" for {change.share:.0%}"),
            change.utc[:19],
            change.action,
            change.actor,
            _evidence(change.evidence),
            short(change.reason, 60),
        ]
        for head, change in zip(heads, changes, strict=True)
    ]
    print_table(title, ["label", "version", "when (UTC)", "how", "who", "on what", "why"], rows)


def _evidence(evidence: Any) -> str:
    if "undoes" in evidence:
        return f"undoes {evidence['undoes']}"
    claim = f" {evidence['claim']}" if "claim" in evidence else ""
    over = ", overridden" if evidence.get("overridden") else ""
    lift = evidence.get("lift") or {}
    points = f" {100 * lift['diff']:+.1f}" if "diff" in lift else ""
    return f"{evidence.get('run_id', '')}{points}{claim}{over}"
