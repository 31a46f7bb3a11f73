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
    """Write the released prompt of RUN (default: the latest), checked against what was scored.

    Of a DSPy program it is the state that `dspy.Module.load` takes; --format is not asked.
    """
    from agent.program_run import STATE_FILE
    from agent.release.export import export_markdown, export_messages, verify_file
    from agent.release.runtime import MESSAGES_FILE, PROMPT_FILE, load_prompt

    found = open_history(db).run(run)
    released = (found["result"] or {}).get("release")
    if not released:
        raise InputError(f"{found['id']}: this run is {found['status']} and released nothing")
    if Path(released).name == STATE_FILE:
        _export_state(Path(released), output)
        return
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


def _export_state(released: Path, output: Path | None) -> None:
    try:
        state = released.read_bytes()
    except OSError as error:
        raise InputError(f"{released}: cannot be read ({error.strerror}); run it again, its calls are known") from error
    if output is None:
        click.echo(plain(state.decode("utf-8")) if sys.stdout.isatty() else state, nl=False)
        return
    if output.is_dir():
        output = output / released.name
    output.write_bytes(state)
    click.echo(f"wrote {output}", err=True)
