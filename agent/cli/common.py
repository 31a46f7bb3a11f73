"""What several commands share: options, finding tasks and runs, JSON and text."""

from __future__ import annotations

import codecs
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from agent.errors import InputError, LedgerBusy

if TYPE_CHECKING:
    from agent.ledger.query import History
    from agent.ledger.store import Ledger

F = TypeVar("F", bound=Callable[..., Any])
SEED = click.IntRange(0, 2**31 - 1)
LEDGER = Path("runs/ledger.db")
"""Where commands look without --db."""
SETTINGS = {"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "OPTIMIZE"}


def db_option(function: F) -> F:
    return click.option(
        "--db",
        type=click.Path(path_type=Path),
        default=LEDGER,
        show_default=True,
        help="The ledger file.",
    )(function)


def json_option(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")(function)


def deciding_options(function: F) -> F:
    """Who moves a label, and why."""
    actor = click.option("--actor", default="", help="Who decides. Default: the user of this machine.")
    reason = click.option("--reason", default="", help="Why; kept in the history and in the ledger's chain.")
    return reason(actor(function))


def print_json(value: Any) -> None:
    """The same value after parsing; what could steer a terminal, such as C1 controls, stands as a JSON escape.

    So does all that is not ASCII where stdout is not UTF-8.
    """
    is_utf8 = codecs.lookup(sys.stdout.encoding or "ascii").name == "utf-8"
    text = json.dumps(value, indent=2, ensure_ascii=not is_utf8, allow_nan=False)
    click.echo("".join(c if c == "\n" or c.isprintable() else json.dumps(c)[1:-1] for c in text))


def plain(text: str) -> str:
    """Untrusted text for a terminal: control characters (and so escape sequences) become visible marks."""
    return "".join(c if c in "\n\t" or c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def short(text: str, width: int) -> str:
    flat = " ".join(plain(text).split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"


def score(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def open_history(db: Path, by_chain: bool = False) -> History:
    """The ledger to read. One of an older version is brought up to date first, and a copy of it kept.

    `by_chain`: its seal is not enough, all of it is checked.
    """
    from agent.ledger.connect import is_there
    from agent.ledger.reading import history_of

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

    folder = Path("tasks") / name
    if NAME.fullmatch(name) and (folder / "task.toml").is_file():
        return folder
    raise InputError(f"{plain(name)}: no task of this name under tasks/; name the task that you mean with --task")


def find_task(name: str) -> Path:
    """A folder by path, or by name under tasks/."""
    for place in (Path(name), Path("tasks") / name):
        if (place / "task.toml").is_file():
            return place
    from agent.task.words import closest

    known = _tasks_here()
    near = closest(name, known)
    hint = f"did you mean {near}" if near else f"tasks here: {', '.join(known) or 'none'}"
    raise InputError(
        f"{name}: no task of this name and no folder with a task.toml; {hint}; `optimize init` makes a new one"
    )


def require_first_word(word: str, commands: Iterable[str]) -> None:
    """Raises InputError where a first word that is no command is no task, folder or file here either."""
    if Path(word).suffix or os.path.exists(word) or os.path.exists(Path("tasks") / word):
        return
    from agent.task.words import closest

    near = closest(word, [*commands, *_tasks_here()])
    hint = (
        f"did you mean `optimize {near}`?" if near else "`optimize -h` lists the commands, `optimize tasks` the tasks"
    )
    raise InputError(f"{word}: no command or task of this name; {hint}")


def _tasks_here() -> list[str]:
    return sorted(path.parent.name for path in Path("tasks").glob("*/task.toml"))
