"""Shared by several commands: options, registered names, JSON and text output."""

from __future__ import annotations

import codecs
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli import SETTINGS as SETTINGS
from agent.errors import InputError
from agent.jobs.registry import Printed
from agent.registry import Registry
from agent.report.blocks import short as short
from agent.safe_text import closest, printable
from agent.safe_text import plain as plain
from agent.task.by_name import samples, tasks_here

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from agent.report.blocks import PageSection


class FilePath(click.Path):
    """The path of a file or folder; refuses "" and, but as standard output, "-"."""

    def __init__(self, allows_stdout: bool = False, is_file: bool = False) -> None:
        super().__init__(path_type=Path, allow_dash=allows_stdout)
        self._is_file = is_file

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        text = os.fspath(value)
        if not text:
            self.fail("the path is empty; name a file.", param, ctx)
        if text == "-" and not self.allow_dash:
            self.fail("'-' is no path here; name a file (./- for a file called -).", param, ctx)
        if "\0" in text:
            self.fail("a path holds no NUL; name a file.", param, ctx)
        if self._is_file and os.path.isdir(text):
            self.fail(f"{text} is a folder; name a file in it, such as {os.path.join(text, 'ledger.db')}.", param, ctx)
        return super().convert(value, param, ctx)


PATH = FilePath()


class Registered(click.ParamType[str]):
    """A name in `registry`; imports the plugin, so that one that cannot be loaded is refused here."""

    def __init__(self, registry: Registry[Any]) -> None:
        self.name, self._registry = registry.what, registry

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return f"[{'|'.join(self._registry.names())}]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            self._registry.get(value)
        except InputError as error:
            self.fail(str(error), param, ctx)
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return completions(self._registry.names(), incomplete)


def completions(words: Iterable[str], incomplete: str) -> list[CompletionItem]:
    """Return the words that the shell may complete it to."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def print_json(value: Any) -> None:
    """Print JSON, with characters escaped that could control the terminal.

    Non-ASCII characters are escaped as well if stdout is not UTF-8.
    """
    is_utf8 = codecs.lookup(sys.stdout.encoding or "ascii").name == "utf-8"
    text = json.dumps(value, indent=2, ensure_ascii=not is_utf8, allow_nan=False)
    click.echo(printable(text, "\n", lambda char: json.dumps(char)[1:-1]))


def print_shown(found: Any, as_json: bool) -> int:
    """Print what a job returned, as JSON or for people; return the exit code."""
    shown = found if isinstance(found, Printed) else Printed(found)
    for note in shown.notes:
        click.echo(plain(note), err=True)
    for line in shown.lines:
        click.echo(plain(line), err=as_json)
    value = shown.made()
    if as_json:
        print_json(value and value.to_json())
    elif shown.error is not None:
        pass
    elif shown.exact is not None:
        _print_exactly(shown.exact)
    else:
        from agent.report.terminal import show_sections

        show_sections(_sections(value) if shown.sections is None else shown.sections())
    if shown.error is not None:
        raise shown.error
    for line in shown.errors:
        click.echo(f"error: {plain(line)}", err=True)
    return shown.exit_code


def _sections(value: Any) -> list[PageSection]:
    from agent.report.job_blocks import sections_of  # here, as it loads the results of all jobs

    return sections_of(value)


def _print_exactly(text: str) -> None:
    # bytes, as click removes escape sequences from a str
    click.echo(plain(text) if sys.stdout.isatty() else text.encode("utf-8"), nl=False)


def require_first_word(word: str, commands: Iterable[str]) -> None:
    """Raise InputError for a first word that is not a command, task, folder or file."""
    if Path(word).suffix or os.path.exists(word) or os.path.exists(Path("tasks") / word):
        return

    near = closest(word, [*commands, *tasks_here()])
    hint = (
        f"did you mean `optimize {near}`?" if near else "`optimize -h` lists the commands, `optimize tasks` the tasks"
    )
    if word in samples():
        hint = f"`optimize init --sample {word}` copies the sample of this name here"
    raise InputError(f"{word}: no command or task of this name; {hint}")
