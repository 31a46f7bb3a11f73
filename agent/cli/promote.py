"""`optimize promote`: puts what a run released into the registry and moves a label to it, if the gate lets it."""

from __future__ import annotations

from pathlib import Path

import click

from agent.cli.common import SETTINGS, db_option, deciding_options, json_option, plain, print_json
from agent.run.promote import NO_CLAIM, promote


@click.command(context_settings=SETTINGS)
@click.argument("run", required=False, default="")
@click.option("--label", default="production", show_default=True, help="The label to move: production, staging, ab.")
@click.option("--share", type=float, help="Makes the label an A/B label: the candidate's part of the units, 0 to 1.")
@click.option("--own", is_flag=True, help="Your own prompt, which the run kept, and not the winner that it held back.")
@click.option("--override", is_flag=True, help="Promote although the gate says no; needs --reason.")
@deciding_options
@db_option
@json_option
def promote_command(
    run: str,
    label: str,
    share: float | None,
    own: bool,
    override: bool,
    reason: str,
    actor: str,
    db: Path,
    as_json: bool,
) -> None:
    """Keep the winner of RUN (default: the latest) as a version of its task's name, and move a label to it.

    The whole ledger is checked first, as `optimize audit verify` does.

    The gate asks: is the gain on the sealed test shown, did no metric and no slice get worse, has each judge earned
    trust? When it says no, nothing changes and the exit code is 100; --override --reason WHY promotes all the same and
    writes reason and actor into the history and the audit chain. A judge that was calibrated since the run counts as
    it stands now. With --share 0.2 a fifth of the units gets this version and the rest the production version.

    Of a run that kept your own prompt, that prompt is promoted. It claims no gain: it may become the first version of
    a label, and needs --override to take the place of another one, or with --share a part of production's units.
    """
    found = promote(run, label=label, share=share, own=own, override=override, reason=reason, actor=actor, ledger=db)
    if as_json:
        print_json(found.to_json())
        return
    if found.promoted == "held":
        click.echo(plain(f"promoted: {found.path} ({found.version})"))
    part = "" if share is None else f" for {share:.0%} of the units"
    before = f"before: {found.before or 'none'}" if found.moved else "was it before"
    click.echo(f"{found.name}@{label} is {found.version}{part}; {before}")
    if found.promoted == "own":
        click.echo(f"it is your own prompt ({NO_CLAIM})")
    for why in found.against:
        click.echo(plain(f"overridden: {why}"))
