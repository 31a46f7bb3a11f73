"""Resolve names and paths: the ledger, the registry next to it, a released prompt and its records."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

from agent.errors import InputError
from agent.ledger.connect import LEDGER as LEDGER
from agent.ledger.connect import is_there, require_file
from agent.ledger.connect import ledger_option as ledger_option
from agent.ledger.query import History, history_of, released_file
from agent.release.aliases import ROOT_VARIABLE, NeedsUnit, Reference, resolve
from agent.release.prompt_file import PROMPT_FILE
from agent.release.runtime import load_prompt
from agent.release.texts import TEXTS_FILE, load_texts
from agent.release.versions import is_version
from agent.report.wording import without_result


def open_history(db: Path, by_chain: bool = False) -> History:
    """Open the ledger for reading; `by_chain` verifies all of it instead of the seal."""
    require_file(db)
    if not is_there(db):
        raise InputError(f"{db}: no ledger here yet; `optimize TASK` makes one, or name another with --db")
    return history_of(db, by_chain)


def calls_seen(db: Path, task: str, model: str) -> float | None:
    """Return the calls per row in the task's latest search; None without one."""
    if not is_there(db):
        return None
    with closing(open_history(db)) as history:
        return history.calls_a_row(task, model)


def releases_folder(db: Path) -> Path:
    """Return the registry folder: PROMPTASSAY_RELEASES, else next to the ledger."""
    own = os.environ.get(ROOT_VARIABLE)
    return Path(own) if own else db.parent / "releases"


def prompt_path(word: str, db: Path) -> Path:
    """Return the file of a path or folder, NAME@ALIAS, NAME@VERSION, or run id.

    It is a prompt, or the texts of the user's own program.
    """
    path = Path(word)
    if os.path.isdir(path):
        path = path / (TEXTS_FILE if os.path.exists(path / TEXTS_FILE) else PROMPT_FILE)
        if not os.path.exists(path):
            raise InputError(f"{path}: no such file; released prompts are in runs/RUN")
    if os.path.exists(path):
        return path
    if (reference := Reference.of(word)) is not None:
        root = releases_folder(db)
        try:
            is_texts = resolve(root, reference).version.startswith("t")
            version = (load_texts if is_texts else load_prompt)(word, root=root).version
        except NeedsUnit:
            raise InputError(
                f"{word}: an A/B alias stands for two versions; name one of them, NAME@VERSION, as "
                f"`optimize aliases {reference.name}` lists them"
            ) from None
        return root / reference.name / version / (TEXTS_FILE if is_texts else PROMPT_FILE)
    if path.suffix or len(path.parts) > 1 or not db.is_file():
        raise InputError(f"{word}: no such file; give the path of a prompt.md, NAME@ALIAS, or the id of a run (--db)")
    with closing(open_history(db)) as history:
        run = history.run(word)
    released = released_file(run, db)
    if released is None:
        raise InputError(f"{run['id']}: {without_result(run)}, so it names no release")
    if not is_version(released):
        raise InputError(f"{run['id']}: a run of your program; only prompts and texts can be checked")
    return released
