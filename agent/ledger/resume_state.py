"""What an interrupted run has bought and recorded. Reads only."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from agent.types import CallRole, Spend

OVERBILLED = "overbilled"  # kind of the event about a reply that cost more than its reservation
NO_CALLS = ("not_sent", "rate_limit")
"""Error classes of attempts that are not calls: cancelled before sending, or refused with 429."""
IS_CALL = f"COALESCE(error_class, '') NOT IN {NO_CALLS}"  # SQL: whether an attempt is a call, which caps count


@dataclass(slots=True)
class ResumeState:
    """State of an interrupted run; the first four are consumed as the run repeats its way.

    `bought`: ids of settled attempts by call key, in order. `hits`: uses of other replies by (call key, candidate).
    `events`: events that the run records again, by (kind, body). `losses`: failed attempts by call key, without 429s.
    `paid`: charges by role: calls of every kind, tokens and dollars, unknown outcomes at their reservation; `lost_usd`
    of it without a reply. `seconds`: earlier run time. `limited`: number of 429s. `excess`: by model, the largest ratio
    of cost to reservation (`times` of an OVERBILLED event). `left`: ids of settled attempts of unfinished runs that
    this one continues, by call key; they answer as the cache does.
    """

    bought: dict[str, list[int]] = field(default_factory=dict)
    hits: Counter[tuple[str, str]] = field(default_factory=Counter)
    events: Counter[tuple[str, str]] = field(default_factory=Counter)
    losses: Counter[str] = field(default_factory=Counter)
    paid: Mapping[CallRole, Spend] = field(default_factory=dict)
    seconds: float = 0.0
    lost_usd: float = 0.0
    limited: int = 0
    excess: dict[str, Mapping[str, float]] = field(default_factory=dict)
    left: dict[str, list[int]] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        """Attempts without a reply; read it before `bought` is consumed."""
        return sum(spend.calls for spend in self.paid.values()) - sum(map(len, self.bought.values()))


def resume_state(db: sqlite3.Connection, run_id: str) -> ResumeState:
    found, paid = ResumeState(), dict[CallRole, Spend]()
    for number, role, key, candidate_id, state, kind, failed, tokens, reserved, usd in db.execute(
        "SELECT id, role, call_key, candidate_id, state, COALESCE(error_class, ''), error <> '', "
        "prompt_tokens + completion_tokens, reserved_tokens, cost_usd FROM calls WHERE run_id = ? ORDER BY id",
        (run_id,),
    ):
        if state == "cached":
            found.hits[key, candidate_id] += 1
            continue
        if state == "ok":
            found.bought.setdefault(key, []).append(number)
        else:
            found.lost_usd += usd
            tokens = reserved if state == "unknown" or kind == "bad_response" else 0
        found.limited += kind == "rate_limit"
        if kind not in NO_CALLS:
            found.losses[key] += bool(failed)
            paid[role] = paid.get(role, Spend()) + Spend(1, tokens, usd)
    found.paid = dict(sorted(paid.items()))
    found.losses += Counter()  # without the calls that never failed
    found.events.update(
        db.execute(
            "SELECT kind, body FROM events WHERE run_id = ? AND kind NOT LIKE 'call/_%' ESCAPE '/' "
            "AND kind NOT LIKE 'run/_%' ESCAPE '/'",
            (run_id,),
        )
    )
    for (body,) in db.execute(
        "SELECT body FROM events WHERE run_id = ? AND kind = ? ORDER BY seq", (run_id, OVERBILLED)
    ):
        event = json.loads(body)
        found.excess[event["model"]] = event["times"]
    found.seconds = _seconds(db, run_id)
    return found


def left_state(db: sqlite3.Connection, kind: str, hashes: str, model: str, since: str) -> ResumeState:
    """Collect what unfinished runs of this kind, task and model bought `since` a time.

    Runs before the last finished one do not count.
    """
    same = "json_extract(tags, '$.kind') = ? AND hashes = ? AND model = ? AND result_hash IS"
    found = ResumeState()
    for key, number in db.execute(
        "SELECT call_key, id FROM calls WHERE state = 'ok' AND finish <> 'refusal' AND run_id IN (SELECT id FROM runs "
        f"WHERE {same} NULL AND started_utc >= ? AND started_utc > COALESCE((SELECT MAX(started_utc) FROM runs WHERE "
        f"{same} NOT NULL), '')) ORDER BY id",
        (kind, hashes, model, since, kind, hashes, model),
    ):
        found.left.setdefault(key, []).append(number)
    return found


def _seconds(db: sqlite3.Connection, run_id: str) -> float:
    total, start, last = 0.0, None, ""
    for kind, utc in db.execute(
        "SELECT kind, utc FROM events WHERE run_id = ? AND kind NOT LIKE '%found/_open' ESCAPE '/' ORDER BY seq",
        (run_id,),
    ):
        if kind in ("run_started", "run_resumed"):
            total += _between(start, last)
            start = utc
        last = utc
    return total + _between(start, last)


def _between(start: str | None, end: str) -> float:
    return 0.0 if start is None else (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
