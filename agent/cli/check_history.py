"""The checks of a prompt so far, as `optimize check --history` shows them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.common import plain, print_json
from agent.files import new_file
from agent.report.checks import CheckPoint, checks_chart, checks_page
from agent.report.terminal import print_listing

if TYPE_CHECKING:
    from agent.run.check_history import NotDue


def show_history(name: str, found: Sequence[CheckPoint], model: str | None, page: Path | None, as_json: bool) -> None:
    """Prints the checks of a prompt, and writes their page where one is wanted; without a check there is none."""
    if not found:
        none = f"no finished check of {name}{f' on {model}' * bool(model)}; `optimize check PROMPT` makes one"
        click.echo(plain(f"{none}; {page} was not written" if page else none), err=as_json)
        page = None
    if page is not None:
        with new_file(page, private=True) as file:
            file.write(checks_page(name, found).encode("utf-8"))
    if as_json:
        print_json({"name": name, "checks": [point.as_dict() for point in found]})
    if as_json or not found:
        return
    print_listing(checks_chart(name, found).table)
    if page is not None:
        click.echo(plain(f"wrote {page}"), err=True)


def show_not_due(found: NotDue, as_json: bool) -> None:
    """Prints why no check was made."""
    last = found.last
    if as_json:
        print_json({"kind": "check", "skipped": True, "due_utc": found.due_utc, "last": last.as_dict()})
        return
    click.echo(plain(f"{last.series}: checked at {last.utc[:16]} ({last.gate}), due again at {found.due_utc}"))
