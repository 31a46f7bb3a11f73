"""`optimize ui`: the whole ledger in the browser."""

from __future__ import annotations

import json
import shlex
import sys
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from agent.cli.common import plain, print_json
from agent.cli.declared import command
from agent.errors import InputError
from agent.jobs.locations import open_history, releases_folder
from agent.options.kinds import Price
from agent.options.option import JobOptions, option
from agent.options.shared import BUDGET, OUTPUT, CapOptions, OutputOptions
from agent.redact import silence
from agent.report.optuna_study import optuna_file

if TYPE_CHECKING:
    from agent.jobs.playground import Playground
    from agent.report.web.labelling_pages import LabelPlace


class UiOptions(JobOptions):
    """The options of the web view."""

    port: int = option(0, "The port. Default: a free one.", OUTPUT, metavar="N", ge=0, le=65535)
    no_open: bool = option(False, "Only print the link; do not open a browser.", OUTPUT)
    optuna: str | None = option(None, group=OUTPUT, metavar="RUN")
    """Serve nothing: write RUN (default: the latest) as an Optuna study, for optuna-dashboard to open."""
    allow_calls: bool = option(False, "Lets the playground ask models; needs a cap.", BUDGET)
    max_calls: int | None = CapOptions.field("max_calls", help="Cap on all calls of the playground, retries included.")
    max_cost: float | None = CapOptions.field("max_cost", help="Cap on all dollars of the playground.")
    price: Price = CapOptions.field("price")


@command(UiOptions, OutputOptions, optuna={"is_flag": False, "flag_value": ""})
def ui_command(options: UiOptions, output: OutputOptions) -> None:
    """Show the ledger in the browser, on this machine only.

    Pages: runs, live progress, trials, sealed rows, comparisons, blinded rating, releases, aliases, a playground,
        audit, SQL
    and JSON. They are served on 127.0.0.1 to whoever has the printed link. The ledger is never written and no model is
    called, unless --allow-calls lets the playground ask models: its calls are in the ledger, and --max-calls or
    --max-cost caps them all together. --json prints the link as one JSON object on one line. Ctrl-C ends it.
    """
    if options.optuna is not None:
        _write_study(options.optuna, output.db, output.as_json)
        return
    asker = _playground(output.db, options)
    changed = "ratings" if asker is None else "ratings, and the calls of the playground were added"
    serve_pages(output.db, options.port, options.no_open, output.as_json, f"nothing was changed but {changed}", asker)


def serve_pages(
    db: Path,
    port: int,
    no_open: bool,
    as_json: bool,
    ended: str,
    asker: Playground | None = None,
    labelling: LabelPlace | None = None,
) -> None:
    """Serve the web view until Ctrl-C, then print the changes: `ended`.

    Args:
        asker: asks models for the playground; None: no calls.
        labelling: the task to label, opened first.
    """
    from agent.report.web.app import bind, make, serve, warm

    socket = bind(port)
    web = make(db, socket.getsockname()[1], open_history, releases_folder(db), asker, labelling)
    url = web.url if labelling is None else web.url.replace("/?", "/label?", 1)
    check = web.site.check_at_start
    click.echo(f"checked {plain(str(db))}: {check.seq} events in {check.seconds:.1f} s", err=True)
    warm(web.site)
    click.echo(json.dumps({"url": url}) if as_json else url)
    sys.stdout.flush()
    click.echo("open the link in a browser; Ctrl-C ends this", err=True)
    with _opened(url, not no_open and not as_json and sys.stdout.isatty()):
        try:
            serve(web, socket)
        except KeyboardInterrupt:
            click.echo(f"\nended; {ended}", err=True)


def _playground(db: Path, options: UiOptions) -> Playground | None:
    if not options.allow_calls:
        source = click.get_current_context().get_parameter_source  # a cap of the environment is meant for runs, too
        if typed := [name for name in ("max_calls", "max_cost") if source(name) is ParameterSource.COMMANDLINE]:
            option = f"--{typed[0].replace('_', '-')}"
            raise InputError(f"{option}: caps the playground, which asks nobody without --allow-calls; give both")
        return None
    from agent.jobs.playground import Playground

    silence()
    return Playground(db, options.part(CapOptions))


@contextmanager
def _opened(url: str, wanted: bool) -> Iterator[None]:

    if not wanted:
        yield
        return
    # in a private file, as a process list shows arguments to others
    with NamedTemporaryFile("w", prefix="promptassay-", suffix=".html", encoding="utf-8") as page:
        page.write(f'<!doctype html><meta http-equiv="refresh" content="0;url={url}">')
        page.flush()
        webbrowser.open(Path(page.name).as_uri())
        yield


def _write_study(run: str, db: Path, as_json: bool) -> None:

    open_history(db).close()
    path = optuna_file(db, run)
    if as_json:
        print_json({"file": str(path)})
        return
    click.echo(plain(str(path)))
    click.echo("to open it: pip install optuna-dashboard", err=True)
    click.echo(f"optuna-dashboard {shlex.quote(f'sqlite:///{path}')}", err=True)
