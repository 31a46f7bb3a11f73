"""`optimize load`, `rollback` and `labels`: what a label means, what it meant before, and putting it back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.common import (
    SETTINGS,
    db_option,
    deciding_options,
    json_option,
    print_exactly,
    print_json,
    short,
)
from agent.cli.tables import print_table
from agent.finding import releases_folder

if TYPE_CHECKING:
    from agent.release.labels import Change


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
    from agent.run.labelling import roll_back

    change, late = roll_back(name, label, actor, reason, db)
    if as_json:
        print_json({**change.as_dict(), "in_chain": not late})
        return
    share = "" if change.share is None else f" for {100 * change.share:g} % of the units"
    click.echo(f"{name}@{label} is {change.version} again{share}; before: {change.before}")
    if late:
        click.echo(f"{late}; the change goes into its chain with the next run, promote or rollback", err=True)


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
    from agent.release.labels import read_history
    from agent.run.labelling import meaning

    prompt = meaning(reference, unit, db)
    if as_json:
        history = [change.as_dict() for change in read_history(releases_folder(db) / prompt.name)]
        named = {"label": prompt.label or None, "arm": prompt.arm or None}
        print_json({**named, **json.loads(export_messages(prompt.release)), "history": history})
        return
    print_exactly(export_markdown(prompt.release))


@click.command(context_settings=SETTINGS)
@click.argument("name", required=False, default="")
@db_option
@json_option
def labels_command(name: str, db: Path, as_json: bool) -> None:
    """List what every label means now; with NAME, each change that was ever made, oldest first.

    Each line of a history is checked: it holds the hash of the line before.
    """
    from agent.release.labels import current
    from agent.run.labelling import changes_of, meanings

    if not name:
        root, rows = meanings(db)
        if as_json:
            print_json({"labels": [change.as_dict() for change in rows]})
        else:
            _print_changes([f"{change.name}@{change.label}" for change in rows], rows, f"labels in {root}")
        return
    history = changes_of(name, db)
    if as_json:
        labels = {label: change.as_dict() for label, change in current(history).items()}
        print_json({"name": name, "labels": labels, "history": [change.as_dict() for change in history]})
        return
    _print_changes([f"{change.seq} {change.label}" for change in history], history, f"{name}: every change of a label")


def _print_changes(heads: list[str], changes: list[Change], title: str) -> None:
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
