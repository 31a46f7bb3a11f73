"""What calibration is worth on recorded runs, without a call: every candidate that saw all of dev and of the test.

    python -m tests.bench.calibration LEDGER|FOLDER [...] [--json]

Each is read five ways on the same stored replies: uncalibrated, with label-free weights, with fitted ones, with
neighbours and with a classifier (`prior`), all from its dev rows alone; the neighbours are train rows, whether the
prompt picks examples or not (a run gives them to prompts that do). The classifier of the train rows alone comes last.
Shown are the scores on the test, the paired differences to "as it stands" with their
95 % intervals, the expected calibration error of each way, and how often answers with a confidence of SURE or more are
right. At the end come the winners together, each once: the mean gain of a way with its interval over winners, how many
are more than a point worse, and the answers that are sure. The task's rows are read from its folder; runs whose rows
changed are left out, and so are files that are no ledger. A run without words of a command line is one of the arena
(`ARENA_LEDGERS` keeps those ledgers). Asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import AgentError
from agent.jobs.locations import open_history
from agent.jobs.tasks import task_of
from agent.ledger.query import History, started_with
from agent.prompt.label_calibration import (
    LABELS_FIRST,
    NEIGHBOURS,
    LabelCalibration,
    Method,
    Neighbours,
    Prior,
    calibrated,
    label_scores,
    log_shares,
)
from agent.prompt.parts.calibration import TrainedPrior
from agent.prompt.parts.picks import PickedRows
from agent.prompt.reply_parser import parse_reply
from agent.search.context import dev_rows
from agent.stats.calibration import (
    Weights,
    cross_fitted,
    expected_calibration_error,
    fitted,
    label_free,
    reliability,
    stacked,
)
from agent.stats.intervals import mean_ci, paired_difference
from agent.types import Example, Prediction, Task
from tests.bench.arena.data import data_folder, load

SURE = 0.85
WORSE = -0.01
"""A gain below which a way is called worse."""
Reply = tuple[Prediction, tuple[float, ...] | None]


@dataclass(frozen=True, slots=True)
class Way:
    """One way to read the replies: the score of each test row, the confidence of those that have one, and with a
    classifier the weights of the model and of it."""

    name: str
    hits: list[float]
    sure: list[tuple[float, bool]]
    dev: float
    weighs: tuple[float, float] | None = None


def replies(history: History, run: str, candidate: str, split: str, task: Task) -> dict[str, Reply]:
    """Return by row the uncalibrated reply and the log-probability of each label."""
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
            exact = tuple(reply.get("label_logprobs") or ())
            logs = exact or label_scores(reply["logprobs"], task.signature.outputs[0].choices)
            found[row["example_id"]] = parse_reply(reply["text"], task.signature.outputs), logs
    return found


def ways(task: Task, dev: list[tuple[Example, Reply]], test: list[tuple[Example, Reply]]) -> Iterator[Way]:
    field = task.signature.outputs[0]
    usable = [(row, logs) for row, (_, logs) in dev if logs is not None]
    scores = [logs for _, logs in usable]
    answers = [field.choices.index(row.labels[field.name]) for row, _ in usable]
    pool = PickedRows(task)
    votes = {row.id: pool.votes(row, NEIGHBOURS) for row, _ in (*dev, *test)}
    shares = [log_shares(votes[row.id]) for row, _ in usable]
    free = label_free(scores)
    classifier = TrainedPrior(task)
    said = {row.id: classifier.log_probabilities(row) for row, _ in (*dev, *test)}
    logs = [said[row.id] for row, _ in usable]

    def cross(near: Sequence[Sequence[float]] | None, fit: Any = fitted) -> list[Weights | None]:
        apart = iter(cross_fitted(scores, answers, near, fit))
        return [None if reply[1] is None else next(apart) for _, reply in dev]

    every: list[tuple[Method | None, Weights | None, list[Weights | None]]] = [
        (None, None, [None] * len(dev)),
        ("label-free", free, [free] * len(dev)),
        ("fitted", fitted(scores, answers), cross(None)),
        ("neighbours", fitted(scores, answers, shares), cross(shares)),
        ("prior", stacked(scores, answers, logs), cross(logs, stacked)),
    ]
    for name, weights, each in every:
        beside = said if name == "prior" else votes
        on_dev = [_read(task, row, reply, name, one, beside) for (row, reply), one in zip(dev, each, strict=True)]
        read = [_read(task, row, reply, name, weights, beside) for row, reply in test]
        weighs = (1 / weights.temperature, weights.weight) if weights and name == "prior" else None
        yield _way(name or "as it stands", read, on_dev, weighs)
    alone = [[_alone(task, row, said[row.id]) for row, _ in rows] for rows in (test, dev)]
    yield _way("classifier", *alone)


def _way(
    name: str,
    read: Sequence[tuple[float, float | None]],
    on_dev: Sequence[tuple[float, float | None]],
    weighs: tuple[float, float] | None = None,
) -> Way:
    sure = [(confidence, hit > 0) for hit, confidence in read if confidence is not None]
    return Way(name, [hit for hit, _ in read], sure, sum(hit for hit, _ in on_dev) / len(on_dev), weighs)


def _alone(task: Task, row: Example, logs: tuple[float, ...]) -> tuple[float, float | None]:
    """Whether the classifier alone is right, and its confidence."""
    field = task.signature.outputs[0]
    return float(field.choices[logs.index(max(logs))] == row.labels[field.name]), math.exp(max(logs))


def _read(
    task: Task,
    row: Example,
    reply: Reply,
    method: Method | None,
    weights: Weights | None,
    beside: Mapping[str, tuple[float, ...]],
) -> tuple[float, float | None]:
    """Whether the answer is right (1 or 0), and its confidence."""
    field = task.signature.outputs[0]
    prediction, logs = reply
    if logs is not None:
        named = None
        if method is not None and weights is not None:
            bias = dict(zip(field.choices, weights.bias, strict=True))
            near = Neighbours(NEIGHBOURS, weights.weight) if method == "neighbours" else None
            prior = Prior(weights.weight, "") if method == "prior" else None
            named = LabelCalibration(method, bias, weights.temperature, near, prior)
        prediction = calibrated(prediction, logs, field, named, beside[row.id])
    return float(prediction.fields.get(field.name) == row.labels[field.name]), prediction.confidence


def measured(path: Path) -> Iterator[dict[str, Any]]:
    """One object for each candidate of the ledger's runs that saw both splits whole and has log-probabilities."""
    with closing(open_history(path)) as history:
        for run in history.select("SELECT id FROM runs"):
            row = history.run(run["id"])
            options = row["options"] or {}
            if not row["plan"] or options.get("command"):
                continue
            own = options.get("task")  # runs of the arena have none
            task = task_of(started_with(row)) if own else load(row["task"], data_folder())
            if any(task.hashes.get(split) != row["hashes"].get(split) for split in ("dev", "test")):
                continue
            dev_of = dev_rows(task, row["plan"]["dev_rows"], row["seed"])
            test_of = task.test[: row["plan"]["test_rows"]]
            seen = history.select(
                "SELECT DISTINCT o.candidate_id, p.format, (SELECT l.operator FROM proposals l WHERE l.candidate_id = "
                "o.candidate_id AND l.run_id = o.run_id LIMIT 1) AS operator FROM outcomes o "
                "JOIN candidates p ON p.id = o.candidate_id WHERE o.run_id = ? AND o.split = 'test'",
                row["id"],
            )
            for one in seen:
                both = [replies(history, row["id"], one["candidate_id"], s, task) for s in ("dev", "test")]
                dev = [(each, both[0][each.id]) for each in dev_of if each.id in both[0]]
                test = [(each, both[1][each.id]) for each in test_of if each.id in both[1]]
                known = sum(reply[1] is not None for _, reply in dev)
                if one["format"] in LABELS_FIRST and len(dev) == len(dev_of) and known >= 20 and test:
                    named = {"candidate": one["candidate_id"], "won": one["operator"] != "baseline"}
                    yield {"run": row["id"], **named, **_table(ways(task, dev, test))}


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
                "right": sum(surely),
                "sure_right": sum(surely) / len(surely) if surely else None,
                "weights": way.weighs,
            }
        )
    return {"rows": len(plain.hits), "ways": lines}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ledgers", nargs="+", type=Path, help="files, or folders that are searched for *.db")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    files = [file for path in options.ledgers for file in (sorted(path.rglob("*.db")) if path.is_dir() else [path])]
    winners: dict[tuple[str, str], dict[str, Any]] = {}
    for path in files:
        for found in _measured_or_none(path):
            if found["won"]:
                winners[found["candidate"], str(found["ways"])] = found  # once, however often the run was made
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
                    + ("  weights of model {:.2f}, classifier {:.2f}".format(*way["weights"]) if way["weights"] else "")
                )
    together = list(summary(list(winners.values())))
    for line in together:
        print(json.dumps(line) if options.json else _line(line))


def _measured_or_none(path: Path) -> list[dict[str, Any]]:
    try:
        return list(measured(path))
    except (AgentError, OSError) as error:
        print(f"{path}: left out ({error})", file=sys.stderr)
        return []


def summary(winners: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """For each way but the first what it gains over the winners together."""
    for at, way in enumerate(winners[0]["ways"] if winners else ()):
        each = [winner["ways"][at] for winner in winners]
        gains = [one["diff"] for one in each]
        plain = [winner["ways"][0]["test"] for winner in winners]
        together = paired_difference([one["test"] for one in each], plain, 0)
        sure = sum(one["sure"] for one in each)
        yield {
            "way": way["way"],
            "winners": len(winners),
            "gain": together.diff,
            "gain_ci95": list(together.ci95) if len(winners) > 1 else None,
            "worse": sum(gain < WORSE for gain in gains) / len(gains),
            "sure": sure,
            "rows": sum(winner["rows"] for winner in winners),
            "sure_right": sum(one["right"] for one in each) / sure if sure else None,
        }


def _line(one: Mapping[str, Any]) -> str:
    interval = "[{:+.1f}, {:+.1f}]".format(*(100 * end for end in one["gain_ci95"])) if one["gain_ci95"] else ""
    right = "-" if one["sure_right"] is None else f"{100 * one['sure_right']:.0f} %"
    return (
        f"{one['winners']} winners together, {one['way']:<13} gain {100 * one['gain']:+5.1f} {interval}  "
        f"worse than {100 * WORSE:g}: {100 * one['worse']:.0f} %  "
        f"sure ({SURE:g}): {one['sure']} of {one['rows']} rows, right {right}"
    )


if __name__ == "__main__":
    main()
