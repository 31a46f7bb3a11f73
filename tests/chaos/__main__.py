"""The fault campaign: kill points of every job, and faults that no test provokes, against the real command.

    python -m tests.chaos [--only NAME,...] [--scale 1.0] [--json]

Exit 1 if any promise was broken or a row could not be played, 130 after Ctrl-C or SIGTERM; the table always comes.
`--scale` multiplies the number of kills. No verdict depends on the speed of the machine.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from tests.chaos import agents, aliases, comparisons, faults, jobs, kills
from tests.chaos.command import ENDERS, preload
from tests.chaos.harness import Campaign, Row

INTERRUPTED = 130
SCENARIOS: dict[str, Callable[[Campaign], Row]] = {
    "kills": kills.random_kills,
    "commits": kills.commit_points,
    "birth": kills.birth,
    "caps": kills.caps,
    "batch": kills.batches,
    "jobs": jobs.kills,
    "customize": comparisons.trained_here,
    "hosted": comparisons.hosted,
    "aliases": aliases.kills,
    "agents": agents.kills,
    "eio": faults.io_errors,
    "locked": faults.locked,
    "stop": faults.standstill,
    "connect": faults.connections,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="The fault campaign.")
    parser.add_argument("--only", default="", metavar="NAME,...", help=f"of {', '.join(SCENARIOS)}")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of kills")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    names = [name for name in options.only.split(",") if name] or list(SCENARIOS)
    if unknown := [name for name in names if name not in SCENARIOS]:
        parser.error(f"no scenario {', '.join(unknown)}; there are: {', '.join(SCENARIOS)}")
    started = time.monotonic()
    for ender in ENDERS:  # SIGINT too: a shell that starts this in the background has it ignored
        signal.signal(ender, signal.default_int_handler)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as place:
        campaign = Campaign(Path(place), options.scale)
        interrupted = not played(names, campaign, rows, options.json)
        done = len(rows) - interrupted
        rows.append(whole(campaign))
    seconds = time.monotonic() - started
    broken = sum(bool(row.broken) for row in rows)
    if options.json:
        print(
            json.dumps({"rows": [asdict(row) | {"verdict": row.verdict} for row in rows], "seconds": seconds}, indent=2)
        )
    else:
        print(table(rows))
        print(f"{done} of {len(names)} rows, {broken} broken, {seconds:.0f} s")
    return INTERRUPTED if interrupted else int(broken > 0)


def played(names: list[str], campaign: Campaign, rows: list[Row], quiet: bool) -> bool:
    """Adds a row for each scenario to `rows`; False when it was interrupted: then no second signal cuts its end."""
    name = "the imports"
    try:
        preload()
        for name in names:
            rows.append(play(name, campaign, quiet))
    except KeyboardInterrupt:
        for ender in ENDERS:
            signal.signal(ender, signal.SIG_IGN)
        rows.append(Row(name, 0, "", "", skipped=f"interrupted in {name}"))
        return False
    return True


def play(name: str, campaign: Campaign, quiet: bool) -> Row:
    """Play one scenario; an error in it is a broken row too, and ends nothing else."""
    started = time.monotonic()
    try:
        row = SCENARIOS[name](campaign)
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        row = Row(name, 0, "", "", (f"{type(error).__name__}: {error}",))
    troubles = swept(campaign)
    row = replace(row, broken=(*row.broken, *troubles), seconds=time.monotonic() - started)
    if not quiet:
        print(f"[{row.seconds:5.1f} s] {name}: {row.happened or row.skipped} -> {row.verdict}", flush=True)
        for what in row.broken[:5]:
            print(f"          {what}", flush=True)
    return row


def swept(campaign: Campaign) -> list[str]:
    """What holds for all rows and did not; a mistake of the sweep is told among it."""
    try:
        return campaign.sweep()
    except Exception as error:
        traceback.print_exc()
        return [f"the sweep: {type(error).__name__}: {error}"]


def whole(campaign: Campaign) -> Row:
    troubles, seen = swept(campaign), campaign.seen
    happened = (
        f"{seen['commands']} commands, {seen['requests']} requests; {seen['files']} files, "
        f"{seen['bytes'] / 1e6:.0f} MB searched"
    )
    promised = "no traceback, the planted key in no file, no foreign host (in every row)"
    return Row("all of them", seen["commands"], promised, happened, tuple(troubles))


def table(rows: list[Row]) -> str:
    """A table in plain text; what was broken stands below."""
    head = ("fault", "runs", "seconds", "promised", "what happened", "")
    cells = [
        head,
        *((r.fault, str(r.runs), f"{r.seconds:.1f}", r.promised, r.skipped or r.happened, r.verdict) for r in rows),
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    lines.insert(1, "  ".join("-" * width for width in widths))
    told = [f"BROKEN {row.fault}: {what}" for row in rows for what in row.broken[:10]]
    return "\n".join(["", *lines, *([""] if told else []), *told])


if __name__ == "__main__":
    sys.exit(main())
