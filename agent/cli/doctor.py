"""`optimize doctor`: is this machine fit to run, and is the ledger whole?"""

from __future__ import annotations

from pathlib import Path

import click

from agent.cli.common import SETTINGS, db_option, json_option, print_json
from agent.cli.tables import print_table


@click.command(context_settings=SETTINGS)
@click.option("-m", "--model", multiple=True, help="Ask its provider about it, which costs nothing; repeatable.")
@db_option
@json_option
def doctor_command(model: tuple[str, ...], db: Path, as_json: bool) -> None:
    """Check this machine: Python, SQLite, packages, embedded model, keys (never shown), tracing, disk and ledger.

    With --model also whether a model can be asked: its address, its key and its name.
    """
    from agent.run.health import examined

    checks = examined(model, db)
    healthy = all(good for _, good, _ in checks)
    if as_json:
        print_json({"healthy": healthy, "checks": [{"what": w, "ok": good, "found": f} for w, good, f in checks]})
    else:
        print_table("doctor", ("what", "", "found"), [(w, "ok" if good else "PROBLEM", f) for w, good, f in checks])
    if not healthy:
        raise SystemExit(1)
