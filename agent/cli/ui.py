"""`optimize ui`: the ledger in the browser, on this machine only."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from agent.cli.common import SETTINGS, db_option, json_option, plain, print_json
from agent.run.locations import open_history


@click.command(context_settings=SETTINGS)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="The port. Default: a free one.")
@click.option("--no-open", is_flag=True, help="Print the link only; without it a terminal's browser opens it.")
@click.option(
    "--optuna",
    metavar="RUN",
    is_flag=False,
    flag_value="",
    help="Serve nothing: write RUN (default: the latest) as an Optuna study, for optuna-dashboard to open.",
)
@db_option
@json_option
def ui_command(port: int, no_open: bool, optuna: str | None, db: Path, as_json: bool) -> None:
    """Show the ledger in the browser: runs, live progress, trials, comparisons, blinded rating, audit, SQL and JSON.

    Served on 127.0.0.1 only, for whoever has the printed link; the ledger is never written. --json prints the link as
    one object on one line. Ctrl-C ends it.
    """
    if optuna is not None:
        _write_study(optuna, db, as_json)
        return
    from agent.report.web.app import bind, make, serve, warm

    socket = bind(port)
    web = make(db, socket.getsockname()[1], open_history)
    opened = web.site.opened
    click.echo(f"checked {plain(str(db))}: {opened.seq} events in {opened.seconds:.1f} s", err=True)
    warm(web.site)
    click.echo(json.dumps({"url": web.url}) if as_json else web.url)
    sys.stdout.flush()
    click.echo("open the link in a browser; Ctrl-C ends this", err=True)
    with _opened(web.url, not no_open and not as_json and sys.stdout.isatty()):
        try:
            serve(web, socket)
        except KeyboardInterrupt:
            click.echo("\nended; nothing was changed but ratings", err=True)


@contextmanager
def _opened(url: str, wanted: bool) -> Iterator[None]:
    """Shows the link in the browser by a file that only this user can read: a process list would tell it to others."""
    import webbrowser
    from tempfile import NamedTemporaryFile

    if not wanted:
        yield
        return
    with NamedTemporaryFile("w", prefix="promptassay-", suffix=".html", encoding="utf-8") as page:
        page.write(f'<!doctype html><meta http-equiv="refresh" content="0;url={url}">')
        page.flush()
        webbrowser.open(Path(page.name).as_uri())
        yield


def _write_study(run: str, db: Path, as_json: bool) -> None:
    from agent.report.optuna_study import optuna_file

    open_history(db).close()
    path = optuna_file(db, run)
    if as_json:
        print_json({"file": str(path)})
        return
    click.echo(plain(str(path)))
    click.echo("to open it: pip install optuna-dashboard", err=True)
    click.echo(f"optuna-dashboard {shlex.quote(f'sqlite:///{path}')}", err=True)
