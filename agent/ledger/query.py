"""Reading the ledger: what ran, what each trial was, what it cost. Opens the file read-only; writes nothing."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from agent.errors import InputError, LedgerError
from agent.ledger.chain import first_break

Row = dict[str, Any]


class History:
    """Questions to a ledger file. Raises LedgerError when it is not one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._db = sqlite3.connect(f"file:{path.resolve().as_posix()}?mode=ro", uri=True, timeout=30)
            self._db.row_factory = sqlite3.Row
            self._db.execute("SELECT id FROM runs LIMIT 1")
        except sqlite3.Error as error:
            raise LedgerError(f"{path}: not a readable ledger ({error}); name another file with --db") from error

    def _all(self, sql: str, *values: Any) -> list[Row]:
        try:
            return [dict(row) for row in self._db.execute(sql, values)]
        except sqlite3.Error as error:
            raise LedgerError(
                f"{self.path}: the ledger cannot be read ({error}); name another file with --db"
            ) from error

    def runs(self) -> list[Row]:
        """Every run, newest first, with `result` as the object that --json printed (or None)."""
        rows = self._all("SELECT * FROM runs ORDER BY started_utc DESC, id DESC")
        return [
            {**row, **{key: _load(row[key]) for key in ("hashes", "budget", "plan", "result", "tags")}} for row in rows
        ]

    def run(self, run_id: str = "") -> Row:
        """One run by id or by the unique start of its id; the latest without one. Raises InputError."""
        found = [row for row in self.runs() if row["id"].startswith(run_id)]
        if not found:
            raise InputError(f"{self.path}: no run {run_id or 'yet'}; `optimize runs` lists them")
        if run_id and len(found) > 1 and found[0]["id"] != run_id:
            raise InputError(f"{run_id}: the start of {len(found)} run ids; give more of it")
        return found[0]

    def trials(self, run_id: str) -> list[Row]:
        """Each trial with its candidate, demos by row id, operator, and what it cost, cached calls apart."""
        rows = self._all(
            """
            SELECT t.number, t.round, t.state, t.n, t.mean, t.low, t.high, t.reason, c.id AS candidate_id, c.technique,
                   c.format, c.role, c.n_demos, c.instruction, p.operator, p.parent_id, p.reason AS proposal,
                   (SELECT json_group_array(example_id) FROM (SELECT example_id FROM demos d
                     WHERE d.candidate_id = c.id ORDER BY position)) AS demos,
                   COALESCE(SUM(k.state NOT IN ('cached')), 0) AS calls, COALESCE(SUM(k.state = 'cached'), 0) AS cached,
                   COALESCE(SUM(CASE WHEN k.state <> 'cached' THEN k.prompt_tokens + k.completion_tokens END), 0)
                     AS tokens,
                   COALESCE(SUM(k.cost_usd), 0) AS cost_usd, COALESCE(SUM(k.latency_s), 0) AS seconds
            FROM trials t JOIN candidates c ON c.id = t.candidate_id
            LEFT JOIN proposals p ON p.candidate_id = c.id AND p.run_id = t.run_id
            LEFT JOIN calls k ON k.candidate_id = c.id AND k.run_id = t.run_id
            WHERE t.run_id = ? GROUP BY t.number ORDER BY t.number
            """,
            run_id,
        )
        return [{**row, "demos": json.loads(row["demos"])} for row in rows]

    def candidate(self, candidate_id: str) -> Row:
        """A candidate with its template and its demos in order."""
        rows = self._all("SELECT * FROM candidates WHERE id = ?", candidate_id)
        if not rows:
            raise InputError(f"{candidate_id}: no such candidate in {self.path}")
        demos = self._all("SELECT * FROM demos WHERE candidate_id = ? ORDER BY position", candidate_id)
        decoded = [
            {**demo, "inputs": json.loads(demo["inputs"]), "outputs": json.loads(demo["outputs"])} for demo in demos
        ]
        return {**rows[0], "template": json.loads(rows[0]["template"]), "demos": decoded}

    def outcomes(self, run_id: str, candidate_id: str, split: str) -> list[Row]:
        """What a candidate did on each row."""
        rows = self._all(
            "SELECT example_id, value, reply, fields, error, scores FROM outcomes "
            "WHERE run_id = ? AND candidate_id = ? AND split = ? ORDER BY rowid",
            run_id,
            candidate_id,
            split,
        )
        return [{**row, "fields": json.loads(row["fields"]), "scores": json.loads(row["scores"])} for row in rows]

    def costs(self, run_id: str) -> list[Row]:
        """Calls, tokens, dollars and seconds by role and state."""
        return self._all(
            "SELECT role, model, state, COUNT(*) AS calls, SUM(prompt_tokens) AS prompt_tokens, "
            "SUM(cached_prompt_tokens) AS cached_prompt_tokens, SUM(completion_tokens) AS completion_tokens, "
            "SUM(cost_usd) AS cost_usd, SUM(latency_s) AS seconds FROM calls WHERE run_id = ? "
            "GROUP BY role, model, state ORDER BY role DESC, state",
            run_id,
        )

    def rejected(self, run_id: str) -> list[Row]:
        """Candidates that broke a hard rule and were never tried."""
        return self._all(
            "SELECT candidate_id, operator, rejected FROM proposals WHERE run_id = ? AND rejected <> ''", run_id
        )

    def chain_break(self) -> int | None:
        """The seq of the first event that does not follow from the one before, or None."""
        return first_break(self._all("SELECT * FROM events ORDER BY seq"))


def _load(text: str | None) -> Any:
    return None if text is None else json.loads(text)
