"""`optimize report`: a run as one HTML file, to read, to send and to print."""

from __future__ import annotations

from pathlib import Path

import click

from agent.cli.common import SETTINGS, db_option, json_option, plain, print_json
from agent.finding import open_history


@click.command(context_settings=SETTINGS)
@click.argument("run", required=False, default="")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The file. Default: runs/RUN/report.html beside the ledger."
)
@db_option
@json_option
def report_command(run: str, output: Path | None, db: Path, as_json: bool) -> None:
    """Write RUN (default: the latest) as one HTML file: verdict, scores, prompt, rows that changed, cost, origin.

    The file opens offline, asks no host for anything and holds no script. It shows rows, replies and prompts: whoever
    gets it reads them.
    """
    from agent.report.html import write_report
    from agent.report.view import RunView

    view = RunView(open_history(db), run)
    path, size = write_report(view, output)
    if as_json:
        print_json({"run_id": view.id, "file": str(path), "bytes": size})
    else:
        click.echo(plain(f"wrote {path}"), err=True)
