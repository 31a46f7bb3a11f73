"""What several commands share: options, JSON and text."""

from __future__ import annotations

import codecs
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from agent.errors import InputError
from agent.finding import LEDGER, tasks_here

F = TypeVar("F", bound=Callable[..., Any])
SEED = click.IntRange(0, 2**31 - 1)
PRICE_HELP = "IN,OUT: dollars per million tokens, for models whose price is not known; a known one stands."
THINKING_HELP = "Tokens that models may think in each call beside the reply: for reasoning models. Default: the task's."
MAX_WAIT_HELP = "Longest wait for a provider that is down or asks to wait: 90, 5m. Default 5m."
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


def print_exactly(text: str) -> None:
    """Exact bytes in a pipe (of a str, click takes out escape sequences), harmless on a terminal."""
    click.echo(plain(text) if sys.stdout.isatty() else text.encode("utf-8"), nl=False)


def short(text: str, width: int) -> str:
    flat = " ".join(plain(text).split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"


def score(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def require_first_word(word: str, commands: Iterable[str]) -> None:
    """Raises InputError where a first word that is no command is no task, folder or file here either."""
    if Path(word).suffix or os.path.exists(word) or os.path.exists(Path("tasks") / word):
        return
    from agent.task.words import closest

    near = closest(word, [*commands, *tasks_here()])
    hint = (
        f"did you mean `optimize {near}`?" if near else "`optimize -h` lists the commands, `optimize tasks` the tasks"
    )
    raise InputError(f"{word}: no command or task of this name; {hint}")
