"""GEPA's published gain on rows of Emotion with gpt-4.1-mini, compared with gains on the same rows.

    python -m tests.bench.arena.published [--data FOLDER]

The predictions stand in the rows of `emotion` (gepa's examples/confidence_adapter). The models differ, so gains over
each one's own first prompt are compared, never levels; each gain is paired by row, with a 95 % interval over rows.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench.arena import results
from tests.bench.arena.data import data_folder, load
from tests.bench.arena.stats import difference_interval, matrix
from tests.bench.arena.systems import SYSTEMS

SET = "emotion"
FIRST = "gpt41mini"
PUBLISHED = {"gepa": "GEPA, published", "gepa_confidence": "GEPA with log-probabilities, published"}
Gain = tuple[str, str, str, str]
"""Who, with which model, the marks of the first prompt and those after the search."""


def published(folder: Path, rows: int) -> Iterator[Gain]:
    """The gains that were published, on the arena's first `rows` test rows."""
    known = {row["id"]: row for row in map(json.loads, (folder / SET / "test.jsonl").read_text("utf-8").splitlines())}
    tested = [known[row.id] for row in load(SET, folder).test[:rows]]
    marks = {name: "".join("01"[row[name] == row["label"]] for row in tested) for name in (FIRST, *PUBLISHED)}
    for name, title in PUBLISHED.items():
        yield title, "gpt-4.1-mini", marks[FIRST], marks[name]


def measured(lines: Sequence[results.Line]) -> Iterator[Gain]:
    """The gains of the arena's systems on that set, each over the user's prompt with the same model and rows."""
    lines = [line for line in lines if line["set"].partition(":")[0] == SET]
    first = {(line["set"], line["model"], line["rows"]): line["marks"] for line in lines if line["system"] == "user"}
    for line in lines:
        if line["system"] != "user" and (own := first.get((line["set"], line["model"], line["rows"]))):
            who = f"{SYSTEMS[line['system']].title}, {line['set']}, {line['budget']} calls, seed {line['seed']}"
            yield who, line["model"], own, line["marks"]


def table(gains: Sequence[Gain]) -> str:
    rows = ["| who | model | rows | first prompt | after | gain |", "|---|---|---|---|---|---|"]
    for who, model, before, after in gains:
        gain = difference_interval([(matrix([after]), matrix([before]))])
        levels = " | ".join(f"{100 * marks.count('1') / len(marks):.1f}" for marks in (before, after))
        span = f"{100 * gain.value:+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
        rows.append(f"| {who} | {model} | {len(before)} | {levels} | {span} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.arena.published")
    parser.add_argument("--data", help="the folder of the rows; else ARENA_DATA, else ../shared/data")
    parser.add_argument("--results", type=Path, default=results.FILE)
    given = parser.parse_args()
    ours = list(measured(results.read(given.results)))
    for rows in sorted({len(before) for _, _, before, _ in ours}) or [0]:
        same = [gain for gain in ours if len(gain[2]) == rows]
        print(table([*published(data_folder(given.data), rows or len(load(SET, data_folder(given.data)).test)), *same]))


if __name__ == "__main__":
    main()
