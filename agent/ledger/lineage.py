"""How a prompt came about: its candidate, its parents with the operators, its trials in every run, and its release.

Reads through History only. A prompt is named by its candidate's id (`c_...`), by the version of a release made from it
(`p_...`), or by the hash of its template or its instruction.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from agent.errors import InputError
from agent.ledger.query import History, Row, released_file
from agent.ledger.trail import facts_by_run


def candidates_named(history: History, name: str, versions: Mapping[str, str]) -> list[str]:
    """The ids of the candidates that `name` stands for, also by its start (6 characters or more), oldest first.

    `versions`: ids of candidates by the version of their release. Raises InputError when there is none.
    """
    found: list[str] = []
    if not re.fullmatch("[cp]?_?[0-9a-f]{6,64}", name):
        raise InputError(f"{name}: give a candidate (c_...), a release's version (p_...) or a hash from the ledger")
    if name.startswith("p_"):
        found = [candidate for version, candidate in versions.items() if version.startswith(name)]
    else:
        rows = history.select(
            "SELECT id FROM candidates WHERE substr(id, 1, ?1) = ?2 OR substr(template_hash, 1, ?1) = ?2 "
            "OR substr(instruction_hash, 1, ?1) = ?2 ORDER BY rowid",
            len(name),
            name,
        )
        found = [row["id"] for row in rows]
    if not found:
        raise InputError(f"{name}: no prompt of this name in {history.path}; `optimize history --json` names them")
    return list(dict.fromkeys(found))


def lineage(history: History, candidate_id: str, versions: Mapping[str, str]) -> Row:
    """The candidate, and for each run that proposed it: the chain to its first ancestor, its trials, its release.

    Of a released one also `labels`: every move of the labels of its name, with `mine` where the label came to it.
    """
    candidate = history.candidate(candidate_id)
    demos = [
        {name: demo[name] for name in ("position", "example_id", "source", "rationale")} for demo in candidate["demos"]
    ]
    rows = history.select("SELECT run_id FROM proposals WHERE candidate_id = ? ORDER BY rowid", candidate_id)
    ids = [row["run_id"] for row in rows]
    runs = {run["id"]: run for run in history.runs()} if ids else {}
    promoted, proposed = (facts_by_run(history, ids, kind) for kind in ("promoted", "proposal"))
    found = [
        _in_run(history, runs[run_id], candidate, promoted.get(run_id, []), proposed.get(run_id, [])) for run_id in ids
    ]
    mine = [version for version, made_from in versions.items() if made_from == candidate_id]
    names = dict.fromkeys(run["task"] for run in found) if mine else {}
    moves = [move for name in names for move in history.label_moves(name)]
    return {
        "candidate": {**candidate, "demos": demos},
        "runs": found,
        "versions": mine,
        "labels": [{**move, "mine": move["version"] in mine} for move in moves],
    }


def _in_run(history: History, run: Row, candidate: Row, promotions: list[Row], proposals: list[Row]) -> Row:
    run_id = run["id"]
    own = "SELECT number FROM trials WHERE run_id = ? AND (candidate_id = ? OR number = 0)"
    trials = history.trials(run_id, [row["number"] for row in history.select(own, run_id, candidate["id"])])
    result = run["result"] or {}
    file = released_file(run, history.path)
    since = promotions[-1]["body"] if promotions else None
    promoted = since is not None or result.get("decision") == "promote"
    released = result.get("winner", {}).get("candidate_id") if promoted else _baseline(trials)
    kept = ("number", "round", "state", "n", "mean", "low", "high", "reason")
    return {
        "run_id": run_id,
        "task": run["task"],
        "model": run["model"],
        "status": run["status"],
        "started_utc": run["started_utc"],
        "chain": chain_of_parents(history, run_id, candidate["id"]),
        "proposal": _proposal(proposals, candidate),
        "trials": [{name: t[name] for name in kept} for t in trials if t["candidate_id"] == candidate["id"]],
        "released": file is not None and released == candidate["id"],
        "decision": result.get("decision"),
        "promoted": since,
        "test": (result.get("winner" if promoted else "baseline") or {}).get("test"),
        "release": None if file is None else str(file),
    }


def _baseline(trials: list[Row]) -> Any:
    return next((trial["candidate_id"] for trial in trials if trial["number"] == 0), None)


def chain_of_parents(history: History, run_id: str, candidate_id: str) -> list[Row]:
    """From the candidate to its first ancestor in this run: round, operator and reason of each."""
    rows = history.select(
        "SELECT p.candidate_id, p.round, p.operator, p.parent_id, p.reason, p.rejected, c.technique, c.format, "
        "c.n_demos FROM proposals p LEFT JOIN candidates c ON c.id = p.candidate_id WHERE p.run_id = ?",
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


def _proposal(proposals: list[Row], candidate: Row) -> Row | None:
    """The event in which the proposer gave this instruction, if it is one of its."""
    for event in proposals:
        body = event["body"]
        named = body.get("instruction_hash") == candidate["instruction_hash"]
        if named or body.get("instruction") == candidate["instruction"][:2000]:
            return {"seq": event["seq"], "utc": event["utc"], "round": event["body"].get("round")}
    return None
