"""`optimize ledger`: many ledgers in one."""

from __future__ import annotations

from pathlib import Path

import click

from agent.cli.common import PATH, SETTINGS, json_option, plain, print_json
from agent.cli.terminal_tables import print_table


@click.group(context_settings=SETTINGS)
def ledger_command() -> None:
    """Merge ledgers into one that is only read."""


@ledger_command.command(context_settings=SETTINGS)
@click.argument("ledgers", nargs=-1, required=True, metavar="A.db B.db ...", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="The merged ledger to write.")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@json_option
def merge_command(ledgers: tuple[Path, ...], output: Path, force: bool, as_json: bool) -> None:
    """Merge ledgers into one that is only read, with --db: by `history`, `show`, `report`, `compare`, `ui`, `audit`.

    Each ledger is verified first, and its chain is kept whole: `optimize audit verify --db TEAM.db` proves each on its
    own. A copy adds nothing; of one that went on by itself comes what is new. A run in two of them is taken from the
    one that has more of it, and refused where each has something of its own. A text that one of them erased is left
    out.
    """
    from agent.ledger.merge import merge

    merged = merge(ledgers, output, force)
    if as_json:
        print_json(merged.to_json())
        return
    rows = [(plain(name), chain, events, head) for name, chain, events, head in merged.sources]
    print_table(f"merged into {plain(str(output))}", ("source", "chain", "events", "head"), rows)
    click.echo(f"{merged.runs} runs, {merged.calls} calls, {merged.events} events in {merged.chains} chains; only read")
