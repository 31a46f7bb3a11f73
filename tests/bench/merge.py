"""What a team's ledger costs: many ledgers with a million calls between them, merged, verified and read.

    python -m tests.bench.merge [--json] [--calls 1000000] [--ledgers 20] [--times 5] [--disk /var/tmp]

The ledgers are written quickly, by SQL, with the rows, texts and events that a run writes (each call reserved, settled,
scored) and with valid chains: each is verified by the merge. Of each command: seconds on the clock with the
interpreter's start, seconds of the processor (which other work on the machine does not change), and its largest memory;
of the reading ones the quickest of --times. Exits with 1 when the merged ledger lacks a run or a call. Asserts no
time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.ledger.chain import link
from agent.ledger.store import Ledger, NewRun
from agent.types import canonical
from tests.toys import make_task

TRIALS = 50  # of each run
UTC = "2026-01-01T00:00:00.000+00:00"
MODEL = "openai-compatible/x@http://127.0.0.1:1/v1"
PREFIX = json.dumps(
    [{"role": "system", "content": "Answer with one team. " + "An example of a message and its team. " * 20}]
)
Event = tuple[str, dict[str, Any]]


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Filler:
    """Writes a ledger past our writer: rows and events by the thousand in one transaction."""

    def __init__(self, path: Path, run_id: str) -> None:
        with closing(Ledger(path)) as ledger:
            ledger.begin_run(NewRun(run_id, make_task(), MODEL))
        self.run_id = run_id
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("PRAGMA synchronous = OFF")
        self.seq, self.head = self.db.execute("SELECT seq, hash FROM head").fetchone()
        self.columns = {
            table: [name for _, name, *_ in self.db.execute(f"PRAGMA table_info({table})")]
            for table in ("candidates", "proposals", "trials", "outcomes", "calls")
        }

    def fill(self, calls: int) -> None:
        per_trial = max(calls // TRIALS, 1)
        self.db.execute("BEGIN")
        self.text(PREFIX)
        for trial in range(TRIALS):
            self.trial(trial, per_trial)
        self.db.execute("INSERT OR REPLACE INTO head VALUES (1, ?, ?)", (self.seq, self.head))
        self.db.execute("COMMIT")
        self.db.close()

    def text(self, text: str) -> str:
        digest = sha256(text)
        self.db.execute("INSERT OR IGNORE INTO blobs VALUES (?, ?)", (digest, text))
        return digest

    def event(self, kind: str, body: dict[str, Any]) -> None:
        self.seq += 1
        event = {"seq": self.seq, "run_id": self.run_id, "utc": UTC, "kind": kind, "body": canonical(body)}
        previous, self.head = self.head, link(self.head, event)
        self.db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", (*event.values(), previous, self.head))

    def insert(self, table: str, row: dict[str, Any]) -> None:
        names = ", ".join(row)
        self.db.execute(f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(row))})", tuple(row.values()))

    def put(self, kind: str, table: str, row: dict[str, Any]) -> None:
        self.insert(table, row)
        self.event(kind, {"insert": table, "row": row})

    def trial(self, number: int, rows: int) -> None:
        candidate = f"c_{sha256(f'{self.run_id} {number}')[:16]}"
        shown = {"technique": "few-shot", "format": "turns", "role": "", "n_examples": 0}
        texts = {"instruction_hash": self.text(f"Answer. {number}"), "template_hash": self.text(f"[{number}]")}
        self.put("candidate_made", "candidates", {"id": candidate, **shown, **texts})
        proposal = {"parent_id": None, "operator": "instruction", "reason": "a wording", "rejected": ""}
        run = {"run_id": self.run_id, "candidate_id": candidate, "round": 0}
        self.put("candidate_admitted", "proposals", {**run, **proposal})
        for row in range(rows):
            self.call(candidate, number, row)
        numbers = {"n": rows, "mean": 0.5, "low": 0.4, "high": 0.6}
        self.put("trial_complete", "trials", {**run, "number": number, "state": "complete", **numbers, "reason": ""})

    def call(self, candidate: str, trial: int, row: int) -> None:
        number = trial * 10_000_000 + row + 1
        key = f"k_{sha256(f'{self.run_id} {number}')[:16]}"
        request = {
            "max_tokens": 8,
            "messages": [{"role": "user", "content": f"message {number} " + "of some words " * 12}],
        }
        reserved = {"id": number, "run_id": self.run_id, "role": "model", "model": MODEL, "call_key": key}
        reserved |= {"candidate_id": candidate, "attempt": 1, "state": "reserved", "reserved_usd": 0.0}
        reserved |= {"reserved_tokens": 300, "sent_utc": UTC, "prefix_hash": sha256(PREFIX)}
        reserved |= {"request_hash": self.text(json.dumps(request))}
        settled = {"state": "ok", "finish": "stop", "prompt_tokens": 290, "cached_prompt_tokens": 0}
        settled |= {"written_prompt_tokens": 0, "completion_tokens": 3, "cost_usd": 0.0, "latency_s": 0.2}
        reply = self.text(json.dumps({"text": f"team {row % 3}", "logprobs": []}))
        settled |= {"served_model": MODEL, "response_hash": reply}
        self.insert("calls", reserved | settled)
        self.event("call_reserved", {"insert": "calls", "row": reserved})
        self.event("call_ok", {"update": "calls", "key": [number], "set": settled})
        body = {"fields": {"team": f"team {row % 3}"}, "error": "", "scores": [["exact_match", 1.0, f"row {row}"]]}
        outcome = {"run_id": self.run_id, "split": "dev", "candidate_id": candidate, "example_id": f"dev-{row}"}
        outcome |= {"value": 1.0, "call_key": key, "body_hash": self.text(json.dumps(body))}
        self.put("outcome", "outcomes", outcome)


@dataclass(frozen=True)
class Cost:
    """What a command took: seconds on the clock and of the processor, and megabytes at its largest."""

    wall: float
    cpu: float
    mb: float

    def as_dict(self, name: str) -> dict[str, float]:
        return {
            f"{name}_s": round(self.wall, 2),
            f"{name}_cpu_s": round(self.cpu, 2),
            f"{name}_peak_mb": round(self.mb),
        }


def measured(*words: str | Path) -> tuple[Cost, str]:
    """What an `optimize` command takes, and what it prints. Ends this process when it fails."""
    command = [sys.executable, "-m", "promptassay", *map(str, words)]
    with tempfile.TemporaryFile() as out:
        started = time.perf_counter()
        child = os.posix_spawn(command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, out.fileno(), 1)])
        _, status, used = os.wait4(child, 0)
        taken = time.perf_counter() - started
        out.seek(0)
        text = out.read().decode()
    if status:
        sys.exit(f"{' '.join(command[2:5])} failed:\n{text[-2000:]}")
    return Cost(taken, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024), text


def ledgers(folder: Path, count: int, calls: int) -> Iterator[Path]:
    for number in range(count):
        path = folder / f"{number:02}.db"
        Filler(path, f"20260101T0000{number:02}-abcdef").fill(calls // count)
        yield path


def bench(calls: int, count: int, times: int, disk: Path) -> dict[str, Any]:
    """The object that --json prints."""
    with tempfile.TemporaryDirectory(dir=disk) as name:
        folder, team = Path(name), Path(name) / "team.db"
        started = time.process_time()
        sources = list(ledgers(folder, count, calls))
        made = time.process_time() - started
        one, _ = measured("audit", "verify", "--db", sources[0])
        merge, said = measured("ledger", "merge", *sources, "-o", team, "--json")
        verify, _ = measured("audit", "verify", "--db", team)
        last = f"20260101T0000{count - 1:02}-abcdef"
        history = [measured("history", last, "--db", team, "--json") for _ in range(times)]
        runs = [measured("runs", "--db", team, "--json") for _ in range(times)]
        merged, trials = json.loads(said), json.loads(history[0][1])["trials"]
        had = sum(trial["calls"] for trial in trials)
        if merged["runs"] != count or merged["calls"] != had * count or len(trials) != TRIALS:
            sys.exit(f"of {count} runs the merged ledger has {merged['runs']}, with {merged['calls']} calls")
        size = team.stat().st_size
        return {
            "ledgers": count,
            "calls": merged["calls"],
            "events": merged["events"],
            "bytes_a_call": round(size / merged["calls"]),
            "merged_mb": round(size / 1e6, 1),
            "build_cpu_s": round(made, 1),
            **one.as_dict("verify_one_source"),
            **merge.as_dict("merge"),
            **verify.as_dict("verify"),
            **min((cost for cost, _ in history), key=lambda cost: cost.wall).as_dict("history"),
            **min((cost for cost, _ in runs), key=lambda cost: cost.wall).as_dict("runs"),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description="What a team's ledger costs.")
    parser.add_argument("--json", action="store_true", help="one object on standard output")
    parser.add_argument("--calls", type=int, default=1_000_000, help="in all ledgers together")
    parser.add_argument("--ledgers", type=int, default=20)
    parser.add_argument("--times", type=int, default=5, help="how often each reading command is asked")
    parser.add_argument("--disk", type=Path, default=Path("/var/tmp"), help="a folder on a real disk")
    given = parser.parse_args()
    result = bench(given.calls, given.ledgers, given.times, given.disk)
    print(json.dumps(result) if given.json else "\n".join(f"{name:<28}{value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
