"""`optimize export`: a run's released prompt in the form that production wants."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from agent.cli.common import SETTINGS, db_option, open_history, plain
from agent.errors import InputError


@click.command(context_settings=SETTINGS)
@click.argument("run", required=False, default="")
@click.option(
    "--format",
    "form",
    type=click.Choice(["md", "messages"]),
    default="md",
    show_default=True,
    help="prompt.md or messages JSON.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where to write it. Default: print it.")
@db_option
def export_command(run: str, form: str, output: Path | None, db: Path) -> None:
    """Write the released prompt of RUN (default: the latest), checked against what was scored."""
    from agent.release.export import export_markdown, export_messages, verify_file
    from agent.release.runtime import MESSAGES_FILE, PROMPT_FILE, load_prompt

    found = open_history(db).run(run)
    released = (found["result"] or {}).get("release")
    if not released:
        raise InputError(f"{found['id']}: this run is {found['status']} and released nothing")
    name = PROMPT_FILE if form == "md" else MESSAGES_FILE
    release = load_prompt(Path(released).with_name(name)).release  # of the same form, so that the bytes are the same
    text = export_markdown(release) if form == "md" else export_messages(release)
    if output is None:
        # exact bytes in a pipe (of a str, click takes out escape sequences), harmless on a terminal
        click.echo(plain(text) if sys.stdout.isatty() else text.encode("utf-8"), nl=False)
        return
    if output.is_dir():
        output = output / name
    output.write_bytes(text.encode("utf-8"))
    verify_file(output, release)
    click.echo(f"wrote {output} ({release.version}), byte-equal to what was scored", err=True)
