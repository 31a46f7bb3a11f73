"""How large the report of a big ledger is, and how long it takes: 1,000 trials on 200 rows each, long texts everywhere.

    python -m tests.bench.report_size [--json] [--trials 1000] [--rows 200] [-o FILE]

The ledger is built by our own writer. Exits with 1 when the file is not under 3 MB. Asserts no time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from agent.ledger.query import History
from agent.ledger.store import Ledger
from agent.report.html import report_html
from agent.report.view import RunView
from agent.types import Example, Outcome, Prediction, Score
from tests.bench.big_ledger import RUN, build, candidate_of
from tests.toys import make_task

LIMIT = 3_000_000
LONG = "a long word and another one " * 120


def build_finished(path: Path, trials: int, rows: int, sealed: int) -> None:
    """The run of `big_ledger`, with a sealed test of that many rows, on all of which the second prompt is better."""
    asyncio.run(build(path, trials, rows))
    task, ledger = make_task(sealed), Ledger(path)
    baseline, winner = (candidate_of(make_task(rows), number) for number in (0, 1))
    for candidate, value in ((baseline, 0.0), (winner, 1.0)):
        for row in task.test:
            score = Score("exact_match", value, f"reason {row.id} {LONG}")
            said = Prediction({"team": f"answer {row.id} {LONG}"}, "")
            ledger.put_outcome(RUN, "test", Outcome(candidate.id, row.id, said, (score,), value))
    ledger.end_run(RUN, "complete", 60.0, result(winner.id, sealed))
    ledger.close()


def result(winner: str, rows: int) -> dict[str, Any]:
    found = {"technique": "few-shot", "format": "turns", "n_examples": 8, "instruction": LONG, "dev_corrected": 0.4}
    lift = {"diff": 1.0, "ci95": [0.9, 1.0], "p_value": 1e-9, "wins": rows, "losses": 0, "ties": 0, "n": rows}
    return {
        "run_id": RUN,
        "task": "big",
        "status": "complete",
        "model": "a/b",
        "seed": 0,
        "baseline": {"dev": 0.3, "test": 0.0},
        "winner": {**found, "candidate_id": winner, "dev": 0.5, "test": 1.0, "prompt_tokens": 290},
        "lift": lift,
        "decision": "promote",
        "trials": {"complete": 1000, "pruned": 0, "failed": 0},
        "calls": {"model": 1, "proposer": 0, "judge": 0, "cached": 0},
        "tokens": {"prompt": 1, "completion": 1},
        "cost_usd": 1.0,
        "seconds": 60.0,
        "release": "",
        "ledger_head": "",
    }


def report_of(path: Path, sealed: int) -> str:
    """The report, with long rows in the place of the task's files."""
    view = RunView(History(path), RUN)
    made = {
        row.id: Example(row.id, {"message": f"input {row.id} {LONG}"}, row.labels) for row in make_task(sealed).test
    }
    view.__dict__["examples"] = {"test": made}  # the cached answer of RunView.examples
    return report_html(view)


def bench(trials: int, rows: int, output: Path | None) -> dict[str, Any]:
    """The object that --json prints."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "ledger.db")
        started = time.perf_counter()
        build_finished(path, trials, rows, rows)
        built = time.perf_counter() - started
        started = time.perf_counter()
        html = report_of(path, rows)
        taken = time.perf_counter() - started
        if output is not None:
            output.write_text(html, "utf-8")
        return {
            "trials": trials,
            "rows": rows,
            "ledger_mb": round(path.stat().st_size / 1e6, 1),
            "build_s": round(built, 1),
            "report_mb": round(len(html.encode()) / 1e6, 3),
            "report_s": round(taken, 2),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description="Size and time of the report of a big ledger.")
    parser.add_argument("--json", action="store_true", help="one object on standard output")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=200, help="of each trial, and of the sealed test")
    parser.add_argument("-o", "--output", type=Path, help="keep the report here")
    given = parser.parse_args()
    found = bench(given.trials, given.rows, given.output)
    print(json.dumps(found) if given.json else "\n".join(f"{name:<12}{value}" for name, value in found.items()))
    if found["report_mb"] * 1e6 >= LIMIT:
        sys.exit(f"the report has {found['report_mb']} MB")


if __name__ == "__main__":
    main()
