"""What a label means, what it meant before, and putting it back."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from agent.errors import InputError, LedgerBusy
from agent.release.labels import NAME, LabelChange, NeedsUnit, Reference, current, read_history, released_names
from agent.release.runtime import Prompt, load_prompt
from agent.run.locations import open_history, open_ledger, releases_folder

BUSY_AFTER = 1.0
"""Seconds; a rollback does not wait for a run to end."""


def roll_back(name: str, label: str, actor: str, reason: str, db: Path) -> tuple[LabelChange, str]:
    """Puts a label back to the version before, also without a ledger and while a run holds it.

    Args:
        name: of the releases.
        label: the label to put back.
        actor: who decides. "": the user of this machine.
        reason: why; kept in the history.
        db: the ledger.

    Returns:
        The change, and why it is not in the chain yet; "" when it is.
    """
    from agent.ledger.provenance import user
    from agent.release.promotion import ReleaseRegistry

    registry, actor, reason = ReleaseRegistry(releases_folder(db)), actor or user(), reason.strip()
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


def meaning(reference: str, unit: str | None, db: Path) -> Prompt:
    """The prompt that NAME@LABEL or NAME@VERSION means now (NAME: its production), read from the files alone.

    `unit` is what an A/B label buckets. Raises InputError where it is missing, or the reference is none.
    """
    wanted = reference if "@" in reference else f"{reference}@production"
    if Reference.of(wanted) is None:
        raise InputError(f"{reference}: write NAME@LABEL or NAME@VERSION; `optimize labels` lists them")
    try:
        return load_prompt(wanted, root=releases_folder(db), unit=unit)
    except NeedsUnit:
        raise InputError(f"{wanted} is an A/B label: say whom it is for with --unit ID") from None


def meanings(db: Path) -> tuple[Path, list[LabelChange]]:
    """The registry, and what every label in it means now."""
    root = releases_folder(db)
    return root, [change for name in released_names(root) for change in current(read_history(root / name)).values()]


def changes_of(name: str, db: Path) -> list[LabelChange]:
    """Each change that was ever made to a label of this name, oldest first and checked as a whole."""
    root = releases_folder(db)
    names = released_names(root)
    if not NAME.fullmatch(name) or name not in names:
        raise InputError(f"{name}: no releases of this name in {root}; here are: {', '.join(names) or 'none'}")
    return read_history(root / name)
