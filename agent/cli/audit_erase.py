"""`optimize audit erase`: takes texts out of the ledger for good, and says where else they stand."""

from __future__ import annotations

from pathlib import Path

import click

from agent.cli.common import SETTINGS, db_option, json_option, plain, print_json


@click.command(context_settings=SETTINGS)
@click.option("--hash", "hashes", multiple=True, metavar="H", help="A text by its SHA-256; repeatable.")
@click.option("--containing", metavar="TEXT", help="Every text that holds TEXT, also where JSON writes it otherwise.")
@click.option("--actor", required=True, help="Who wants it; is recorded.")
@click.option("--reason", required=True, help="Why; is recorded.")
@click.option("--yes", is_flag=True, allow_from_autoenv=False, help="Do not ask.")
@db_option
@json_option
def erase_command(
    hashes: tuple[str, ...], containing: str | None, actor: str, reason: str, yes: bool, db: Path, as_json: bool
) -> None:
    """Erase prompts, requests and replies for good; the chain keeps their hashes, and who asked and why.

    A reply that is gone is bought again when it is needed. What rows and events say in their own words, such as an
    error message, cannot be erased, and is named.
    """
    from agent.run.erasing import erase, erasing

    plan = erasing(hashes, containing, actor, reason, db)
    count = len(plan.texts)
    if not as_json:
        words = ", ".join(f"{number} {kind}{'s' if number > 1 else ''}" for kind, number in plan.kinds.items())
        click.echo(f"{count} texts go for good: {words}" if count else "no text holds it", err=True)
    if count and not yes:
        click.confirm("erase them?", abort=True, err=True)
    erased = erase(plan, actor, reason)
    if as_json:
        print_json(erased.to_json())
        return
    click.echo(f"erased {count} texts; the ledger is whole, head {erased.head}")
    for line in erased.left:
        click.echo(f"still there: {plain(line)}", err=True)
