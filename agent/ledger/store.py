"""The ledger: every run, candidate, trial, outcome and call in one SQLite file. Never sees Optuna, a provider or a
metric.

`reserve`, `settle` and `fail` return when the record is on the disk; everything else is written in order with them, and
`commit` waits for all of it.
"""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from agent.errors import LedgerBusy, LedgerError, ModelError, TransportUnknown
from agent.ledger.ledger_file import LedgerFile
from agent.ledger.provenance import tool_version, utc_now
from agent.ledger.query import Queries
from agent.ledger.resume_state import ResumeState, left_state, resume_state
from agent.redact import redact, secrets_in
from agent.types import CallRole, Completion, Message, Outcome, Request, SplitName, Summary, Task, Trial, Usage

LONGEST_ERROR = 500  # characters
TOKENS = ("prompt_tokens", "cached_prompt_tokens", "written_prompt_tokens", "completion_tokens")


@dataclass(frozen=True, slots=True)
class Reservation:
    """An attempt (from 1) of a call with its worst-case cost; `endpoint`: an address that is part of its identity."""

    run_id: str
    role: CallRole
    model: str
    call_key: str
    candidate_id: str
    attempt: int
    request: Request
    usd: float
    tokens: int
    endpoint: str = ""


@dataclass(frozen=True, slots=True)
class NewRun:
    """A new run: `options` resume it, `origin` is its provenance."""

    id: str
    task: Task
    model: str
    proposer: str = ""
    seed: int = 0
    budget: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    parent: str | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    prices: str = ""


@dataclass(frozen=True, slots=True)
class NewCandidate:
    """A candidate and how a run proposed it; `rejected`: why it may not be tried ("": it may)."""

    round: int
    shown: Summary
    template: tuple[Message, ...]
    operator: str
    parent_id: str | None = None
    reason: str = ""
    rejected: str = ""


class Ledger(LedgerFile, Queries):
    """Records of runs, and the replies that were paid for. Raises as `LedgerFile`."""

    # -- runs ---------------------------------------------------------------------------------------------------------

    def begin_run(self, run: NewRun) -> None:
        """Open a run. The task's hashes identify data, metric and rubric."""
        row = {
            **_fields(run, "id", "parent", "model", "proposer", "seed", "prices"),
            **{name: _json(getattr(run, name)) for name in ("budget", "tags", "origin", "options")},
            **_fields(run.task, "folder"),
            "task": run.task.name,
            "hashes": _json(run.task.hashes),
            "status": "running",
            "started_utc": utc_now(),
            "tool": tool_version(),
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
        }
        self._put(run.id, "run_started", "runs", row)

    def resume_run(self, run_id: str, budget: Mapping[str, Any]) -> ResumeState:
        """Reopen a run. Records it repeats are not written twice."""
        state = resume_state(self.db, run_id)
        self._repeated = state.events
        again = {"status": "running", "budget": _json(budget), "error": ""}
        self._set(run_id, "run_resumed", "runs", (run_id,), again)
        return state

    def left_by(self, kind: str, task: Task, model: str, since: str) -> ResumeState:
        """Return what unfinished runs of this kind, task and model bought since `since` (UTC)."""
        return left_state(self.db, kind, _json(task.hashes), model, since)

    def set_plan(self, run_id: str, plan: Mapping[str, Any]) -> None:
        self._set(run_id, "run_planned", "runs", (run_id,), {"plan": _json(plan)})

    def end_run(
        self, run_id: str, status: str, seconds: float, result: Mapping[str, Any] | None = None, error: str = ""
    ) -> None:
        """Close a run. `error`: why it failed, as one line of at most 500 characters without keys."""
        self._repeated = Counter()
        changes: dict[str, Any] = {"status": status, "ended_utc": utc_now(), "seconds": round(seconds, 3)}
        if error:
            changes["error"] = _line(error)
        texts = {} if result is None else {"result_hash": _json(result)}
        self._set(run_id, f"run_{status}", "runs", (run_id,), changes, texts)

    # -- candidates, trials, outcomes ---------------------------------------------------------------------------------

    def add_candidate(self, run_id: str, made: NewCandidate) -> None:
        """Record a candidate with its examples, and how this run proposed it."""
        if made.shown.id not in self._known:
            self._known.add(made.shown.id)
            if not self.db.execute("SELECT 1 FROM candidates WHERE id = ?", (made.shown.id,)).fetchone():
                with self._as_one():  # without its examples it would be another candidate
                    self._put_candidate(run_id, made.shown, made.template)
        proposal = {"run_id": run_id, "candidate_id": made.shown.id}
        proposal |= _fields(made, "round", "parent_id", "operator", "reason", "rejected")
        self._put(run_id, "candidate_rejected" if made.rejected else "candidate_admitted", "proposals", proposal)

    def _put_candidate(self, run_id: str, shown: Summary, template: tuple[Message, ...]) -> None:
        row = _fields(shown, "id", "technique", "format", "role", "n_examples")
        laid_out = json.dumps([message.as_dict() for message in template], ensure_ascii=False)
        texts = {"instruction_hash": shown.text, "template_hash": laid_out}
        self._put(run_id, "candidate_made", "candidates", row, texts)
        for position, demo in enumerate(shown.demos):
            row = {"candidate_id": shown.id, "position": position, **_fields(demo, "example_id", "source")}
            body = {"inputs": dict(demo.inputs), "outputs": dict(demo.outputs), "rationale": demo.rationale}
            self._put(run_id, "example_made", "examples", row, {"body_hash": _json(body)})

    def put_trial(self, run_id: str, trial: Trial) -> None:
        low, high = trial.ci95 or (None, None)
        row = _fields(trial, "number", "round", "candidate_id", "state", "n", "mean", "reason")
        row |= {"run_id": run_id, "low": low, "high": high}
        self._put(run_id, f"trial_{trial.state}", "trials", row)

    def put_outcome(self, run_id: str, split: SplitName, outcome: Outcome) -> None:
        """Record a candidate's outcome on a row; the reply is that of the call `call_key`."""
        body = {
            "fields": dict(outcome.prediction.fields),
            "error": outcome.prediction.error,
            "scores": [[score.metric, score.value, score.reason] for score in outcome.scores],
            **({"trace": outcome.prediction.trace} if outcome.prediction.trace else {}),
        }
        row = {"run_id": run_id, "split": split, **_fields(outcome, "candidate_id", "example_id", "value", "call_key")}
        self._put(run_id, "outcome", "outcomes", row, {"body_hash": _json(body)})

    # -- calls --------------------------------------------------------------------------------------------------------

    def settled(self, call_key: str) -> Completion | None:
        """Return the reply to an identical call paid for by any run. Refusals are not served."""
        row = self.db.execute(
            "SELECT id FROM calls WHERE call_key = ? AND state = 'ok' AND finish <> 'refusal' ORDER BY id LIMIT 1",
            (call_key,),
        ).fetchone()
        return self.reply(row[0]) if row else None

    def reply(self, call_id: int) -> Completion | None:
        """Return the reply of a settled attempt; None if its text was erased."""
        row = self.db.execute(
            "SELECT COALESCE(k.served_model, k.model), k.finish, k.prompt_tokens, k.cached_prompt_tokens, "
            "k.written_prompt_tokens, k.completion_tokens, b.body, k.cost_usd "
            "FROM calls k JOIN blobs b ON b.hash = k.response_hash WHERE k.id = ?",
            (call_id,),
        ).fetchone()
        if row is None:
            return None
        reply = json.loads(row[6])
        logprobs = tuple(tuple((token, value) for token, value in top) for top in reply["logprobs"])
        usage, scores = Usage(row[2], row[5], row[3], row[4], row[7]), tuple(reply.get("label_logprobs", ()))
        return Completion(reply["text"], row[1], usage, row[0], logprobs, scores)

    async def reserve(self, call: Reservation) -> int:
        """Record an attempt with its worst-case cost before anything is sent; return its id."""
        call_id = self._reserve(call)
        await self.commit()
        return call_id

    async def record(self, call: Reservation, outcome: Completion | ModelError, usd: float) -> None:
        """Record an attempt with its known outcome in one transaction. Errors are charged `usd`, too."""
        with self._as_one():
            call_id = self._reserve(call)
            self._end_call(call.run_id, call_id, state_after(outcome), outcome, usd)
        await self.commit()

    def _reserve(self, call: Reservation) -> int:
        identity = call.request.identity(call.endpoint)
        *before, last = identity["messages"]
        texts = {"request_hash": json.dumps({**identity, "messages": [last]})}
        if before:
            texts["prefix_hash"] = _prefix(call.request.messages[:-1])
        call_id, self._next_call = self._next_call, self._next_call + 1
        row = {
            "id": call_id,
            **_fields(call, "run_id", "role", "model", "call_key", "candidate_id", "attempt"),
            "state": "reserved",
            "reserved_usd": call.usd,
            "reserved_tokens": call.tokens,
            "sent_utc": utc_now(),
        }
        self._put(call.run_id, "call_reserved", "calls", row, texts)
        return call_id

    def sent(self, call_id: int) -> None:
        """Mark a request as sent. Nobody waits for this: a reserved attempt counts as in flight."""
        self._entry([("UPDATE calls SET state = 'sent' WHERE id = ? AND state = 'reserved'", (call_id,))])

    async def settle(self, run_id: str, call_id: int, completion: Completion, usd: float, latency: float) -> None:
        self._end_call(run_id, call_id, "ok", completion, usd, latency)
        await self.commit()

    async def fail(
        self, run_id: str, call_id: int, state: str, error: ModelError | str, latency: float, usd: float
    ) -> None:
        """Record a failed attempt. `usd`: its charge, the reservation if it may have been paid for."""
        self._end_call(run_id, call_id, state, error, usd, latency)
        await self.commit()

    def _end_call(
        self,
        run_id: str,
        call_id: int,
        state: str,
        outcome: Completion | ModelError | str,
        usd: float,
        latency: float | None = None,
    ) -> None:
        texts, changes = dict[str, str](), dict[str, Any]()
        if isinstance(outcome, Completion):
            scores = {"label_logprobs": outcome.label_logprobs} if outcome.label_logprobs else {}
            texts["response_hash"] = json.dumps({"text": outcome.text, "logprobs": outcome.logprobs, **scores})
            changes = {"finish": outcome.finish, "served_model": outcome.model, **_fields(outcome.usage, *TOKENS)}
        elif isinstance(outcome, ModelError):
            changes = {"error_class": outcome.code, "error": str(outcome)}
            changes |= {"http_status": outcome.status, "retry_after": outcome.retry_after}
        else:
            changes = {"error_class": outcome, "error": "", "http_status": None, "retry_after": None}
        changes |= {"state": state, "cost_usd": usd, "latency_s": None if latency is None else round(latency, 6)}
        self._set(run_id, f"call_{state}", "calls", (call_id,), changes, texts)

    def cache_hit(
        self, run_id: str, role: CallRole, model: str, call_key: str, candidate_id: str, usage: Usage
    ) -> None:
        row = {"id": self._next_call, "run_id": run_id, "role": role, "model": model, "call_key": call_key}
        row |= {"candidate_id": candidate_id, "attempt": 0, "state": "cached", "sent_utc": utc_now()}
        row |= {"request_hash": "", **_fields(usage, *TOKENS)}
        self._next_call += 1
        self._put(run_id, "call_cached", "calls", row)

    # -- erasure ------------------------------------------------------------------------------------------------------

    def erase(self, hashes: Sequence[str], actor: str, reason: str) -> None:
        """Erase payload texts for good; the chain keeps hashes, actor and reason.

        Without `hashes`: complete an erasure that a full disk interrupted. Raises LedgerError when the disk refuses;
        the same call then completes it.
        """
        if hashes:
            statements = [("DELETE FROM blobs WHERE hash = ?", (digest,)) for digest in hashes]
            body = {"erased": list(hashes), "actor": self._clean(actor), "reason": self._clean(reason)}
            self._record("", "texts_erased", body, statements=statements)
            self._texts.clear()  # recorded again, texts must be written again
        self.flush()
        try:
            self._writer.copy_log()
        except (sqlite3.Error, OSError) as error:
            raise LedgerError(
                f"{self.path}: erased, but its bytes are still in the file ({error}); free space and run the "
                "command again"
            ) from error


def state_after(outcome: Completion | ModelError) -> str:
    """Return the state of an attempt that ended so."""
    if isinstance(outcome, Completion):
        return "ok"
    return "unknown" if isinstance(outcome, TransportUnknown) else "error"


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), ensure_ascii=False)


@lru_cache(maxsize=256)
def _prefix(messages: tuple[Message, ...]) -> str:
    return json.dumps([message.as_dict() for message in messages])


def _line(error: str) -> str:
    text = " ".join(redact(error, secrets_in(os.environ)).split())
    return text if len(text) <= LONGEST_ERROR else f"{text[: LONGEST_ERROR - 1]}…"


def _fields(value: object, *names: str) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names}


def open_ledger(db: Path, patience: float = 10.0) -> Ledger:
    """Open the ledger for writing, after at most `patience` seconds of waiting. Raises LedgerBusy."""
    end = time.monotonic() + patience
    while True:
        try:
            return Ledger(db)
        except LedgerBusy:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
