"""What the search gains by moving the shape of a JSON answer: one run with these moves against one without.

    taskset -c 1 python -m tests.bench.field_moves --model local/FILE.gguf [--tasks clinic_intake,snips] [--calls 350]

Both runs have the same rows, cap on calls and seed, and one ledger, so what both ask is asked once. Printed for each
task: sealed scores of the user's prompt and of both winners, the paired difference of the winners over the sealed rows
with its 95 % interval, tokens of a call, and the score by field. Nothing is asserted. Ledgers and results are kept in
runs/field_moves (`-o`). The rows of snips are those of `--data` (default ../shared/data/snips) with one intent: its
slots as one JSON object, null where not said.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import agent.api as pa
from agent.release.result import RunResult
from agent.stats.figures import paired_test, points
from agent.stats.intervals import scored_difference
from agent.types import SPLITS, SplitName
from tests.bench.rival import sealed

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data" / "snips"
INTENT = "RateBook"
SNIPS = """\
name = "snips"
description = "Find the slots of a request to a voice assistant."
signature = "request -> slots"
instruction = \"\"\"
Read the request to a voice assistant and write its slots as one JSON object with exactly these keys: {names}.
Each value is the words as they are said, or null when not said. Answer with the JSON object only.
\"\"\"

[fields.slots]
type = "json"
schema = "slots.schema.json"

[search]
techniques = ["zero-shot", "few-shot"]
formats = ["turns", "labelled-turns"]
demo_counts = [3, 6, 9]
"""


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def write_rows(folder: Path, rows: Mapping[SplitName, list[dict[str, Any]]], dev: int, test: int) -> None:
    for split, most in zip(SPLITS, (None, dev, test), strict=True):
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows[split][:most]]
        (folder / f"{split}.jsonl").write_text("".join(lines), "utf-8")


def clinic_intake(folder: Path, dev: int, test: int, data: Path) -> None:
    own = ROOT / "tasks" / "clinic_intake"
    for name in ("task.toml", "record.schema.json"):
        text = (own / name).read_text("utf-8").replace('formats = ["turns", "labelled-turns", "dspy-json"]', "")
        (folder / name).write_text(text.removeprefix("#:schema ../task.schema.json\n"), "utf-8")
    write_rows(folder, {split: lines_of(own / f"{split}.jsonl") for split in SPLITS}, dev, test)


def snips(folder: Path, dev: int, test: int, data: Path) -> None:
    given = {split: [row for row in lines_of(data / f"{split}.jsonl") if row["intent"] == INTENT] for split in SPLITS}
    names = sorted({name for row in given["train"] for name in json.loads(row["slots_json"])})

    def record(row: dict[str, Any]) -> dict[str, Any]:
        said = json.loads(row["slots_json"])
        slots = {name: " ".join(said[name]) if name in said else None for name in names}
        return {"id": row["id"], "request": row["text"], "slots": slots}

    rows = {split: [record(row) for row in found] for split, found in given.items()}
    schema = {
        "type": "object",
        "properties": {name: {"type": ["string", "null"]} for name in names},
        "required": names,
        "additionalProperties": False,
    }
    (folder / "slots.schema.json").write_text(json.dumps(schema, indent=1), "utf-8")
    (folder / "task.toml").write_text(SNIPS.replace("{names}", ", ".join(names)), "utf-8")
    write_rows(folder, rows, dev, test)


TASKS = {"clinic_intake": clinic_intake, "snips": snips}


def compared(folder: Path, model: str, calls: int, seed: int) -> None:
    """Run both searches and print what they came to."""
    found, scores = dict[bool, RunResult](), dict[bool, dict[str, float | None]]()
    db = folder.parent / "runs" / f"{folder.name}-{seed}.db"
    db.parent.mkdir(exist_ok=True)
    for shape in (True, False):
        began, word = time.process_time(), "with" if shape else "without"
        result = pa.optimize(
            folder, model=model, max_calls=calls, seed=seed, db=db, price=(0, 0), shape=shape, anyway=True
        )
        found[shape], scores[shape] = result, sealed(db, result.run_id, result.winner.candidate_id)
        db.with_name(f"{db.stem}-{word}.json").write_text(json.dumps(result.to_json(), indent=1), "utf-8")
        change = result.change
        size = f"{change.winner.tokens_a_call} tokens a call" if change else "own prompt"
        shown = "; ".join(change.answer) if change else ""
        print(
            f"{folder.name} {word} field moves: sealed {points(result.baseline.test)} -> {points(result.winner.test)}, "
            f"{result.decision}; {size}; {shown or 'no shape'}; {time.process_time() - began:.0f} s",
            flush=True,
        )
        for part in result.fields:
            print(
                f"    {part.field}: {points(part.baseline.mean)} -> {points(part.winner.mean)} ({part.winner.n} rows)"
            )
    both = sorted(scores[True].keys() & scores[False].keys())
    gap = scored_difference([scores[True][row] for row in both], [scores[False][row] for row in both], seed)
    if gap is not None:
        print(f"{folder.name}: with minus without {paired_test(gap, f' on {len(both)} sealed rows')}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True, help="such as local/FILE.gguf")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--calls", type=int, default=350)
    parser.add_argument("--dev", type=int, default=30, help="dev rows")
    parser.add_argument("--test", type=int, default=40, help="sealed rows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=DATA, help="the rows of snips")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "runs" / "field_moves")
    given = parser.parse_args()
    for name in given.tasks.split(","):
        folder = given.output / name
        folder.mkdir(parents=True, exist_ok=True)
        TASKS[name](folder, given.dev, given.test, given.data)
        compared(folder, given.model, given.calls, given.seed)


if __name__ == "__main__":
    main()
