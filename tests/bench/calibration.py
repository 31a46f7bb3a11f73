"""What label weights are worth on recorded runs, without a call: every candidate that saw all of dev and of the test.

    python -m tests.bench.calibration LEDGER [LEDGER ...] [--json]

Each is read three ways on the same stored replies: as it stands, with label-free weights and with fitted ones, both
from its dev rows alone. Shown are the scores on the test, the paired differences to "as it stands" with their 95 %
intervals, the expected calibration error of each way, and how often answers with a confidence of 0.9 or more are right.
The task's rows are read from its folder; runs whose rows changed are left out. Asserts nothing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.ledger.query import History, started_with
from agent.prompt.label_weights import LABELS_FIRST, LabelWeights, label_scores, weighed
from agent.prompt.reply_parser import parse_reply
from agent.run.locations import open_history
from agent.run.tasks import task_of
from agent.search.context import dev_rows
from agent.stats.calibration import Weights, cross_fitted, expected_calibration_error, fitted, label_free, reliability
from agent.stats.intervals import mean_ci, paired_difference
from agent.types import Example, Prediction, Task

SURE = 0.9
Reply = tuple[Prediction, tuple[float, ...] | None]


@dataclass(frozen=True, slots=True)
class Way:
    """One way to read the replies: the score of each test row, the confidence of those that have one."""

    name: str
    hits: list[float]
    sure: list[tuple[float, bool]]
    dev: float


def replies(history: History, run: str, candidate: str, split: str, task: Task) -> dict[str, Reply]:
    """By row the reply as it stands, and the log-probability of each label."""
    rows = history.select(
        "SELECT o.example_id, (SELECT r.body FROM calls k JOIN blobs r ON r.hash = k.response_hash "
        "WHERE k.call_key = o.call_key AND k.state = 'ok' LIMIT 1) AS reply FROM outcomes o "
        "WHERE o.run_id = ? AND o.candidate_id = ? AND o.split = ?",
        run,
        candidate,
        split,
    )
    found: dict[str, Reply] = {}
    for row in rows:
        if row["reply"]:  # what the run read may have been decided by weights already
            reply = json.loads(row["reply"])
            logs = label_scores(reply["logprobs"], task.signature.outputs[0].choices)
            found[row["example_id"]] = parse_reply(reply["text"], task.signature.outputs), logs
    return found


def ways(task: Task, dev: list[tuple[Example, Reply]], test: list[tuple[Example, Reply]]) -> Iterator[Way]:
    field = task.signature.outputs[0]
    usable = [(row, logs) for row, (_, logs) in dev if logs is not None]
    scores = [logs for _, logs in usable]
    answers = [field.choices.index(row.labels[field.name]) for row, _ in usable]
    free = label_free(scores)
    apart = iter(cross_fitted(scores, answers))
    cross: list[Weights | None] = [None if reply[1] is None else next(apart) for _, reply in dev]
    every: list[tuple[str, Weights | None, list[Weights | None]]] = [
        ("as it stands", None, [None] * len(dev)),
        ("label-free", free, [free] * len(dev)),
        ("fitted", fitted(scores, answers), cross),
    ]
    for name, weights, each in every:
        on_dev = [_read(task, row, reply, one) for (row, reply), one in zip(dev, each, strict=True)]
        read = [_read(task, row, reply, weights) for row, reply in test]
        sure = [(confidence, hit > 0) for hit, confidence in read if confidence is not None]
        yield Way(name, [hit for hit, _ in read], sure, sum(hit for hit, _ in on_dev) / len(on_dev))


def _read(task: Task, row: Example, reply: Reply, weights: Weights | None) -> tuple[float, float | None]:
    """Whether the answer is right (1 or 0), and its confidence."""
    field = task.signature.outputs[0]
    prediction, logs = reply
    if logs is not None:
        named = weights and LabelWeights(
            "fitted", dict(zip(field.choices, weights.bias, strict=True)), weights.temperature
        )
        prediction = weighed(prediction, logs, field, named)
    return float(prediction.fields.get(field.name) == row.labels[field.name]), prediction.confidence


def measured(path: Path) -> Iterator[dict[str, Any]]:
    """One object for each candidate of the ledger's runs that saw both splits whole and has log-probabilities."""
    with closing(open_history(path)) as history:
        for run in history.select("SELECT id FROM runs"):
            row = history.run(run["id"])
            words: Mapping[str, Any] = started_with(row) or {}
            if not row["plan"] or words.get("command"):
                continue
            task = task_of(words)
            if any(task.hashes.get(split) != row["hashes"].get(split) for split in ("dev", "test")):
                continue
            dev_of = dev_rows(task, row["plan"]["dev_rows"], row["seed"])
            test_of = task.test[: row["plan"]["test_rows"]]
            seen = history.select(
                "SELECT DISTINCT o.candidate_id, p.format FROM outcomes o JOIN candidates p ON p.id = o.candidate_id "
                "WHERE o.run_id = ? AND o.split = 'test'",
                row["id"],
            )
            for one in seen:
                both = [replies(history, row["id"], one["candidate_id"], s, task) for s in ("dev", "test")]
                dev = [(each, both[0][each.id]) for each in dev_of if each.id in both[0]]
                test = [(each, both[1][each.id]) for each in test_of if each.id in both[1]]
                known = sum(reply[1] is not None for _, reply in dev)
                if one["format"] in LABELS_FIRST and len(dev) == len(dev_of) and known >= 20 and test:
                    yield {"run": row["id"], "candidate": one["candidate_id"], **_table(ways(task, dev, test))}


def _table(found: Iterator[Way]) -> dict[str, Any]:
    plain, *others = found
    lines = []
    for way in (plain, *others):
        mean, low, high = mean_ci(way.hits)
        difference = paired_difference(way.hits, plain.hits, 0)
        surely = [ok for confidence, ok in way.sure if confidence >= SURE]
        bins = reliability([confidence for confidence, _ in way.sure], [ok for _, ok in way.sure])
        lines.append(
            {
                "way": way.name,
                "dev": way.dev,
                "test": mean,
                "ci95": [low, high],
                "diff": difference.diff,
                "diff_ci95": list(difference.ci95),
                "ece": expected_calibration_error(bins) if bins else None,
                "sure": len(surely),
                "sure_right": sum(surely) / len(surely) if surely else None,
            }
        )
    return {"rows": len(plain.hits), "ways": lines}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ledgers", nargs="+", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for path in options.ledgers:
        for found in measured(path):
            if options.json:
                print(json.dumps(found))
                continue
            print(f"{path} {found['run']} {found['candidate']}, {found['rows']} test rows")
            for way in found["ways"]:
                low, high = (100 * end for end in way["diff_ci95"])
                ece = "    -" if way["ece"] is None else f"{100 * way['ece']:5.1f}"
                right = "-" if way["sure_right"] is None else f"{100 * way['sure_right']:.0f} %"
                print(
                    f"  {way['way']:<13} dev {100 * way['dev']:5.1f}  test {100 * way['test']:5.1f}  "
                    f"difference {100 * way['diff']:+5.1f} [{low:+.1f}, {high:+.1f}]  ECE {ece}  "
                    f"sure ({SURE:g}): {way['sure']} rows, right {right}"
                )


if __name__ == "__main__":
    main()
