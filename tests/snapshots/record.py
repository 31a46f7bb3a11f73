"""Records the world of the snapshots again: `python -m tests.snapshots.record`.

Needed where the ledger's schema changes, or what a run asks. Update the snapshots afterwards, and read the difference.
"""

from __future__ import annotations

import csv
import json
import random
import signal
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.batch.provider import BatchProvider
from tests.cli.judges import write_labels
from tests.cli.label_world import write_label_task
from tests.cli.text_world import PLAIN, write_world
from tests.cli.world import (
    INSTRUCTION,
    TOPICS,
    compatible,
    good,
    good_json,
    learner,
    optimize,
    write_csv,
    write_lines,
)
from tests.snapshots.normal import RUN_ID
from tests.snapshots.world import NAMES, RECORDED, REPLIES, pack, surroundings
from tests.wire import WireServer

ROWS = 120
DATA = ["rows.csv", "--target", "label", "--prompt", "p.txt"]
PRICE = ["--price", "1,2", "-q"]
INTERRUPTED_AT = 50
PORT = 20817
"""Of the provider of batches: no server of a test gets it by chance, so nobody answers there."""
SWEEP = """\
tasks = ["rows.csv"]
models = ["scripted/plain.jsonl"]
seeds = [0, 1]

[options]
target = "label"
prompt = "p.txt"
max_calls = 100
trials = 2
price = [1, 2]
"""


def write_inputs() -> None:
    """Writes the files that a user brings."""
    rng = random.Random(1)
    with write_csv(Path("rows.csv"), ROWS).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    Path("p.txt").write_text(INSTRUCTION, "utf-8")
    Path("mail.csv").write_text("text\n" + "".join(f"{row['text']}\n" for row in rows[:4]), "utf-8")
    write_lines("corrected.jsonl", [{"text": f"a new {topic} about {topic} here", "answer": topic} for topic in TOPICS])
    log = [{"reply": reply, "time": f"2026-11-{n % 27 + 1:02d}"} for n, reply in enumerate(list(TOPICS) * 30)]
    write_lines("log.jsonl", log)
    write_lines("drifted.jsonl", [{**row, "reply": rng.choice(["billing", "billing", row["reply"]])} for row in log])
    write_lines("outcomes.jsonl", [{"unit": f"u{n}", "arm": "AB"[n % 2], "outcome": n % 3 % 2} for n in range(60)])
    write_labels(Path("ratings.jsonl"), 36)
    write_labels(Path("rated.jsonl"), 90)
    write_label_task(Path("tasks/mails"), 12)
    tools = [{"name": "lamp_on", "description": "Lights a lamp.", "input_schema": {"type": "object", "properties": {}}}]
    Path("tools.json").write_text(json.dumps(tools), "utf-8")
    replies = [{"match": topic.split()[0], "reply": name} for name, topic in TOPICS.items()]
    write_lines("plain.jsonl", [*replies, {"reply": "billing"}])
    Path("small.toml").write_text(SWEEP, "utf-8")
    write_world("date", ("date", PLAIN), rows=90, sections=3)


def _interrupted(at: int) -> Callable[[list[dict[str, Any]], dict[str, Any]], str]:
    count = 0

    def answer(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
        nonlocal count
        count += 1
        if count == at:
            signal.raise_signal(signal.SIGINT)
        return learner(messages, body)

    return answer


def record() -> dict[str, str]:
    """Makes the runs and releases in the current folder; returns the ids of the runs by name."""
    write_inputs()
    names = {}

    def run(name: str, *words: str) -> None:
        names[name] = good_json(*words)["run_id"]

    start = ["run", *DATA, *PRICE]
    run("first", *start, "-m", "toy/learner", "--max-calls", "130", "--seed", "1", "--proposer", "none")
    good("promote", names["first"], "--actor", "ann")
    run("search", *start, "-m", "toy/learner", "--max-calls", "200", "--tag", "team=blue")
    good("promote", names["search"], "--actor", "ann", "--reason", "better on the sealed test")
    good("promote", names["first"], "--actor", "ann", "--alias", "ab", "--share", "0.2")
    run("kept", *start, "-m", "toy/stubborn", "--max-calls", "100", "--proposer", "none")
    run("blessed", "bless", "rows@production", "--reason", "the first suite", "--actor", "ann", *PRICE)
    run("passed", "check", "rows@production", *PRICE, "--repeats", "1")
    failed = optimize("check", "rows@production", *PRICE, "--repeats", "1", "-m", "toy/stubborn", "--json")
    names["failed"] = json.loads(failed.stdout)["run_id"]
    run("migrated", "migrate", names["search"], "-m", "toy/knowing", *PRICE, "--max-calls", "100", "--margin", "10")
    run("calibrated", "judge", "calibrate", "--labels", "ratings.jsonl", "--input", "question", "--output", "answer",
        "--judge", "toy/judge", *PRICE, "--repeats", "2")  # fmt: skip
    run("matrix", "transfer", names["search"], "--models", "toy/stubborn,toy/knowing", "--top", "2", *PRICE)
    run("customized", "customize", *DATA, *PRICE, "-m", "toy/learner", "--run", names["search"], "--arms",
        "best,retrieved,no-model")  # fmt: skip
    REPLIES["interrupted"] = _interrupted(INTERRUPTED_AT)
    done = optimize(*start, "-m", "toy/interrupted", "--max-calls", "200", "--proposer", "none")
    assert done.exit_code == 130, done.output
    names["interrupted"] = RUN_ID.findall(done.stderr)[-1]
    names["winner"] = good_json("show", names["search"])["result"]["winner"]["candidate_id"]
    run("other", *start, "-m", "toy/learner", "-n", "1", "--db", "other/ledger.db")
    good("ledger", "publish", names["other"], "--to", "sqlite:///team.db", "--db", "other/ledger.db")
    for number, cell in enumerate(good_json("sweep", "small.toml", "-q")["cells"]):
        names[f"cell{number}"] = cell["run_id"]
    names["batched"], names["waiting"] = _batches(start)
    return names


def _batches(start: list[str]) -> tuple[str, str]:
    """A run whose calls went as batches, and one that waits for one; in their own ledger."""
    from agent.gateway import batch_course, batches

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "QUIET_SECONDS", 0.1)
        patch.setattr(batch_course, "FIRST_WAIT", 0.02)
        provider = BatchProvider(learner)
        with WireServer(learner, other=provider, port=PORT) as server:
            words = [
                *start,
                "-m",
                compatible(server),
                "--max-cost",
                "5",
                "-n",
                "1",
                "--batch",
                "--db",
                "batch/ledger.db",
            ]
            run_id = good_json(*words)["run_id"]
            provider.course = ("in_progress",)
            waiting = optimize(*words, "--no-cache", "--batch-wait", "1")
            assert waiting.exit_code != 0, waiting.output
    return run_id, RUN_ID.findall(waiting.stderr)[-1]


def main() -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made).resolve()
        with surroundings(folder):
            names = record()
            (folder / NAMES).write_text(json.dumps(names, indent=1) + "\n", "utf-8")
            for ledger in folder.rglob("*.db"):
                with closing(sqlite3.connect(ledger)) as db:
                    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            pack(folder)
    size = sum(path.stat().st_size for path in RECORDED.rglob("*") if path.is_file())
    print(f"{RECORDED}: {size / 1e6:.2f} MB; next: pytest tests/snapshots --update-snapshots")


if __name__ == "__main__":
    main()
