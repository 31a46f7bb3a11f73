"""`optimize export`: a run's released prompt in the forms that production wants, each proved before it is written."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.common import SETTINGS, db_option, json_option, plain, print_json
from agent.cli.registered import Registered, told
from agent.errors import AgentError, InputError
from agent.programs.yardsticks import ARM
from agent.release.formats.export_format import FORMATS
from agent.report.facts import without_result
from agent.run.locations import open_history

if TYPE_CHECKING:
    from agent.ledger.query import History, Row
    from agent.release.formats.proof import VerifiedExport
    from agent.release.rescore import DevRun
    from agent.release.runtime import PromptRelease
    from agent.types import Task


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
    from agent.ledger.query import released_file
    from agent.release.formats.export_format import Material
    from agent.release.formats.proof import verify_exports, write_exports, write_file
    from agent.release.prompt_file import MESSAGES_FILE, PROMPT_FILE, holds_prompt
    from agent.release.runtime import load_prompt
    from agent.run.launch import silence

    silence()
    history = open_history(db)
    found = history.run(run)
    released = released_file(found, db)
    if released is None:
        raise InputError(f"{found['id']}: {without_result(found)}, so it names no release")
    if arm is not None:
        _export_arm(history, found, output, as_json)
        return
    if not holds_prompt(released):
        if as_json:
            raise InputError("--json tells how prompts were proved; the state of a program of your own is not")
        _export_state(released, output)
        return
    if as_json and output is None:
        raise InputError("--json needs -o: without it the export itself is what is printed")
    chosen = [FORMATS.get(name) for name in dict.fromkeys(form)]
    task = _task_of(found) if any(one.needs_task for one in chosen) else None
    materials: dict[str, Material] = {}
    for one in chosen:  # md from prompt.md, the others from messages.json: so that the bytes are the same
        source = released.with_name(PROMPT_FILE if one.name == "md" else MESSAGES_FILE)
        materials[one.name] = Material(load_prompt(source).release, task)
    dev, why = _dev_run(history, found, materials[chosen[0].name].release)
    made = verify_exports(chosen, materials, dev=dev, strict=strict)
    alone = len(made) == 1 and len(made[0].texts) == 1
    if not alone and (output is None or os.path.isfile(output)):
        many = "several formats" if len(made) > 1 else f"{made[0].format.name} has several files"
        raise InputError(f"{many}: name a folder with -o DIR")
    if output is None:
        _print(made[0])
        paths = []
    elif alone and not os.path.isdir(output):
        (text,) = made[0].texts.values()
        write_file(text, output)
        paths = [output]
    else:
        paths = write_exports(made, output)
    if as_json:
        print_json(_told(found["id"], materials[chosen[0].name].release.version, paths, made, why))
        return
    lines = [f"wrote {path}" for path in paths]
    lines += [line for one in made for line in one.notes()] if paths or made[0].missing or made[0].unfit else []
    lines += [f"dev: not scored again: {why}"] if why else []
    for line in lines:
        click.echo(plain(line), err=True)


def _print(made: VerifiedExport) -> None:
    """Exact bytes in a pipe (of a str, click takes out escape sequences), harmless on a terminal."""
    (text,) = made.texts.values()
    click.echo(plain(text) if sys.stdout.isatty() else text.encode("utf-8"), nl=False)


def _dev_run(history: History, found: Row, release: PromptRelease) -> tuple[DevRun | None, str]:
    """What the run has of the prompt on dev, or why that cannot be had."""
    from agent.ledger.query import started_with
    from agent.release.rescore import dev_run
    from agent.run.launch import task_of

    try:
        task = task_of(started_with(found))
        return dev_run(history, found, task, str(release.provenance.get("candidate_id", ""))), ""
    except AgentError as error:
        return None, str(error)


def _told(run_id: str, version: str, paths: Sequence[Path], made: Sequence[VerifiedExport], why: str) -> dict[str, Any]:
    formats = [
        {
            "format": one.format.name,
            "library": one.library,
            "verified": not one.missing,
            "hostile_rows": one.rows,
            "unfit": dict(one.unfit),
            "not_set": one.unset,
            "dev": one.dev and {"rows": one.dev.rows, "score": one.dev.score, "unfit": one.dev.unfit},
        }
        for one in made
    ]
    files = [str(path) for path in paths]
    return {"run_id": run_id, "version": version, "files": files, "formats": formats, "not_scored_again": why}


def _task_of(found: dict[str, Any]) -> Task:
    """The task as the run had it. Refuses one that changed since: its rows would not be those of the run."""
    from agent.ledger.query import started_with
    from agent.run.launch import source_of, task_of

    options = started_with(found)
    task = task_of(options)
    changed = {source_of(name, options) for name, digest in found["hashes"].items() if task.hashes.get(name) != digest}
    if changed:
        raise InputError(
            f"{found['id']}: the task changed since the run ({', '.join(sorted(changed))}); put it back to export rows"
        )
    return task


def _export_arm(history: History, found: Row, output: Path | None, as_json: bool) -> None:
    """The best of the run's yardsticks on dev, learnt anew and held against the answers that were scored."""
    from agent.programs.yardsticks import exported
    from agent.release.formats.proof import write_files

    if output is None or os.path.isfile(output):
        raise InputError("--arm has several files: name a folder with -o DIR")
    told, files = exported(found, _task_of(found), history)
    paths = write_files(files, output)
    if as_json:
        print_json({"run_id": found["id"], "yardstick": told, "files": [str(path) for path in paths]})
        return
    for path in paths:
        click.echo(plain(f"wrote {path}"), err=True)
    click.echo(plain(f"{told['name']}, {100 * told['test']:.1f} on the sealed test; the same answers on dev"), err=True)


def _export_state(released: Path, output: Path | None) -> None:
    from agent.release.formats.proof import write_file

    try:
        state = released.read_bytes().decode("utf-8")
    except OSError as error:
        raise InputError(f"{released}: cannot be read ({error.strerror}); run it again, its calls are known") from error
    if output is None:
        click.echo(plain(state) if sys.stdout.isatty() else state.encode("utf-8"), nl=False)
        return
    if os.path.isdir(output):
        output = output / released.name
    write_file(state, output)
    click.echo(f"wrote {output}", err=True)
