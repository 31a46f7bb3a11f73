"""`optimize audit erase`: asks before texts go for good."""

from __future__ import annotations

from pathlib import Path

import click

from agent.cli.common import SETTINGS, ledger_options, plain, print_json


@click.command(context_settings=SETTINGS)
@click.option("--hash", "hashes", multiple=True, metavar="H", help="A text by its SHA-256; repeatable.")
@click.option("--containing", metavar="TEXT", help="Every text that holds TEXT, also where JSON writes it otherwise.")
@click.option("--actor", required=True, help="Who wants it; is recorded.")
@click.option("--reason", required=True, help="Why; is recorded.")
@click.option("--yes", is_flag=True, allow_from_autoenv=False, help="Do not ask.")
@ledger_options
def erase_command(
    hashes: tuple[str, ...], containing: str | None, actor: str, reason: str, yes: bool, db: Path, as_json: bool
) -> None:
    """Erase prompts, requests and replies for good; the chain keeps their hashes, the actor and the reason.

    A reply that is gone is bought again when it is needed. What rows and events say in their own words, such as an
    error message, cannot be erased, and is named.
    """
    from agent.jobs.audit import erase, prepare_erasure

    plan = prepare_erasure(hashes, containing, actor, reason, db)
    count = len(plan.texts)
    if not as_json:
        words = ", ".join(f"{number} {kind}{'s' if number > 1 else ''}" for kind, number in plan.kinds.items())
        click.echo(f"{count} texts go for good: {words}" if count else "no text holds it", err=True)
    if count and not yes:
        click.confirm("erase them?", abort=True, err=True)
    left, head = erase(plan, actor, reason)
    if as_json:
        found = {"erased": list(plan.texts), "kinds": dict(plan.kinds), "events": list(plan.events)}
        print_json({**found, "left": left, "head": head})
        return
    click.echo(f"erased {count} texts; the ledger is whole, head {head}")
    for line in left:
        click.echo(f"still there: {plain(line)}", err=True)
