"""`optimize load`, `rollback` and `aliases`: the versions behind names, read from files."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict

from agent.errors import InputError, LedgerBusy
from agent.jobs.locations import open_history, releases_folder
from agent.jobs.registry import DB, Printed, job
from agent.ledger.provenance import user
from agent.ledger.store import open_ledger
from agent.options.option import option
from agent.release.aliases import NAME, NeedsUnit, Reference, current, read_history, released_names
from agent.release.export import export_markdown, export_messages
from agent.release.promotion import ReleaseRegistry
from agent.release.runtime import Prompt, load_prompt
from agent.report.aliases import AliasesResult, MovedAlias, NameHistory, Rollback, moved
from agent.results.base import Result

ACTOR: Any = option("", "Who decides. Default: the user of this machine.")
REASON: Any = option("", "Why; kept in the history and in the ledger's chain.")
BUSY_AFTER = 1.0
"""Seconds; a rollback does not wait for a run to end."""


@job("rollback")
def rollback(
    name: str,
    *,
    alias: str = option("production", "The alias to roll back."),
    reason: str = REASON,
    actor: str = ACTOR,
    db: Path = DB,
) -> Printed[Rollback]:
    """Point an alias of NAME back to its previous version; repeat to go back further.

    The history gets a new line and is never rewritten. A rollback works at once, also without a ledger and while a run
    holds it: the next run, promote or rollback then adds the change to the audit chain.
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
    notes = [f"{late}; the change goes into its chain with the next run, promote or rollback"] * bool(late)
    return Printed(Rollback(**change.as_dict(), in_chain=not late), notes=notes)


class LoadedPrompt(Result):
    """The prompt behind an alias, as in messages.json, and the history of its name's aliases."""

    model_config = ConfigDict(extra="allow")
    alias: str | None
    arm: str | None
    name: str
    version: str
    history: tuple[MovedAlias, ...]


@job("load")
def load(
    reference: Annotated[str, "NAME[@ALIAS|@VERSION]"],
    *,
    unit: str | None = option(None, "The unit of an A/B alias, such as a user id.", metavar="ID"),
    db: Path = DB,
) -> Printed[LoadedPrompt]:
    """Print the prompt behind NAME@ALIAS or NAME@VERSION (default: @production), read from files alone.

    If the version is not a prompt, prints what it is and how a program loads it, and exits with 1.

    --json prints the release with its provenance, and the history of its aliases.
    """
    prompt = prompt_named(reference, unit, db)
    history = moved(read_history(releases_folder(db) / prompt.name))
    named: dict[str, Any] = {"alias": prompt.alias or None, "arm": prompt.arm or None, "history": history}
    found = LoadedPrompt(**named, **json.loads(export_messages(prompt.release)))
    return Printed(found, exact=export_markdown(prompt.release))


def prompt_named(reference: str, unit: str | None, db: Path) -> Prompt:
    """Return the prompt behind NAME@ALIAS or NAME@VERSION (NAME: its production), read from files alone.

    An A/B alias assigns each `unit` to a version. Raises InputError if it is missing or the reference is unknown.
    """
    wanted = reference if "@" in reference else f"{reference}@production"
    if Reference.of(wanted) is None:
        raise InputError(f"{reference}: write NAME@ALIAS or NAME@VERSION; `optimize aliases` lists them")
    try:
        return load_prompt(wanted, root=releases_folder(db), unit=unit)
    except NeedsUnit:
        raise InputError(f"{wanted} is an A/B alias: say whom it is for with --unit ID") from None


@job("aliases")
def aliases(name: str = "", *, db: Path = DB) -> AliasesResult | NameHistory:
    """List the version behind every alias; with NAME, every change, oldest first.

    Each line of a history is verified: it holds the hash of the line before.
    """
    root = releases_folder(db)
    names = released_names(root)
    if not name:
        now = [change for each in names for change in current(read_history(root / each)).values()]
        return AliasesResult(aliases=moved(now), root=root)
    if not NAME.fullmatch(name) or name not in names:
        raise InputError(f"{name}: no releases of this name in {root}; here are: {', '.join(names) or 'none'}")
    history = read_history(root / name)
    latest = dict(zip(current(history), moved(current(history).values()), strict=True))
    return NameHistory(name=name, aliases=latest, history=moved(history))
