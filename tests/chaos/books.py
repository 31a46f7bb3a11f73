"""Compare a ledger after a fault with the provider's bill: the promises that no fault may break.

It reads copies, so reading repairs nothing.
"""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.ledger.verify import verify
from tests.chaos.server import body_key
from tests.cli.world import TOPICS

ASKED = "WHERE candidate_id NOT IN (SELECT id FROM candidates WHERE format = 'no model')"
"""Outcomes of prompts: yardsticks make no calls."""
DOLLARS_IN, DOLLARS_OUT = 1.0, 2.0
"""The price of every run, in dollars per million tokens."""
TRIAL = "number, round, candidate_id, state, n, mean, low, high, reason"
CALL = (
    "id, state, call_key, cost_usd, reserved_usd, error_class, latency_s, served_model, "
    "prefix_hash, request_hash, response_hash"
)
LABEL = re.compile("|".join(TOPICS))


@dataclass(slots=True)
class Books:
    """A ledger as it is on the disk, with its write-ahead log."""

    calls: list[dict[str, Any]]
    texts: dict[str, str]
    trials: dict[str, list[tuple[Any, ...]]]
    outcomes: dict[tuple[str, str, str, str], tuple[float | None, str]]
    status: dict[str, str]
    results: dict[str, dict[str, Any]]
    damage: list[str] = field(default_factory=list)

    @property
    def run_id(self) -> str:
        """The only run, or the one that began last."""
        return list(self.status)[-1]

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """What may have been sent: all but cache hits and what was held back in time."""
        return [call for call in self.calls if call["state"] != "cached" and call["error_class"] != "not_sent"]

    def in_state(self, *states: str) -> list[dict[str, Any]]:
        return [call for call in self.calls if call["state"] in states]

    def settled(self) -> dict[int, str]:
        """Each settled call with the hash of its reply."""
        return {call["id"]: call["response_hash"] for call in self.in_state("ok")}

    def unscored(self) -> int:
        return sum(value is None for value, _ in self.outcomes.values())

    def bodies(self) -> Counter[str]:
        """How often each request may have been sent, by the name that the server gives it."""
        return Counter(body_key(self._body(call)) for call in self.attempts)

    def _body(self, call: Mapping[str, Any]) -> dict[str, Any]:
        asked = json.loads(self.texts[call["request_hash"]])
        before = json.loads(self.texts[call["prefix_hash"]]) if call["prefix_hash"] else []
        body = {name: asked[name] for name in ("max_tokens", "temperature")}
        body |= {"model": "x", "messages": [*before, *asked["messages"]]}
        if asked["logprobs"]:
            body |= {"logprobs": True, "top_logprobs": asked["logprobs"]}
        return body if asked["seed"] is None else body | {"seed": asked["seed"]}

    def standing(self, run_id: str = "") -> dict[str, Any]:
        """What may not depend on any fault: trials, outcomes and the result without what it cost."""
        run_id = run_id or self.run_id
        result = self.results.get(run_id, {})
        winner = {name: value for name, value in (result.get("winner") or {}).items() if name != "tokens_a_call"}
        return {
            "trials": self.trials.get(run_id, []),
            "outcomes": {key[1:]: value for key, (value, _) in self.outcomes.items() if key[0] == run_id},
            "winner": winner or None,
            **{name: result.get(name) for name in ("baseline", "lift", "decision")},
        }

    def wrong_zeros(self) -> Iterator[str]:
        """Scores of 0 without a settled reply that says something else than the label. Labels come from `rows.csv`."""
        replies = {call["call_key"]: self.texts.get(call["response_hash"]) for call in self.in_state("ok")}
        for (_, split, _, example), (value, key) in self.outcomes.items():
            if value != 0.0:
                continue
            said = json.loads(replies.get(key) or "{}").get("text")
            label = list(TOPICS)[int(example.removeprefix("r")) % len(TOPICS)]
            if said is None or set(LABEL.findall(said.lower())) == {label}:
                yield f"{split} row {example} scored 0 with the reply {said!r}"


@contextmanager
def copied(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a copy of a ledger that no process has open, its write-ahead log included."""
    with tempfile.TemporaryDirectory(prefix="books-") as scratch:
        copy = Path(scratch) / path.name
        for tail in ("", "-wal"):
            if (own := path.with_name(path.name + tail)).exists():
                shutil.copyfile(own, copy.with_name(copy.name + tail))
        with closing(sqlite3.connect(copy)) as db:
            yield db


def has_run(path: Path) -> bool:
    """Whether any run was noted before the process was killed."""
    if not path.exists():
        return False
    with copied(path) as db:
        tables = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'runs'").fetchone()
        return tables is not None and db.execute("SELECT 1 FROM runs").fetchone() is not None


def read_books(path: Path) -> Books:
    """The books of a ledger that no process has open."""
    with copied(path) as db:
        return _read(db)


def _read(db: sqlite3.Connection) -> Books:
    damage = [f"integrity_check: {line}" for (line,) in db.execute("PRAGMA integrity_check") if line != "ok"]
    damage += [f"verify: event {finding.seq}: {finding.what}" for finding in verify(db)]
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'runs'").fetchone():
        return Books([], {}, {}, {}, {}, {})  # killed before the tables were there
    runs = db.execute("SELECT id, status, result_hash FROM runs ORDER BY started_utc, rowid").fetchall()
    texts = dict(db.execute("SELECT hash, body FROM blobs"))
    names = CALL.replace(" ", "").split(",")
    trials: dict[str, list[tuple[Any, ...]]] = {}
    for run_id, *row in db.execute(f"SELECT run_id, {TRIAL} FROM trials ORDER BY run_id, number"):
        trials.setdefault(run_id, []).append(tuple(row))
    outcomes = db.execute(
        f"SELECT run_id, split, candidate_id, example_id, value, call_key FROM outcomes {ASKED}"
    ).fetchall()
    return Books(
        calls=[dict(zip(names, row, strict=True)) for row in db.execute(f"SELECT {CALL} FROM calls ORDER BY id")],
        texts=texts,
        trials=trials,
        outcomes={(run, split, candidate, row): (value, key) for run, split, candidate, row, value, key in outcomes},
        status={run: status for run, status, _ in runs},
        results={run: json.loads(texts[found]) for run, _, found in runs if found},
        damage=damage,
    )


def broken_promises(
    books: Books, bill: Mapping[str, Any] | None = None, before: Books | None = None, max_cost: float | None = None
) -> list[str]:
    """What does not hold: the file, the chain, settled calls kept and never bought again, every request and dollar of
    the provider's `bill` in the ledger, the cap. `before` are the books of an earlier moment of the same ledger.
    """
    found = [*books.damage, *books.wrong_zeros()]
    kept = books.settled()
    if before is not None and (lost := [n for n, reply in before.settled().items() if kept.get(n) != reply]):
        found.append(f"{len(lost)} settled calls were lost, such as call {lost[0]}")
    settled: set[str] = set()
    for call in books.attempts:
        if call["call_key"] in settled:
            found.append(f"call {call['id']} was settled before and bought again")
        if call["state"] == "ok":
            settled.add(call["call_key"])
    open_usd = sum(call["reserved_usd"] for call in books.in_state("reserved", "sent"))
    charged = sum(call["cost_usd"] for call in books.calls) + open_usd
    if max_cost is not None and charged > max_cost + 1e-9:
        found.append(f"${charged:.6f} charged, above the cap of ${max_cost}")
    if bill is not None:
        found += _against(books, bill, charged)
    return found


def _against(books: Books, bill: Mapping[str, Any], charged: float) -> Iterator[str]:
    """What the provider saw and the ledger does not know."""
    known = books.bodies()
    more = {key: count for key, count in bill["by_key"].items() if count > known[key]}
    if more:
        yield f"{len(more)} requests came more often than the ledger says"
    billed = dollars(bill)
    if charged < billed - 1e-9:
        yield f"the provider billed ${billed:.6f}, the ledger charged ${charged:.6f}"
    if (attempts := len(books.attempts)) < bill["requests"]:
        yield f"the provider saw {bill['requests']} requests, the ledger {attempts}"
    if bill["requests"] < len(books.in_state("ok")):
        yield f"the provider saw {bill['requests']} requests, the ledger settled {len(books.in_state('ok'))}"


def dollars(bill: Mapping[str, Any]) -> float:
    """Return what the provider billed for calls, in dollars."""
    return float(bill["prompt_tokens"] * DOLLARS_IN + bill["completion_tokens"] * DOLLARS_OUT) / 1e6


def differences(found: Books, expected: Books) -> list[str]:
    """Where the last run of `found` did not come out as that of `expected`."""
    one, two = found.standing(), expected.standing()
    return [f"not as undisturbed: {name} ({_first(one[name], two[name])})" for name in one if one[name] != two[name]]


def _first(one: Any, two: Any) -> str:
    if isinstance(one, dict) and isinstance(two, dict):
        key = next(key for key in {**one, **two} if one.get(key) != two.get(key))
        return f"{key}: {one.get(key)} for {two.get(key)}"[:200]
    if isinstance(one, list) and isinstance(two, list):
        if len(one) != len(two):
            return f"{len(one)} for {len(two)}"
        return next(f"{a} for {b}" for a, b in zip(one, two, strict=True) if a != b)[:300]
    return f"{one} for {two}"[:200]
