"""The ledger: every run, candidate, trial, outcome and call in one SQLite file. The only importer of sqlite_utils and
the only writer. Never sees Optuna, a provider or a metric.

Payload text goes through `safe`: lone surrogates, which SQLite cannot hold, become escapes.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from agent.errors import LedgerError
from agent.ledger.chain import GENESIS, link
from agent.ledger.schema import STEPS
from agent.types import (
    CallRole,
    Candidate,
    Completion,
    Message,
    Outcome,
    Request,
    SplitName,
    Task,
    Trial,
    Usage,
    canonical,
)


def utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def tool_version() -> str:
    try:
        return version("promptassay")
    except PackageNotFoundError:
        return "0+source"


def safe(text: str) -> str:
    """`text` as SQLite can hold it; a text without lone surrogates stays as it is."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class Ledger:
    """One open ledger file. Raises LedgerError, with the path, for a file that is not one or that is locked."""

    def __init__(self, path: Path) -> None:
        import sqlite_utils

        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                path.touch(mode=0o600)
            connection = sqlite3.connect(path, timeout=30, isolation_level="DEFERRED")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
            self.db = sqlite_utils.Database(connection, recursive_triggers=True)
            self._migrate()
        except (sqlite3.Error, OSError) as error:
            raise LedgerError(f"{path}: not a usable ledger ({error}); name another file with --db") from error

    def _migrate(self) -> None:
        done = self._schema()
        if done > len(STEPS):
            raise LedgerError(f"{self.path}: written by a newer version (schema {done}); upgrade, or use another --db")
        for number, step in enumerate(STEPS[done:], done + 1):
            try:
                self.db.conn.executescript(f"BEGIN IMMEDIATE; {step} PRAGMA user_version = {number}; COMMIT;")
            except sqlite3.Error:
                self.db.conn.rollback()
                if self._schema() < number:  # else another process took this step at the same time
                    raise

    def _schema(self) -> int:
        return int(self.db.conn.execute("PRAGMA user_version").fetchone()[0])

    def close(self) -> None:
        self.db.conn.close()

    # -- runs and events ----------------------------------------------------------------------------------------------

    def begin_run(
        self,
        run_id: str,
        task: Task,
        model: str,
        proposer: str,
        seed: int,
        budget: Mapping[str, Any],
        tags: Mapping[str, str],
    ) -> None:
        """Opens a run. The task's hashes say which data, metric and rubric it was."""
        self.db["runs"].insert(
            {
                "id": run_id,
                "task": task.name,
                "folder": safe(task.folder),
                "status": "running",
                "model": safe(model),
                "proposer": safe(proposer),
                "seed": seed,
                "started_utc": utc_now(),
                "tool": tool_version(),
                "python": platform.python_version(),
                "sqlite": sqlite3.sqlite_version,
                "hashes": json.dumps(dict(task.hashes)),
                "budget": json.dumps(dict(budget)),
                "tags": json.dumps(dict(tags)),
            }
        )
        self.event(
            run_id, "run_started", {"task": task.name, "model": model, "seed": seed, "hashes": dict(task.hashes)}
        )

    def set_plan(self, run_id: str, plan: Mapping[str, Any]) -> None:
        self.db["runs"].update(run_id, {"plan": json.dumps(plan)})

    def end_run(self, run_id: str, status: str, ended: Mapping[str, Any]) -> str:
        """Closes a run; returns the head hash of the chain after the closing event."""
        head = self.event(run_id, f"run_{status}", ended)
        self.db["runs"].update(run_id, {"status": status, "ended_utc": utc_now()})
        return head

    def put_result(self, run_id: str, result: Mapping[str, Any]) -> None:
        self.db["runs"].update(run_id, {"result": json.dumps(result)})

    def event(self, run_id: str, kind: str, body: Mapping[str, Any]) -> str:
        """Appends to the chain; returns the new head hash."""
        with self.db.conn:
            self.db.conn.execute("BEGIN IMMEDIATE") if not self.db.conn.in_transaction else None
            last = self.db.conn.execute("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1").fetchone()
            seq, prev = (last[0] + 1, last[1]) if last else (1, GENESIS)
            row = {"seq": seq, "run_id": run_id, "utc": utc_now(), "kind": kind, "body": safe(canonical(body))}
            head = link(prev, row)
            self.db.conn.execute(
                "INSERT INTO events (seq, run_id, utc, kind, body, prev_hash, hash) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*row.values(), prev, head),
            )
        return head

    def head(self) -> str:
        last = self.db.conn.execute("SELECT hash FROM events ORDER BY seq DESC LIMIT 1").fetchone()
        return str(last[0]) if last else GENESIS

    # -- candidates, trials, outcomes ---------------------------------------------------------------------------------

    def add_candidate(
        self,
        run_id: str,
        round_: int,
        candidate: Candidate,
        template: tuple[Message, ...],
        operator: str,
        parent_id: str | None,
        reason: str,
        rejected: str,
    ) -> None:
        """A candidate with its demos, and how this run came to it; `rejected` is "" for one that may be tried."""
        row = {
            "id": candidate.id,
            "technique": candidate.technique,
            "format": candidate.format,
            "role": safe(candidate.role),
            "instruction": safe(candidate.instruction),
            "n_demos": len(candidate.demos),
            "template": safe(json.dumps([message.as_dict() for message in template], ensure_ascii=False)),
        }
        demos = [
            {
                "candidate_id": candidate.id,
                "position": position,
                "example_id": demo.example_id,
                "inputs": safe(json.dumps(dict(demo.inputs), ensure_ascii=False)),
                "outputs": safe(json.dumps(dict(demo.outputs), ensure_ascii=False)),
                "rationale": safe(demo.rationale),
                "source": demo.source,
            }
            for position, demo in enumerate(candidate.demos)
        ]
        proposal = {
            "run_id": run_id,
            "round": round_,
            "candidate_id": candidate.id,
            "parent_id": parent_id,
            "operator": operator,
            "reason": safe(reason),
            "rejected": safe(rejected),
        }
        with self.db.conn:
            self.db["candidates"].insert(row, ignore=True)
            if demos:
                self.db["demos"].insert_all(demos, ignore=True)
            self.db["proposals"].insert(proposal, ignore=True)

    def put_trial(self, run_id: str, trial: Trial) -> None:
        low, high = trial.ci95 or (None, None)
        row = {
            "run_id": run_id,
            "number": trial.number,
            "round": trial.round,
            "candidate_id": trial.candidate_id,
            "state": trial.state,
            "n": trial.n,
            "mean": trial.mean,
            "low": low,
            "high": high,
            "reason": safe(trial.reason),
        }
        self.db["trials"].upsert(row, pk=("run_id", "number"))

    def put_outcomes(self, run_id: str, split: SplitName, outcomes: list[Outcome]) -> None:
        self.db["outcomes"].insert_all(
            [
                {
                    "run_id": run_id,
                    "split": split,
                    "candidate_id": outcome.candidate_id,
                    "example_id": outcome.example_id,
                    "value": outcome.value,
                    "reply": safe(outcome.prediction.raw),
                    "fields": safe(json.dumps(dict(outcome.prediction.fields), ensure_ascii=False)),
                    "error": safe(outcome.prediction.error),
                    "scores": safe(
                        json.dumps([[s.metric, s.value, s.reason] for s in outcome.scores], ensure_ascii=False)
                    ),
                    "call_key": outcome.call_key,
                }
                for outcome in outcomes
            ],
            replace=True,
            pk=("run_id", "split", "candidate_id", "example_id"),
        )

    # -- calls --------------------------------------------------------------------------------------------------------

    def settled(self, call_key: str) -> Completion | None:
        """The reply to an identical call that was paid for before, by any run."""
        row = self.db.conn.execute(
            "SELECT model, finish, prompt_tokens, cached_prompt_tokens, completion_tokens, response_hash FROM calls "
            "WHERE call_key = ? AND state = 'ok' LIMIT 1",
            (call_key,),
        ).fetchone()
        body = row and self.db.conn.execute("SELECT body FROM blobs WHERE hash = ?", (row[5],)).fetchone()
        if not body:
            return None
        reply = json.loads(body[0])
        logprobs = tuple(tuple((token, value) for token, value in top) for top in reply["logprobs"])
        return Completion(reply["text"], row[1], Usage(row[2], row[4], row[3]), row[0], logprobs)

    def reserve(
        self,
        run_id: str,
        role: CallRole,
        model: str,
        call_key: str,
        candidate_id: str,
        attempt: int,
        request: Request,
        usd: float,
    ) -> int:
        """Writes an attempt down before it is sent; returns its id."""
        row = {
            "run_id": run_id,
            "role": role,
            "model": safe(model),
            "call_key": call_key,
            "candidate_id": candidate_id,
            "attempt": attempt,
            "state": "sent",
            "reserved_usd": usd,
            "sent_utc": utc_now(),
        }
        with self.db.conn:
            row["request_hash"] = self._blob(json.dumps(request.identity(), ensure_ascii=True))
            return int(self.db["calls"].insert(row).last_pk)

    def settle(self, call_id: int, completion: Completion, usd: float, latency: float) -> None:
        reply = {"text": completion.text, "logprobs": completion.logprobs}
        with self.db.conn:
            self.db["calls"].update(
                call_id,
                {
                    "state": "ok",
                    "finish": completion.finish,
                    **_tokens(completion.usage),
                    "cost_usd": usd,
                    "latency_s": latency,
                    "response_hash": self._blob(json.dumps(reply, ensure_ascii=True)),
                },
            )

    def fail(
        self, call_id: int, error_class: str, error: str, latency: float, usd: float, outcome: str = "error"
    ) -> None:
        """`usd` is what the failed attempt must be charged: its reservation where it may have been paid for."""
        self.db["calls"].update(
            call_id,
            {"state": outcome, "error_class": error_class, "error": safe(error), "latency_s": latency, "cost_usd": usd},
        )

    def cache_hit(
        self, run_id: str, role: CallRole, model: str, call_key: str, candidate_id: str, usage: Usage
    ) -> None:
        row = {
            "run_id": run_id,
            "role": role,
            "model": safe(model),
            "call_key": call_key,
            "candidate_id": candidate_id,
            "attempt": 0,
            "state": "cached",
            **_tokens(usage),
            "sent_utc": utc_now(),
            "request_hash": "",
        }
        self.db["calls"].insert(row)

    def _blob(self, body: str) -> str:
        digest = hashlib.sha256(body.encode()).hexdigest()
        self.db["blobs"].insert({"hash": digest, "body": body}, ignore=True)
        return digest


def _tokens(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "cached_prompt_tokens": usage.cached_prompt_tokens,
        "completion_tokens": usage.completion_tokens,
    }


def default_path() -> Path:
    """OPTIMIZE_DB, else runs/ledger.db under the current folder."""
    return Path(os.environ.get("OPTIMIZE_DB") or Path("runs") / "ledger.db")
