"""The audit trail of a run, trial, call or prompt, in order. Reads through History only.

A prompt is named by its candidate's id (`c_...`), by the version of a release made from it (`p_...`, `f_...`), or by
the hash of its template or instruction. Its lineage: its parents with the operators, its trials in every run, its
release.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from agent.errors import InputError
from agent.ledger.chain import AUDITED
from agent.ledger.query import TEXT_PARTS, History, Row, no_price, released_file
from agent.ledger.verify import home_of


def events_of(history: History, run_id: str) -> list[Row]:
    """Return the run's events in order: seq, utc and kind."""
    return history.select("SELECT seq, utc, kind FROM events WHERE run_id = ? ORDER BY seq", run_id)


def _events_about(history: History, run_id: str, table: str, key: Any) -> list[Row]:
    found = history.select(
        "SELECT seq, utc, kind, body FROM events WHERE run_id = ? AND (json_extract(body, '$.insert') = ? AND "
        f"json_extract(body, '$.row.{AUDITED[table][-1]}') = ? OR json_extract(body, '$.update') = ? AND "
        "json_extract(body, '$.key[#-1]') = ?) ORDER BY seq",
        run_id,
        *2 * (table, key),
    )
    return [{**row, "body": json.loads(row["body"])} for row in found]


def trial_states(history: History, run_id: str, number: int) -> list[Row]:
    """Return a trial's states in order: seq, utc, state, n, mean and reason."""
    return [
        {"seq": event["seq"], "utc": event["utc"]}
        | {column: event["body"]["row"][column] for column in ("state", "n", "mean", "reason")}
        for event in _events_about(history, run_id, "trials", number)
    ]


def call_id(history: History, name: str) -> int:
    """Return the id of `call:ID`, `#ID` or a key `k_...` (first settled attempt). Raises InputError."""
    if not name.startswith("k_"):
        return int(name.removeprefix("call:").removeprefix("#"))
    found = history.select(
        "SELECT id FROM calls WHERE call_key = ? ORDER BY state <> 'ok', finish = 'refusal', id LIMIT 1", name
    )
    if not found:
        raise _no_call(history, name)
    return int(found[0]["id"])


def _no_call(history: History, name: object) -> InputError:
    return InputError(f"{history.path}: no call {name}; `optimize audit show RUN:TRIAL` lists the calls of a trial")


def call(history: History, number: int, with_events: bool = True) -> Row:
    """Return a call with row, request, reply (None: erased) and attempts. Its events are slow in a big ledger."""
    unpriced = f"{no_price('calls', 'runs')} AS unpriced FROM calls JOIN runs ON runs.id = run_id"
    found = history.select(f"SELECT calls.*, {unpriced} WHERE calls.id = ?", number)
    if not found:
        raise _no_call(history, number)
    row = found[0]
    same = history.select(
        "SELECT calls.id, run_id, role, attempt, state, finish, error_class, http_status, cost_usd, latency_s, "
        f"sent_utc, request_hash, prefix_hash, response_hash, {unpriced} WHERE call_key = ? ORDER BY calls.id",
        row["call_key"],
    )
    for each in (row, *same):
        if each.pop("unpriced"):
            each["cost_usd"] = None
    source = row
    if row["state"] == "cached":  # it took the first settled reply; refusals are not served
        source = next((other for other in same if other["state"] == "ok" and other["finish"] != "refusal"), row)
    hashes = ("request_hash", "prefix_hash", "response_hash")
    own_number = number - home_of(history.db, row["run_id"]).call_offset  # in the source ledger
    return {
        "call": row,
        "request": _request(history, source),
        "reply": _text(history, source["response_hash"]),
        "attempts": [{name: value for name, value in other.items() if name not in hashes} for other in same],
        "events": _events_about(history, row["run_id"], "calls", own_number) if with_events else [],
    }


def request_of(history: History, call_key: str) -> Row | None:
    """Return the request identity of a key; None if it was erased or never answered."""
    columns = "request_hash, prefix_hash"
    found = history.select(f"SELECT {columns} FROM calls WHERE call_key = ? AND state = 'ok' LIMIT 1", call_key)
    return _request(history, found[0]) if found else None


def _request(history: History, row: Row) -> Row | None:
    body = _text(history, row["request_hash"])
    before = _text(history, row["prefix_hash"]) if row["prefix_hash"] else []
    return None if body is None or before is None else {**body, "messages": [*before, *body["messages"]]}


def _text(history: History, digest: str | None) -> Any:
    text = history.text(digest) if digest else None
    return None if text is None else json.loads(text)


# -- the lineage of a prompt ------------------------------------------------------------------------------------------


def candidates_named(history: History, name: str, versions: Mapping[str, str]) -> list[str]:
    """Return the ids of candidates that start with `name` (6 characters or more), oldest first."""
    if not re.fullmatch("[cpft]?_?[0-9a-f]{6,64}", name):
        given = "a candidate (c_...), a release's version (p_..., f_..., t_...) or a hash from the ledger"
        raise InputError(f"{name}: give {given}")
    if name.startswith(("p_", "f_", "t_")):
        found = [candidate for version, candidate in versions.items() if version.startswith(name)]
    else:
        named = "id GLOB ? OR template_hash GLOB ? OR instruction_hash GLOB ?"
        rows = history.each(f"SELECT id FROM candidates WHERE {named} ORDER BY rowid", *3 * [f"{name}*"])
        found = [row["id"] for row in rows]
    if not found:
        raise InputError(f"{name}: no prompt of this name in {history.path}; `optimize history --json` names them")
    return list(dict.fromkeys(found))


def lineage(history: History, candidate_id: str, versions: Mapping[str, str]) -> Row:
    """Return a candidate's ancestors, trials and release by run, and its alias moves. `mine` marks moves to it."""
    candidate = history.candidate(candidate_id)
    demos = [
        {name: demo[name] for name in ("position", "example_id", "source", "rationale")} for demo in candidate["demos"]
    ]
    rows = history.select("SELECT run_id FROM proposals WHERE candidate_id = ? ORDER BY rowid", candidate_id)
    ids = [row["run_id"] for row in rows]
    runs = {run["id"]: run for run in history.runs()} if ids else {}
    facts = history.facts("promoted", "proposal", run_ids=ids)
    found = [_in_run(history, runs[run_id], candidate, [f for f in facts if f["run_id"] == run_id]) for run_id in ids]
    mine = [version for version, made_from in versions.items() if made_from == candidate_id]
    names = dict.fromkeys(run["task"] for run in found) if mine else {}
    moves = [move for name in names for move in history.alias_moves(name)]
    return {
        "candidate": {**candidate, "demos": demos},
        "runs": found,
        "versions": mine,
        "aliases": [{**move, "mine": move["version"] in mine} for move in moves],
    }


def _in_run(history: History, run: Row, candidate: Row, facts: list[Row]) -> Row:
    run_id = run["id"]
    own = "SELECT number FROM trials WHERE run_id = ? AND (candidate_id = ? OR number = 0)"
    trials = history.trials(run_id, [row["number"] for row in history.select(own, run_id, candidate["id"])])
    result = run["result"] or {}
    file = released_file(run, history.path)
    since = next((fact["body"] for fact in reversed(facts) if fact["kind"] == "promoted"), None)
    promoted = since is not None or result.get("decision") == "promote"
    baseline = next((trial["candidate_id"] for trial in trials if trial["number"] == 0), None)
    released = result.get("winner", {}).get("candidate_id") if promoted else baseline
    kept = ("number", "round", "state", "n", "mean", "low", "high", "reason")
    return {
        "run_id": run_id,
        "task": run["task"],
        "model": run["model"],
        "status": run["status"],
        "started_utc": run["started_utc"],
        "chain": chain_of_parents(history, run_id, candidate["id"]),
        "proposal": _proposal(history, [fact for fact in facts if fact["kind"] == "proposal"], candidate),
        "trials": [{name: t[name] for name in kept} for t in trials if t["candidate_id"] == candidate["id"]],
        "released": file is not None and released == candidate["id"],
        "decision": result.get("decision"),
        "promoted": since,
        "test": (result.get("winner" if promoted else "baseline") or {}).get("test"),
        "release": None if file is None else str(file),
    }


def chain_of_parents(history: History, run_id: str, candidate_id: str) -> list[Row]:
    """Return the ancestors of a candidate in this run: round, operator and reason."""
    rows = history.select(
        "SELECT p.candidate_id, p.round, p.operator, p.parent_id, p.reason, p.rejected, c.technique, c.format, "
        "c.n_examples FROM proposals p LEFT JOIN candidates c ON c.id = p.candidate_id WHERE p.run_id = ?",
        run_id,
    )
    proposed = {row["candidate_id"]: row for row in rows}
    found: list[Row] = []
    seen: set[str] = set()
    here: str | None = candidate_id
    while here is not None and here in proposed and here not in seen:
        seen.add(here)
        found.append(proposed[here])
        here = proposed[here]["parent_id"]
    return found


def _proposal(history: History, proposals: list[Row], candidate: Row) -> Row | None:
    for name, of in ((f"{kind}_hash", of) for kind, of in {**TEXT_PARTS, "instruction": "instruction"}.items()):
        for event in proposals:
            body = event["body"]
            if name not in candidate or body.get(name) != candidate[name]:
                continue
            known = {key: body.get(key) for key in ("round", "operator", "rows", "hypothesis")}
            return {"seq": event["seq"], "utc": event["utc"], "of": of, **known, "claim": _claim(history, body)}
    return None


def claims(history: History, run_id: str) -> dict[int, str]:
    """Map each proposal's number to the proposer's own reasons, unless erased."""
    bodies = [event["body"] for event in history.facts("proposal", run_ids=[run_id])]
    found = {body["number"]: _claim(history, body) for body in bodies if "number" in body}
    return {number: claim for number, claim in found.items() if claim}


def refused_reply(history: History, run_id: str) -> tuple[str, str]:
    """Return the first unusable reply of a run's proposer, and why it is unusable.

    "" for an erased reply, and for both without one.
    """
    bodies = [event["body"] for event in history.facts("proposal_refused", run_ids=[run_id])]
    return next(((history.text(body["instruction_hash"]) or "", body["why"]) for body in bodies), ("", ""))


def _claim(history: History, body: Row) -> str | None:
    digest = body.get("claim_hash")
    return history.text(digest) if digest else None
