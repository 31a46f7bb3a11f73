"""Resolve names and paths: the ledger, the registry next to it, a released prompt and its records."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

from agent.errors import InputError, LedgerBusy
from agent.jobs.tasks import find_task, task_named, task_of
from agent.ledger.connect import LEDGER as LEDGER
from agent.ledger.connect import is_there, require_file
from agent.ledger.connect import ledger_option as ledger_option
from agent.ledger.query import History, Row, history_of, released_file, started_with
from agent.ledger.store import Ledger
from agent.models.model_registry import leads_elsewhere
from agent.options.run import RecordedOptions
from agent.release.aliases import ROOT_VARIABLE, NeedsUnit, Reference, resolve
from agent.release.prompt_file import PROMPT_FILE
from agent.release.runtime import Prompt, load_prompt
from agent.release.texts import TEXTS_FILE, Loaded, load_texts
from agent.release.versions import is_version
from agent.report.wording import without_result
from agent.safe_text import printable
from agent.task.examples import PLAYED
from agent.task.load import load_task
from agent.types import Task


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


def open_ledger(db: Path, patience: float = 10.0) -> Ledger:
    """Open the ledger for writing, after at most `patience` seconds of waiting. Raises LedgerBusy."""
    end = time.monotonic() + patience
    while True:
        try:
            return Ledger(db)
        except LedgerBusy:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


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
    run = _run(word, db)
    released = released_file(run, db)
    if released is None:
        raise InputError(f"{run['id']}: {without_result(run)}, so it names no release")
    if not is_version(released):
        raise InputError(f"{run['id']}: a run of your program; only prompts and texts can be checked")
    return released


def _run(run_id: str, db: Path) -> Row:
    with closing(open_history(db)) as history:
        return history.run(run_id)


def task_for(prompt: Loaded, name: str | None, db: Path) -> Task:
    """Return a prompt's task: the named one, its run's, or that of its name."""
    if name:
        task = load_task(find_task(name))
    elif options := run_options(prompt, db):
        task = task_of(options)
        task = replace(task, judges=tuple(options.judge or task.judges))
    else:
        task = load_task(task_named(prompt.name))
    wanted, has = set(prompt.release.inputs), {field.name for field in task.signature.inputs}
    if wanted != has:
        needs = ", ".join(sorted(wanted)) or "none"
        raise InputError(
            f"{task.name}: its inputs are {', '.join(sorted(has))}, the prompt needs {needs}; name the task"
        )
    if task.user is not None:
        raise InputError(f"{task.name}: {PLAYED}, which are not asked again one by one; run the task again")
    if not task.is_judged:
        return replace(task, judges=())
    return task if task.judges else replace(task, judges=(task.model or prompt.model,))


def run_options(prompt: Loaded, db: Path) -> RecordedOptions | None:
    """Return the options of the prompt's run; None if the ledger does not know it."""
    run_id = str(prompt.provenance.get("run_id", ""))
    if not run_id or not db.is_file():
        return None
    with suppress(InputError):
        return started_with(_run(run_id, db))
    return None


def has_goals(prompt: Prompt, db: Path) -> bool:
    """Return whether a model simulated the user in the prompt's run, as far as known."""
    options = run_options(prompt, db) if prompt.release.conversation else None
    try:
        user = task_of(options).user if options else None
    except InputError:  # the task is gone
        return False
    return user is not None and bool(user.model)


def require_named(file: Path, brought: Collection[str], asked: Mapping[str, Sequence[str]], db: Path) -> None:
    """Raise InputError for a model at an address or path that only `file` names.

    An address would receive rows and key. Models that this ledger has asked before are allowed. `brought` are the
    models that the file names; `asked`, by option, those that the user did not type.
    """

    for option, names in asked.items():
        for name in names:
            if name in brought and leads_elsewhere(name) and not asked_before(name, db):
                raise InputError(
                    f"{file}: names the model {printable(name)}, and neither you nor {db} has named it before; if you "
                    f"trust it, give it yourself: {option} {printable(name)}"
                )


def asked_before(model: str, db: Path) -> bool:
    """Return whether the ledger has a call of a model."""
    if not db.is_file():
        return False
    with closing(open_history(db)) as history:
        return bool(history.select("SELECT 1 FROM calls WHERE model = ? LIMIT 1", model))
