"""`optimize report`: a run as one HTML file, to read, to send and to print."""

from __future__ import annotations

from pathlib import Path

import click

from agent.cli.common import SETTINGS, db_option, json_option, plain, print_json
from agent.errors import InputError
from agent.files import new_file
from agent.run.locations import open_history


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
    from agent.ledger.query import run_folder
    from agent.report.html import report_html
    from agent.report.view import RunView

    view = RunView(open_history(db), run)
    path = output or run_folder(db.parent, view.id) / "report.html"
    if path.is_dir():
        path = path / "report.html"
    data = report_html(view).encode("utf-8")
    _write(path, data)
    if as_json:
        print_json({"run_id": view.id, "file": str(path), "bytes": len(data)})
    else:
        click.echo(plain(f"wrote {path}"), err=True)


def _write(path: Path, data: bytes) -> None:
    """Raises InputError when the disk refuses."""
    try:
        with new_file(path, private=True) as file:
            file.write(data)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); name another file with -o") from error
