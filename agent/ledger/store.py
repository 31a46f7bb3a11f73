"""The ledger: every run, candidate, trial, outcome and call in one SQLite file. Never sees Optuna, a provider or a
metric.

`reserve`, `settle` and `fail` return when the disk has it; everything else is in order with them, and `commit` waits
for all of it.
"""

from __future__ import annotations

import json
import os
import platform
import sqlite3
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from agent.errors import LedgerError, ModelError, TransportUnknown
from agent.ledger.ledger_file import LedgerFile
from agent.ledger.provenance import tool_version, utc_now
from agent.ledger.query import Queries
from agent.ledger.resume_state import ResumeState, resume_state
from agent.ledger.writer import Entry, Statement
from agent.redact import redact, secrets_in
from agent.types import (
    CallRole,
    Completion,
    Message,
    Outcome,
    Request,
    Shown,
    SplitName,
    Task,
    Trial,
    Usage,
)

LONGEST_ERROR = 500  # characters
TOKENS = ("prompt_tokens", "cached_prompt_tokens", "written_prompt_tokens", "completion_tokens")


@dataclass(frozen=True, slots=True)
class Reservation:
    """An attempt (from 1) of a call, as it is written down before anything is sent, with what it may cost at most.

    `endpoint` is the address of the model where it is part of the call's identity, else "".
    """

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


class Ledger(LedgerFile, Queries):
    """What there is to record of a run, and the replies that were paid for. Raises as `LedgerFile`."""

    # -- runs ---------------------------------------------------------------------------------------------------------

    def begin_run(
        self,
        run_id: str,
        task: Task,
        model: str,
        proposer: str,
        seed: int,
        budget: Mapping[str, Any],
        tags: Mapping[str, str],
        *,
        parent: str | None = None,
        origin: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        prices: str = "",
    ) -> None:
        """Opens a run. The task's hashes say which data, metric and rubric it was; `options` are what resumes it."""
        row = {
            "id": run_id,
            "parent": parent,
            "task": task.name,
            "folder": task.folder,
            "status": "running",
            "model": model,
            "proposer": proposer,
            "seed": seed,
            "started_utc": utc_now(),
            "tool": tool_version(),
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
            "origin": _json(origin or {}),
            "options": _json(options or {}),
            "prices": prices,
            "hashes": _json(task.hashes),
            "budget": _json(budget),
            "tags": _json(tags),
        }
        self._put(run_id, "run_started", "runs", row)

    def resume_run(self, run_id: str, budget: Mapping[str, Any]) -> ResumeState:
        """Opens a run again. What it records anew on its way to where it stood is not written twice."""
        state = resume_state(self.db, run_id)
        self._repeated = state.events
        again = {"status": "running", "budget": _json(budget), "error": ""}
        self._set(run_id, "run_resumed", "runs", (run_id,), again)
        return state

    def set_plan(self, run_id: str, plan: Mapping[str, Any]) -> None:
        self._set(run_id, "run_planned", "runs", (run_id,), {"plan": _json(plan)})

    def end_run(
        self, run_id: str, status: str, seconds: float, result: Mapping[str, Any] | None = None, error: str = ""
    ) -> None:
        """Closes a run. `error` is why it failed: kept as one line of at most 500 characters without keys."""
        self._repeated = Counter()
        statements: list[Statement] = []
        changes: dict[str, Any] = {"status": status, "ended_utc": utc_now(), "seconds": round(seconds, 3)}
        if result is not None:
            changes["result_hash"] = self._text(_json(result), statements)
        if error:
            changes["error"] = _line(error)
        self._set(run_id, f"run_{status}", "runs", (run_id,), changes, statements)

    # -- candidates, trials, outcomes ---------------------------------------------------------------------------------

    def add_candidate(
        self,
        run_id: str,
        round_: int,
        shown: Shown,
        template: tuple[Message, ...],
        operator: str,
        parent_id: str | None,
        reason: str,
        rejected: str,
    ) -> None:
        """A candidate with its examples, and how this run came to it; `rejected` is "" for one that may be tried."""
        if shown.id not in self._known:
            self._known.add(shown.id)
            if not self.db.execute("SELECT 1 FROM candidates WHERE id = ?", (shown.id,)).fetchone():
                with self._as_one():  # a candidate without its demos would be another one
                    self._put_candidate(run_id, shown, template)
        proposal = {"run_id": run_id, "round": round_, "candidate_id": shown.id, "parent_id": parent_id}
        proposal |= {"operator": operator, "reason": reason, "rejected": rejected}
        self._put(run_id, "candidate_rejected" if rejected else "candidate_admitted", "proposals", proposal)

    def _put_candidate(self, run_id: str, shown: Shown, template: tuple[Message, ...]) -> None:
        statements: list[Statement] = []
        laid_out = json.dumps([message.as_dict() for message in template], ensure_ascii=False)
        row = {
            **_fields(shown, "id", "technique", "format", "role", "n_examples"),
            "instruction_hash": self._text(shown.text, statements),
            "template_hash": self._text(laid_out, statements),
        }
        self._put(run_id, "candidate_made", "candidates", row, statements)
        for position, demo in enumerate(shown.demos):
            parts: list[Statement] = []
            body = {"inputs": dict(demo.inputs), "outputs": dict(demo.outputs), "rationale": demo.rationale}
            row = {
                "candidate_id": shown.id,
                "position": position,
                "example_id": demo.example_id,
                "source": demo.source,
                "body_hash": self._text(json.dumps(body, ensure_ascii=False), parts),
            }
            self._put(run_id, "demo_made", "demos", row, parts)

    def calibration(self, judge_id: str, run_id: str) -> dict[str, Any] | None:
        """The latest calibration of this judge that `run_id` could know when it ended, or None."""
        known = self.facts("judge_calibrated", judge_id=judge_id)
        ended = self.facts("run_complete", "run_budget", run_ids=[run_id])
        bodies = [fact["body"] for fact in known if not ended or fact["seq"] < ended[0]["seq"]]
        return bodies[-1] if bodies else None

    def latencies(self, run_id: str) -> dict[str, float]:
        """Mean seconds of a settled call by candidate, to be shown; nothing is decided by it."""
        found = self.db.execute(
            "SELECT candidate_id, AVG(latency_s) FROM calls WHERE run_id = ? AND state = 'ok' GROUP BY candidate_id",
            (run_id,),
        )
        return {str(candidate_id): float(mean) for candidate_id, mean in found if mean is not None}

    def seconds_of(self, call_key: str) -> float | None:
        """How long a settled call took, the first time that it was made, or None."""
        first = "SELECT latency_s FROM calls WHERE call_key = ? AND state = 'ok' ORDER BY id LIMIT 1"
        found = self.db.execute(first, (call_key,)).fetchone()
        return None if found is None or found[0] is None else float(found[0])

    def recorded_since(self, utc: str, call_keys: Collection[str]) -> set[str]:
        """Those of the calls of which an attempt was written down at `utc` or later."""
        since = (
            "SELECT DISTINCT call_key FROM calls WHERE call_key IN (SELECT value FROM json_each(?)) "
            "AND sent_utc >= ? AND state <> 'cached'"
        )
        return {key for (key,) in self.db.execute(since, (json.dumps([*call_keys]), utc))}

    def has_replies(self, model: str, task: Task) -> bool:
        """Whether the model has answered for this very task (its rows, metrics and prompt as they are now)."""
        answered = (
            "SELECT 1 FROM runs r JOIN calls k ON k.run_id = r.id "
            "WHERE r.hashes = ? AND k.model = ? AND k.state = 'ok' LIMIT 1"
        )
        return self.db.execute(answered, (_json(task.hashes), model)).fetchone() is not None

    def refuses_temperature(self, model: str) -> bool:
        """Whether the model was seen to take no `temperature`, in any run of this ledger."""
        refused = "SELECT 1 FROM calls WHERE error_class = 'temperature_refused' AND model = ? LIMIT 1"
        return self.db.execute(refused, (model,)).fetchone() is not None

    def put_trial(self, run_id: str, trial: Trial) -> None:
        low, high = trial.ci95 or (None, None)
        row = _fields(trial, "number", "round", "candidate_id", "state", "n", "mean", "reason")
        row |= {"run_id": run_id, "low": low, "high": high}
        self._put(run_id, f"trial_{trial.state}", "trials", row)

    def put_outcome(self, run_id: str, split: SplitName, outcome: Outcome) -> None:
        """What a candidate did on a row. The reply itself is that of the call `call_key`."""
        statements: list[Statement] = []
        body = {
            "fields": dict(outcome.prediction.fields),
            "error": outcome.prediction.error,
            "scores": [[score.metric, score.value, score.reason] for score in outcome.scores],
        }
        row = {
            "run_id": run_id,
            "split": split,
            "candidate_id": outcome.candidate_id,
            "example_id": outcome.example_id,
            "value": outcome.value,
            "call_key": outcome.call_key,
            "body_hash": self._text(json.dumps(body, ensure_ascii=False), statements),
        }
        self._put(run_id, "outcome", "outcomes", row, statements)

    # -- calls --------------------------------------------------------------------------------------------------------

    def settled(self, call_key: str) -> Completion | None:
        """The reply to an identical call that was paid for before, by any run. Refusals are not served."""
        row = self.db.execute(
            "SELECT id FROM calls WHERE call_key = ? AND state = 'ok' AND finish <> 'refusal' ORDER BY id LIMIT 1",
            (call_key,),
        ).fetchone()
        return self.reply(row[0]) if row else None

    def reply(self, call_id: int) -> Completion | None:
        """What a settled attempt brought; None when the text was erased."""
        row = self.db.execute(
            "SELECT COALESCE(k.served_model, k.model), k.finish, k.prompt_tokens, k.cached_prompt_tokens, "
            "k.written_prompt_tokens, k.completion_tokens, b.body "
            "FROM calls k JOIN blobs b ON b.hash = k.response_hash WHERE k.id = ?",
            (call_id,),
        ).fetchone()
        if row is None:
            return None
        reply = json.loads(row[6])
        logprobs = tuple(tuple((token, value) for token, value in top) for top in reply["logprobs"])
        usage, scores = Usage(row[2], row[5], row[3], row[4]), tuple(reply.get("label_logprobs", ()))
        return Completion(reply["text"], row[1], usage, row[0], logprobs, scores)

    async def reserve(self, call: Reservation) -> int:
        """Writes an attempt down, with what it may cost at most, before anything is sent; returns its id."""
        call_id = self._reserve(call)
        await self.commit()
        return call_id

    async def record(self, call: Reservation, outcome: Completion | ModelError, usd: float) -> None:
        """Write an attempt down whose outcome is known, both or nothing. An error is charged `usd`, too."""
        with self._as_one():
            call_id = self._reserve(call)
            if isinstance(outcome, Completion):
                self._settle(call.run_id, call_id, outcome, usd, None)
            else:
                state = "unknown" if isinstance(outcome, TransportUnknown) else "error"
                self._fail(call.run_id, call_id, state, outcome, None, usd)
        await self.commit()

    def _reserve(self, call: Reservation) -> int:
        statements: list[Statement] = []
        identity = call.request.identity(call.endpoint)
        *before, last = identity["messages"]
        prefix = self._text(_prefix(call.request.messages[:-1]), statements) if before else ""
        body = json.dumps({**identity, "messages": [last]}, ensure_ascii=True)
        call_id, self._next_call = self._next_call, self._next_call + 1
        row = {
            "id": call_id,
            **_fields(call, "run_id", "role", "model", "call_key", "candidate_id", "attempt"),
            "state": "reserved",
            "reserved_usd": call.usd,
            "reserved_tokens": call.tokens,
            "sent_utc": utc_now(),
            "prefix_hash": prefix,
            "request_hash": self._text(body, statements),
        }
        self._put(call.run_id, "call_reserved", "calls", row, statements)
        return call_id

    def sent(self, call_id: int) -> None:
        """Notes that the request is on its way. Nobody waits for this: a reserved attempt counts as one in flight."""
        statement = ("UPDATE calls SET state = 'sent' WHERE id = ? AND state = 'reserved'", (call_id,))
        self._writer.put(Entry([statement], self._position, None))

    async def settle(self, run_id: str, call_id: int, completion: Completion, usd: float, latency: float) -> None:
        self._settle(run_id, call_id, completion, usd, latency)
        await self.commit()

    def _settle(self, run_id: str, call_id: int, completion: Completion, usd: float, latency: float | None) -> None:
        statements: list[Statement] = []
        scores = {"label_logprobs": completion.label_logprobs} if completion.label_logprobs else {}
        reply = json.dumps({"text": completion.text, "logprobs": completion.logprobs, **scores}, ensure_ascii=True)
        changes = {
            "state": "ok",
            "finish": completion.finish,
            **_fields(completion.usage, *TOKENS),
            "cost_usd": usd,
            "latency_s": None if latency is None else round(latency, 6),
            "served_model": completion.model,
            "response_hash": self._text(reply, statements),
        }
        self._set(run_id, "call_ok", "calls", (call_id,), changes, statements)

    async def fail(
        self, run_id: str, call_id: int, state: str, error: ModelError | str, latency: float, usd: float
    ) -> None:
        """`usd` is what the failed attempt must be charged: its reservation where it may have been paid for."""
        self._fail(run_id, call_id, state, error, latency, usd)
        await self.commit()

    def _fail(
        self, run_id: str, call_id: int, state: str, error: ModelError | str, latency: float | None, usd: float
    ) -> None:
        changes: dict[str, Any] = {"state": state, "error_class": error, "error": ""}
        changes |= {"http_status": None, "retry_after": None}
        if isinstance(error, ModelError):
            changes |= {"error_class": error.kind, "error": str(error)}
            changes |= {"http_status": error.status, "retry_after": error.retry_after}
        changes |= {"latency_s": None if latency is None else round(latency, 6), "cost_usd": usd}
        self._set(run_id, f"call_{state}", "calls", (call_id,), changes)

    def cache_hit(
        self, run_id: str, role: CallRole, model: str, call_key: str, candidate_id: str, usage: Usage
    ) -> None:
        row = {
            "id": self._next_call,
            "run_id": run_id,
            "role": role,
            "model": model,
            "call_key": call_key,
            "candidate_id": candidate_id,
            "attempt": 0,
            "state": "cached",
            **_fields(usage, *TOKENS),
            "sent_utc": utc_now(),
            "request_hash": "",
        }
        self._next_call += 1
        self._put(run_id, "call_cached", "calls", row)

    # -- erasure ------------------------------------------------------------------------------------------------------

    def erase(self, hashes: Sequence[str], actor: str, reason: str) -> None:
        """Takes payload texts out for good; the chain keeps their hashes, the actor and the reason. Without `hashes`
        an erasure that a full disk cut short is brought to its end: what was erased may stand in the main file still.

        Raises LedgerError when the disk refuses; the same again then completes it.
        """
        if hashes:
            statements = [("DELETE FROM blobs WHERE hash = ?", (digest,)) for digest in hashes]
            body = {"erased": list(hashes), "actor": self._clean(actor), "reason": self._clean(reason)}
            self._record("", "texts_erased", body, statements)
            self._texts.clear()  # what is brought again must be written again
        self.flush()
        try:
            self._writer.copy_log()
        except (sqlite3.Error, OSError) as error:
            raise LedgerError(
                f"{self.path}: erased, but its bytes are still in the file ({error}); make room and give the same "
                "command again"
            ) from error


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), ensure_ascii=False)


@lru_cache(maxsize=256)
def _prefix(messages: tuple[Message, ...]) -> str:
    """All messages but the last: the same for every row of a candidate."""
    return json.dumps([message.as_dict() for message in messages], ensure_ascii=True)


def _line(error: str) -> str:
    text = " ".join(redact(error, secrets_in(os.environ)).split())
    return text if len(text) <= LONGEST_ERROR else f"{text[: LONGEST_ERROR - 1]}…"


def _fields(value: object, *names: str) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names}
