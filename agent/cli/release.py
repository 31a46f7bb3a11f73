"""`optimize export`, `promote`, `rollback`, `load`, `aliases`: a prompt in other forms, and what aliases mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.common import (
    PATH,
    SETTINGS,
    Registered,
    about,
    actor_option,
    ledger_options,
    plain,
    print_exactly,
    print_json,
    reason_option,
    short,
)
from agent.programs import ARMS, TUNED_ARMS
from agent.release.formats.export_format import FORMATS, Format
from agent.report.facts import gain, points
from agent.report.terminal import print_table
from agent.run.locations import releases_folder

if TYPE_CHECKING:
    from agent.registry import Listed
    from agent.release.aliases import AliasChange


class _ExportCommand(click.Command):
    """Its help ends with a list of all formats, which are loaded only then."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Formats"):
            formatter.write_dl([(one.name, _about(one)) for one in FORMATS.all()])


def _about(one: Listed[Format]) -> str:
    """The help line of a format, with the form for prompts that a template cannot hold."""
    code = one.thing.as_code if one.thing else None
    return f"{about(one)}; {code.about} where the prompt looks something up" if code else about(one)


@click.command(
    cls=_ExportCommand,
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
    type=click.Choice((*ARMS, *TUNED_ARMS)),
    help="classic: instead of the prompt the best that needs no language model, as Python with scikit-learn; needs -o "
    "DIR. lora, lora+prompt, full: that arm of a run of `optimize customize`.",
)
@click.option("-o", "--output", type=PATH, help="File or folder to write to. Default: print it.")
@click.option("--strict", is_flag=True, help="Refuse a format that cannot be proved here or cannot carry every value.")
@ledger_options
def export_command(
    run: str, form: tuple[str, ...], arm: str | None, output: Path | None, strict: bool, db: Path, as_json: bool
) -> None:
    from agent.run.exporting import export
    from agent.run.launch import silence

    silence()
    exported = export(run, form, db, output=output, arm=arm or "", strict=strict, details=as_json)
    if as_json:
        print_json(exported.details)
        return
    if exported.text is not None:
        print_exactly(exported.text)
    for line in exported.lines:
        click.echo(plain(line), err=True)


@click.command(context_settings=SETTINGS)
@click.argument("run", required=False, default="")
@click.option("--alias", default="production", show_default=True, help="The alias to move: production, staging, ab.")
@click.option("--share", type=float, help="Makes the alias an A/B alias: the candidate's part of the units, 0 to 1.")
@click.option(
    "--arm",
    type=click.Choice((*ARMS, *TUNED_ARMS)),
    help="classic: instead of a prompt the best that needs no language model; its version holds your train rows. lora, "
    "lora+prompt, full: that arm of a run of `optimize customize`, with its adapter or by the path of its model.",
)
@click.option("--own", is_flag=True, help="Your own prompt, which the run kept, and not the winner that it held back.")
@click.option("--override", is_flag=True, help="Promote although the gate says no; needs --reason.")
@reason_option
@actor_option
@ledger_options
def promote_command(
    run: str,
    alias: str,
    share: float | None,
    arm: str | None,
    own: bool,
    override: bool,
    reason: str,
    actor: str,
    db: Path,
    as_json: bool,
) -> None:
    """Keep the winner of RUN (default: the latest) as a version of its task's name, and move an alias to it.

    The whole ledger is checked first, as `optimize audit verify` does.

    The gate asks: is the gain on the sealed test shown, did no metric and no slice get worse, has each judge earned
    trust? When it says no, nothing changes and the exit code is 100; --override --reason WHY promotes all the same and
    writes reason and actor into the history and the audit chain. A judge that was calibrated since the run counts as
    it stands now. With --share 0.2 a fifth of the units gets this version and the rest the production version.

    Of a run that kept your own prompt, that prompt is promoted. It claims no gain: it may become the first version of
    an alias, and needs --override to take the place of another one, or with --share a part of production's units.

    With --arm classic the best that the run scored without a language model is promoted, unless the best prompt or your
    own is shown to be better on the sealed test. Programs get it by `load_classifier`; `load_prompt` refuses such an
    alias. With --arm lora, lora+prompt or full a model that `optimize customize` tuned is promoted if its gain over
    your own prompt is shown and no prompt is shown to be better; `load_prompt` takes it.
    """
    from agent.run.promote import NO_CLAIM, promote

    promotion = promote(
        run,
        alias=alias,
        share=share,
        own=own,
        arm=arm or "",
        override=override,
        reason=reason,
        actor=actor,
        ledger=db,
    )
    if as_json:
        print_json(promotion.to_json())
        return
    if promotion.promoted == "held":
        click.echo(plain(f"promoted: {promotion.path} ({promotion.version})"))
    part = "" if share is None else f" for {share:.0%} of the units"
    before = f"before: {promotion.before or 'none'}" if promotion.moved else "was it before"
    click.echo(f"{promotion.name}@{alias} is {promotion.version}{part}; {before}")
    if promotion.promoted == "own":
        click.echo(f"it is your own prompt ({NO_CLAIM})")
    if promotion.promoted in ARMS:
        name = f"{promotion.name}@{alias}"
        click.echo(f"it needs no language model; load_classifier({name!r}) loads it, load_prompt refuses")
    for why in promotion.against:
        click.echo(plain(f"overridden: {why}"))


@click.command(context_settings=SETTINGS)
@click.argument("name")
@click.option("--alias", default="production", show_default=True, help="The alias to put back.")
@reason_option
@actor_option
@ledger_options
def rollback_command(name: str, alias: str, reason: str, actor: str, db: Path, as_json: bool) -> None:
    """Put an alias of NAME back to the version before; again, and it goes back one more.

    The history grows by a line and is never rewritten. It works at once, also without a ledger and while a run holds
    it: the chain then takes the change in with the next run, promote or rollback.
    """
    from agent.run.promote import roll_back

    change, late = roll_back(name, alias, actor, reason, db)
    if as_json:
        print_json({**change.as_dict(), "in_chain": not late})
        return
    share = "" if change.share is None else f" for {100 * change.share:g} % of the units"
    click.echo(f"{name}@{alias} is {change.version} again{share}; before: {change.before}")
    if late:
        click.echo(f"{late}; the change goes into its chain with the next run, promote or rollback", err=True)


@click.command(context_settings=SETTINGS)
@click.argument("reference", metavar="NAME[@ALIAS|@VERSION]")
@click.option("--unit", help="Whom an A/B alias buckets.")
@ledger_options
def load_command(reference: str, unit: str | None, db: Path, as_json: bool) -> None:
    """Print the prompt that NAME@ALIAS or NAME@VERSION means now (default: @production), read from the files alone.

    Of a version that is no prompt it says what it is and how a program loads it, and ends with 1.

    --json has the release with its provenance, and the history of its aliases.
    """
    from agent.release.aliases import read_history
    from agent.release.export import export_markdown, export_messages
    from agent.run.promote import prompt_named

    prompt = prompt_named(reference, unit, db)
    if as_json:
        history = [change.as_dict() for change in read_history(releases_folder(db) / prompt.name)]
        named = {"alias": prompt.alias or None, "arm": prompt.arm or None}
        print_json({**named, **json.loads(export_messages(prompt.release)), "history": history})
        return
    print_exactly(export_markdown(prompt.release))


@click.command(context_settings=SETTINGS)
@click.argument("name", required=False, default="")
@ledger_options
def aliases_command(name: str, db: Path, as_json: bool) -> None:
    """List what every alias means now; with NAME, each change that was ever made, oldest first.

    Each line of a history is checked: it holds the hash of the line before.
    """
    from agent.release.aliases import current
    from agent.run.promote import alias_history, current_aliases

    if not name:
        root, rows = current_aliases(db)
        if as_json:
            print_json({"aliases": [change.as_dict() for change in rows]})
        else:
            _print_changes([f"{change.name}@{change.alias}" for change in rows], rows, f"aliases in {root}")
        return
    history = alias_history(name, db)
    if as_json:
        aliases = {alias: change.as_dict() for alias, change in current(history).items()}
        print_json({"name": name, "aliases": aliases, "history": [change.as_dict() for change in history]})
        return
    _print_changes([f"{change.seq} {change.alias}" for change in history], history, f"{name}: every change of an alias")


def _print_changes(heads: list[str], changes: list[AliasChange], title: str) -> None:
    rows = [
        [
            head,
            change.version + ("" if change.share is None else f" for {change.share:.0%}"),
            change.utc[:19],
            change.action,
            change.actor,
            _evidence(change.evidence),
            short(change.reason, 60),
        ]
        for head, change in zip(heads, changes, strict=True)
    ]
    print_table(title, ["alias", "version", "when (UTC)", "how", "who", "on what", "why"], rows)


def _evidence(evidence: Any) -> str:
    if "undoes" in evidence:
        return f"undoes {evidence['undoes']}"
    claim = f" {evidence['claim']}" if "claim" in evidence else ""
    over = ", overridden" if evidence.get("overridden") else ""
    lift = evidence.get("lift") or {}
    method = f" {evidence['method']} {points(evidence['test'])}" if "method" in evidence else ""
    diff = f" {gain(lift['diff'])}" if "diff" in lift else ""
    return f"{evidence.get('run_id', '')}{method}{diff}{claim}{over}"
