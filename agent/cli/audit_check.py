"""`optimize audit check`: did a run measure what it says, on rows that no prompt had seen, with books that add up?"""

from __future__ import annotations

from pathlib import Path

import click

from agent.cli.common import SETTINGS, db_option, json_option, print_json
from agent.cli.tables import print_table
from agent.finding import open_history

SHOWN = 5  # findings of one check that the table has


@click.command(context_settings=SETTINGS)
@click.argument("run", required=False, default="")
@db_option
@json_option
def check_command(run: str, db: Path, as_json: bool) -> None:
    """Check RUN (default: the latest) for contamination, and whether its books add up.

    Contamination: demos or instructions that hold dev or test rows, a test that was opened twice. Books: scores without
    a reply, means, charges and caps that do not follow from the calls. Ends with 1 when anything does not hold. What
    needs the rows is left out (-) when the task is gone or its rows changed since.
    """
    from agent.run.auditing import checks_of

    history = open_history(db)
    found = history.run(run)
    done = checks_of(history, found)
    holds = all(check.ok is not False for check in done)
    if as_json:
        listed = [{"check": check.name, "ok": check.ok, "found": list(check.found)} for check in done]
        print_json({"run_id": found["id"], "holds": holds, "checks": listed})
    else:
        words = {True: "ok", False: "PROBLEM", None: "-"}
        print_table(
            f"checks of {found['id']}",
            ("check", "ok", "found"),
            [(check.name, words[check.ok], _lines(check.found)) for check in done],
        )
    if not holds:
        raise SystemExit(1)


def _lines(found: tuple[str, ...]) -> str:
    more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return "; ".join([*found[:SHOWN], *more])
