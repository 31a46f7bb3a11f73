"""How long the pages of `optimize ui` take on a big ledger: one run of 1,000 trials with 200 rows each.

    python -m tests.bench.web_pages [--json] [--trials 1000] [--rows 200] [--times 5] [--keep FOLDER]

Each page is asked through the real application, sign-in and headers included; the median is told. A folder given with
--keep holds the ledger for the next time. Asserts no time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path

from agent.task.load import load_task
from tests.bench.big_ledger import build
from tests.toys import TEAMS, row

TASK = """
name = "toy"
description = "Route a message to a team."
signature = "message -> team"
instruction = "Answer with one team."
[fields.team]
type = "choice"
choices = {teams}
[[metrics]]
name = "exact_match"
field = "team"
"""


def write_task(folder: Path, rows: int) -> None:
    """The toy task as a folder, so that pages find the rows."""
    folder.mkdir(parents=True)
    (folder / "task.toml").write_text(TASK.format(teams=json.dumps(TEAMS)), "utf-8")
    for split in ("train", "dev", "test"):
        lines = [{"id": one.id, **one.inputs, **one.labels} for one in (row(split, n) for n in range(rows))]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")


def make(folder: Path, trials: int, rows: int) -> Path:
    """The ledger in `folder`, built when it is not there."""
    path = folder / "ledger.db"
    if not path.exists():
        write_task(folder / "toy", rows)
        asyncio.run(build(path, trials, rows, load_task(folder / "toy")))
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    print(make(given.keep, 1000, 200))
