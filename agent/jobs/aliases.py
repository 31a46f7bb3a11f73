"""What aliases of released prompts mean: put back, loaded and listed. Calls no model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

from agent.errors import InputError, LedgerBusy
from agent.jobs.locations import open_history, open_ledger, releases_folder
from agent.jobs.promote import ACTOR, REASON
from agent.jobs.registry import DB, Printed, job
from agent.ledger.provenance import user
from agent.options.option import option
from agent.release.aliases import NAME, AliasChange, NeedsUnit, Reference, current, read_history, released_names
from agent.release.export import export_markdown, export_messages
from agent.release.promotion import ReleaseRegistry
from agent.release.runtime import Prompt, load_prompt
from agent.report.blocks import short
from agent.report.facts import gain, points
from agent.report.terminal import print_table, say

BUSY_AFTER = 1.0
"""Seconds; a rollback does not wait for a run to end."""


@job("rollback")
def rollback(
    name: str,
    *,
    alias: str = option("production", "The alias to put back."),
    reason: str = REASON,
    actor: str = ACTOR,
    db: Path = DB,
) -> Printed:
    """Put an alias of NAME back to the version before; again, and it goes back one more.

    The history grows by a line and is never rewritten. It works at once, also without a ledger and while a run holds
    it: the chain then takes the change in with the next run, promote or rollback.
    """
    registry, late = ReleaseRegistry(releases_folder(db)), ""
    note = {"actor": actor or user(), "reason": reason.strip()}
    if not db.is_file():
        change, late = registry.rollback(name, alias, None, **note), f"{db}: no ledger here"
    else:
        try:
            with closing(open_ledger(db, BUSY_AFTER)) as ledger:
                change = registry.rollback(name, alias, ledger, **note)
        except LedgerBusy:
            with closing(open_history(db)) as history:
                change = registry.rollback(name, alias, history, **note)
            late = f"{db}: another process writes to the ledger"
    share = "" if change.share is None else f" for {100 * change.share:g} % of the units"
    said = f"{name}@{alias} is {change.version} again{share}; before: {change.before}"
    notes = [f"{late}; the change goes into its chain with the next run, promote or rollback"] * bool(late)
    return Printed({**change.as_dict(), "in_chain": not late}, lambda: say(said), notes=notes)


@job("load")
def load(
    reference: Annotated[str, "NAME[@ALIAS|@VERSION]"],
    *,
    unit: str | None = option(None, "Whom an A/B alias buckets.", metavar="ID"),
    db: Path = DB,
) -> Printed:
    """Print the prompt that NAME@ALIAS or NAME@VERSION means now (default: @production), read from the files alone.

    Of a version that is no prompt it says what it is and how a program loads it, and ends with 1.

    --json has the release with its provenance, and the history of its aliases.
    """
    prompt = prompt_named(reference, unit, db)
    history = [change.as_dict() for change in read_history(releases_folder(db) / prompt.name)]
    named = {"alias": prompt.alias or None, "arm": prompt.arm or None}
    found = {**named, **json.loads(export_messages(prompt.release)), "history": history}
    return Printed(found, exact=export_markdown(prompt.release))


def prompt_named(reference: str, unit: str | None, db: Path) -> Prompt:
    """The prompt that NAME@ALIAS or NAME@VERSION means now (NAME: its production), read from the files alone.

    `unit` is what an A/B alias buckets. Raises InputError where it is missing, or the reference is none.
    """
    wanted = reference if "@" in reference else f"{reference}@production"
    if Reference.of(wanted) is None:
        raise InputError(f"{reference}: write NAME@ALIAS or NAME@VERSION; `optimize aliases` lists them")
    try:
        return load_prompt(wanted, root=releases_folder(db), unit=unit)
    except NeedsUnit:
        raise InputError(f"{wanted} is an A/B alias: say whom it is for with --unit ID") from None


@job("aliases")
def aliases(name: str = "", *, db: Path = DB) -> Printed:
    """List what every alias means now; with NAME, each change that was ever made, oldest first.

    Each line of a history is checked: it holds the hash of the line before.
    """
    root = releases_folder(db)
    names = released_names(root)
    if not name:
        now = [change for each in names for change in current(read_history(root / each)).values()]
        heads = [f"{change.name}@{change.alias}" for change in now]
        return Printed(
            {"aliases": [change.as_dict() for change in now]},
            lambda: _print_changes(heads, now, f"aliases in {root}"),
        )
    if not NAME.fullmatch(name) or name not in names:
        raise InputError(f"{name}: no releases of this name in {root}; here are: {', '.join(names) or 'none'}")
    history = read_history(root / name)
    latest = {alias: change.as_dict() for alias, change in current(history).items()}
    heads = [f"{change.seq} {change.alias}" for change in history]
    return Printed(
        {"name": name, "aliases": latest, "history": [change.as_dict() for change in history]},
        lambda: _print_changes(heads, history, f"{name}: every change of an alias"),
    )


def _print_changes(heads: Sequence[str], changes: Sequence[AliasChange], title: str) -> None:
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
    print_table(title, ["alias", "version", "when (UTC)", "how", "who", "on what", "why"], rows)


def _evidence(evidence: Any) -> str:
    if "undoes" in evidence:
        return f"undoes {evidence['undoes']}"
    claim = f" {evidence['claim']}" if "claim" in evidence else ""
    over = ", overridden" if evidence.get("overridden") else ""
    lift = evidence.get("lift") or {}
    method = f" {evidence['method']} {points(evidence['test'])}" if "method" in evidence else ""
    diff = f" {gain(lift['diff'])}" if "diff" in lift else ""
    return f"{evidence.get('run_id', '')}{method}{diff}{claim}{over}"
