"""Finding what a word or a path means: the ledger, the registry beside it, tasks by name."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import InputError, LedgerBusy

if TYPE_CHECKING:
    from agent.ledger.query import History
    from agent.ledger.store import Ledger

LEDGER = Path("runs/ledger.db")
"""Where it is looked for when none is named."""
SAMPLES = Path(__file__).parents[1] / "samples"
"""The tasks that ship with the package."""


def open_history(db: Path, by_chain: bool = False) -> History:
    """The ledger to read. One of an older version is brought up to date first, and a copy of it kept.

    `by_chain`: its seal is not enough, all of it is checked.
    """
    from agent.ledger.connect import is_there
    from agent.ledger.query import history_of

    if not is_there(db):
        raise InputError(f"{db}: no ledger here yet; `optimize TASK` makes one, or name another with --db")
    return history_of(db, by_chain)


def releases_folder(db: Path) -> Path:
    """The registry: where PROMPTASSAY_RELEASES says, as at run time, else beside the ledger."""
    from agent.release.labels import ROOT_VARIABLE

    own = os.environ.get(ROOT_VARIABLE)
    return Path(own) if own else db.parent / "releases"


def open_ledger(db: Path, patience: float = 10.0) -> Ledger:
    """The ledger to write to, after a wait for a process that has it. Raises LedgerBusy when that takes longer."""
    from agent.ledger.store import Ledger

    end = time.monotonic() + patience
    while True:
        try:
            return Ledger(db)
        except LedgerBusy:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def task_named(name: str) -> Path:
    """The folder under tasks/ of a name that stands in a file, which may come from elsewhere: never taken as a path."""
    from agent.release.labels import NAME
    from agent.task.words import printable

    folder = Path("tasks") / name
    if NAME.fullmatch(name) and (folder / "task.toml").is_file():
        return folder
    raise InputError(f"{printable(name)}: no task of this name under tasks/; name the task that you mean with --task")


def find_task(name: str) -> Path:
    """A folder by path, or by name under tasks/."""
    for place in (Path(name), Path("tasks") / name):
        if (place / "task.toml").is_file():
            return place
    from agent.task.words import closest

    known = tasks_here()
    near = closest(name, known)
    hint = f"did you mean {near}" if near else f"tasks here: {', '.join(known) or 'none'}"
    more = f"`optimize init --sample {name}` copies it here" if name in samples() else "`optimize init` makes a new one"
    raise InputError(f"{name}: no task of this name and no folder with a task.toml; {hint}; {more}")


def tasks_here() -> list[str]:
    """The names of the tasks under tasks/."""
    return sorted(path.parent.name for path in Path("tasks").glob("*/task.toml"))


def samples() -> list[str]:
    """The names of the tasks that ship with the package."""
    return sorted(path.parent.name for path in SAMPLES.glob("*/task.toml"))
