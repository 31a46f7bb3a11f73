"""`optimize export`: a run's released prompt in the forms that production wants, each proved before it is written."""

from __future__ import annotations

from pathlib import Path

import click

from agent.cli.common import SETTINGS, db_option, json_option, plain, print_exactly, print_json
from agent.cli.registered import Registered, told
from agent.programs.yardsticks import ARM
from agent.release.formats.catalog import FORMATS


class _Command(click.Command):
    """Its help ends with the formats, which are loaded for it."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Formats"):
            formatter.write_dl([(one.name, told(one)) for one in FORMATS.all()])


@click.command(
    cls=_Command,
    context_settings=SETTINGS,
    help="""Write the released prompt of RUN (default: the latest), proved to be what was scored.

    Each format is loaded with the target's own library, rendered with 200 and more hostile rows and compared byte for
    byte, and what it holds of model and parameters is read back; then with the dev rows of the run: the same calls, and
    the replies that the ledger holds, scored again, the same score. No model is asked. On drift nothing is written.
    Without the library a format is written and said to be unverified. --format can be repeated; formats of several
    files, and several formats, need -o DIR.

    Of a program of your own it is its file as it was released: program.json for `dspy.Module.load`, chain.json for
    `load_chain`; --format is not asked.""",
)
@click.argument("run", required=False, default="")
@click.option(
    "--format",
    "form",
    type=Registered(FORMATS),
    multiple=True,
    default=["md"],
    show_default=True,
    help="The form; repeat it for several.",
)
@click.option(
    "--arm",
    type=click.Choice([ARM]),
    help="Instead of the prompt the best that needs no language model, as Python with scikit-learn; needs -o DIR.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File or folder to write to. Default: print it.")
@click.option("--strict", is_flag=True, help="Refuse a format that cannot be proved here or cannot carry every value.")
@db_option
@json_option
def export_command(
    run: str, form: tuple[str, ...], arm: str | None, output: Path | None, strict: bool, db: Path, as_json: bool
) -> None:
    from agent.launch import silence
    from agent.run.exporting import export

    silence()
    found = export(run, form, db, output=output, yardstick=arm is not None, strict=strict, details=as_json)
    if as_json:
        print_json(found.details)
        return
    if found.text is not None:
        print_exactly(found.text)
    for line in found.lines:
        click.echo(plain(line), err=True)
