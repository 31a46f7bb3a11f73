"""Read the ledger: runs, trials, costs. Writes nothing; a damaged file is refused."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.errors import InputError, LedgerError, ProblemsError
from agent.ledger.connect import NeedsWriter, readable, reader, require_whole
from agent.ledger.files import is_held
from agent.ledger.resume_state import IS_CALL
from agent.ledger.verify import ALIAS_MOVED
from agent.options.run import RecordedOptions
from agent.types import Task

Row = dict[str, Any]
ERASED = "(erased)"  # placeholder of an erased text
CALIBRATED_EVENT = "calibration"  # event with the calibration of a candidate
RETRIEVAL_EVENTS = {"picks": "candidate_picks", "passages": "candidate_passages"}
"""Events with a candidate's settings of picked examples and retrieved passages."""
TEXT_PARTS = {"tool_texts": "texts of the tools", "shape": "shape of the answer"}
"""The parts of a candidate with texts of their own."""
TEXT_EVENTS = {name: f"candidate_{name}" for name in TEXT_PARTS}
"""Events with a candidate's settings of these parts."""
FINE_TUNING = ("fine_tuning_files", "fine_tuning_started", "fine_tuning_ended")
"""Events of a fine-tuning: files uploaded, job started, job ended."""
BATCH = ("batch_intended", "batch_submitted", "batch_ended")
"""Events of a batch: about to be submitted, submitted with an id, all rows received."""
NO_PRICE = "no price of "  # prefix in `runs.prices` of a model without a known price; parts are separated by `; `
REPLY = (
    "(SELECT body FROM (SELECT r.body, k.run_id <> o.run_id AS elsewhere, k.finish = 'refusal' AS refused, k.id "
    "FROM calls k JOIN blobs r ON r.hash = k.response_hash WHERE k.call_key = o.call_key AND k.state = 'ok') "
    "ORDER BY elsewhere, refused, id LIMIT 1)"
)
"""SQL: the reply of an outcome `o`, as its run took it; NULL if erased."""


def is_erased(outcome: Row) -> bool:
    """Return whether the reply of an outcome, or the value read from it, was erased."""
    return outcome["error"] == ERASED or (not outcome["reply"] and bool(outcome["fields"]))


def no_price(calls: str, runs: str) -> str:
    """Return SQL: whether a call's dollars are unknown. Cached replies were free."""
    priced = f"instr({runs}.prices || ';', '; {NO_PRICE}' || {calls}.model || ';')"
    return f"({priced} AND {calls}.state <> 'cached')"


def cost_of(calls: str, runs: str) -> str:
    """Return SQL: the sum of dollars of calls; NULL if any is unknown."""
    return f"CASE WHEN MAX({no_price(calls, runs)}) THEN NULL ELSE COALESCE(SUM({calls}.cost_usd), 0) END"


def is_search(run: Row) -> bool:
    """Return whether a run is a search, not a check, calibration or the like."""
    return not (run["options"] or {}).get("command") and not (run["result"] or {}).get("kind")


def searched(run: Row) -> Row:
    """Return `run` if it is a search. Raises InputError otherwise."""
    if command := (run["options"] or {}).get("command"):
        raise InputError(f"{run['id']}: `optimize {command}` is not a search; name a run of `optimize run`")
    return run


def started_with(run: Row) -> RecordedOptions:
    """Return the options that a search was started with. Raises InputError for another run."""
    options: Row = run["options"] or {}
    if command := options.get("command"):
        raise InputError(f"{run['id']}: a run of `optimize {command}`; run that command again")
    with suppress(ProblemsError):
        if options:
            return RecordedOptions.of(options)
    raise InputError(f"{run['id']}: was started by another version; start it again")


def run_folder(folder: Path, run_id: str) -> Path:
    """Return the folder of a run's files, next to the ledger. Raises InputError."""
    if not re.fullmatch(r"\w[\w.-]*", run_id):  # a path: a foreign ledger must not choose where to write
        raise InputError(f"{run_id}: not a valid folder name, so no files can be kept for this run")
    return folder / run_id


def released_file(run: Row, db: Path) -> Path | None:
    """Return the file released by the run; None if none was. Raises InputError for a bad id."""
    released = (run["result"] or {}).get("release")
    return run_folder(db.parent, run["id"]) / Path(released).name if released else None


class Queries:
    """Queries shared by readers and the writer, on the read-only connection `db`."""

    db: sqlite3.Connection
    path: Path

    def select(self, sql: str, *values: Any) -> list[Row]:
        """Return rows as dicts by column name."""
        return list(self.each(sql, *values))

    def each(self, sql: str, *values: Any) -> Iterator[Row]:
        """Yield the rows of `select` one at a time."""
        try:
            cursor = self.db.execute(sql, values)
            names = [name for name, *_ in cursor.description]
            yield from (dict(zip(names, row, strict=True)) for row in cursor)
        except sqlite3.Error as error:
            raise LedgerError(
                f"{self.path}: the ledger cannot be read ({error}); name another file with --db"
            ) from error

    def facts(self, *kinds: str, run_ids: Sequence[str] | None = None, **fields: object) -> list[Row]:
        """Return facts in chain order, by kind, run (None: all) and body values."""
        where, values = ["1"], list[object]()
        for column, names in (("kind", kinds or None), ("run_id", run_ids)):
            if names is not None:
                where.append(f"{column} IN (SELECT value FROM json_each(?))")
                values.append(json.dumps([*names]))
        for name, value in fields.items():
            where.append(f"json_extract(body, '$.{name}') = ?")
            values.append(value)
        asked = f"SELECT seq, run_id, utc, kind, body FROM events WHERE {' AND '.join(where)} ORDER BY seq"
        return [{**row, "body": json.loads(row["body"])} for row in self.each(asked, *values)]

    def alias_moves(self, name: str) -> list[Row]:
        """Return a name's alias moves in chain order, as `release/registry.py` writes them."""
        bodies = [fact["body"] for fact in self.facts(ALIAS_MOVED, name=name)]
        return list({body["hash"]: body for body in bodies}.values())  # chains of a container may share a line

    def moved_names(self) -> list[str]:
        """List every name whose aliases were moved."""
        return sorted({fact["body"]["name"] for fact in self.facts(ALIAS_MOVED)})

    def fine_tuning(self, key: str) -> list[tuple[str, Row]]:
        """Return kind and body of each FINE_TUNING event with this `key`, in order."""
        return [(fact["kind"], fact["body"]) for fact in self.facts(*FINE_TUNING, key=key)]

    def batches(self) -> list[Row]:
        """Return the batches of all runs.

        Each is its first event with `job` ("": unknown) and `end`, its last body or None.
        """
        found: dict[str, Row] = {}
        for fact in self.facts(*BATCH):
            body = fact["body"]
            if fact["kind"] == BATCH[0]:
                found[body["name"]] = {**fact, "job": "", "end": None}
            elif fact["kind"] == BATCH[1]:
                found[body["name"]]["job"] = body["job"]
            else:
                found[body["name"]]["end"] = body
        return list(found.values())

    def calibration(self, judge_id: str, run_id: str) -> Row | None:
        """Return the latest calibration of this judge before `run_id` ended, or None."""
        known = self.facts("judge_calibrated", judge_id=judge_id)
        ended = self.facts("run_complete", "run_budget", run_ids=[run_id])
        bodies = [fact["body"] for fact in known if not ended or fact["seq"] < ended[0]["seq"]]
        return bodies[-1] if bodies else None

    def latencies(self, run_id: str) -> dict[str, float]:
        """Return the mean seconds of settled calls by candidate, for display only."""
        mean = "SELECT candidate_id, AVG(latency_s) AS mean FROM calls WHERE run_id = ? AND state = 'ok' GROUP BY 1"
        return {row["candidate_id"]: row["mean"] for row in self.each(mean, run_id) if row["mean"] is not None}

    def seconds_of(self, call_key: str) -> float | None:
        """Return how long a settled call took the first time, or None."""
        first = "SELECT latency_s FROM calls WHERE call_key = ? AND state = 'ok' ORDER BY id LIMIT 1"
        return next((row["latency_s"] for row in self.each(first, call_key)), None)

    def recorded_since(self, utc: str, call_keys: Collection[str]) -> set[str]:
        """Return those of the calls with an attempt recorded at `utc` or later."""
        since = "call_key IN (SELECT value FROM json_each(?)) AND sent_utc >= ? AND state <> 'cached'"
        found = self.each(f"SELECT DISTINCT call_key FROM calls WHERE {since}", json.dumps([*call_keys]), utc)
        return {row["call_key"] for row in found}

    def has_replies(self, model: str, task: Task) -> bool:
        """Return whether the model has answered for this exact task (rows, metrics and prompt)."""
        of_task = "run_id IN (SELECT id FROM runs WHERE hashes = ?) AND model = ? AND state = 'ok'"
        hashes = json.dumps(dict(task.hashes), ensure_ascii=False)
        return bool(self.select(f"SELECT 1 FROM calls WHERE {of_task} LIMIT 1", hashes, model))

    def refuses_temperature(self, model: str) -> bool:
        """Return whether the model refused `temperature` in any run of this ledger."""
        refused = "SELECT 1 FROM calls WHERE error_class = 'temperature_refused' AND model = ? LIMIT 1"
        return bool(self.select(refused, model))

    def text(self, digest: str) -> str | None:
        """Return a payload text by its hash; None if erased or never written."""
        found = self.db.execute("SELECT body FROM blobs WHERE hash = ?", (digest,)).fetchone()
        return str(found[0]) if found else None


CALIBRATED = "calibration:"  # prefix of the operator of a calibrated candidate


def is_calibrated(trial: Row) -> bool:
    """Return whether a trial's candidate is a calibrated variant of another."""
    return str(trial.get("operator")).startswith(CALIBRATED)


class History(Queries):
    """Queries on a ledger file. Raises LedgerError if it is not one, or was altered."""

    def __init__(self, path: Path, verified: bool = False, by_chain: bool = False) -> None:
        """Open a ledger for reading: unchecked if `verified` before, checked `by_chain`, or by its seal."""
        self.path = path
        if not verified:
            require_whole(path, by_chain=by_chain)
        with readable(path):
            self.db = reader(path)
            self.db.row_factory = sqlite3.Row
            self.db.execute("SELECT id FROM runs LIMIT 1")

    def close(self) -> None:
        """Close the file; until then a writer's log cannot be truncated."""
        self.db.close()

    def runs(self) -> list[Row]:
        """Return every run, newest first, with `result` as --json printed it (or None).

        An open run without a writer is `killed`.
        """
        rows = self.select(
            "SELECT r.*, b.body AS result FROM runs r LEFT JOIN blobs b ON b.hash = r.result_hash "
            "ORDER BY r.started_utc DESC, r.id DESC"
        )
        decoded = ("origin", "options", "hashes", "budget", "plan", "result", "tags")
        if open_runs := [row for row in rows if row["status"] == "running"]:
            last = self.select("SELECT run_id FROM events ORDER BY seq DESC LIMIT 1") if is_held(self.path) else []
            writing = {row["run_id"] for row in last}  # the last event belongs to it
            now = {row["id"]: row["status"] for row in self.select("SELECT id, status FROM runs")}  # it may have ended
            for row in open_runs:
                row["status"] = now[row["id"]]
                if row["status"] == "running" and row["id"] not in writing:
                    row["status"] = "killed"
        return [{**row, **{key: _load(row[key]) for key in decoded}} for row in rows]

    def calls_a_row(self, task: str, model: str) -> float | None:
        """Return the mean calls a row in the latest finished search of this kind."""
        rows = self.select(
            "SELECT b.body FROM runs r JOIN blobs b ON b.hash = r.result_hash WHERE r.task = ? AND r.model = ? "
            "AND r.status = 'complete' ORDER BY r.started_utc DESC LIMIT 20",
            task,
            model,
        )
        winners = [(_load(row["body"]) or {}).get("winner") for row in rows]
        return next((winner["calls_a_row"] for winner in winners if winner and "calls_a_row" in winner), None)

    def search(self, run_id: str = "") -> Row:
        """Return a search as `run` does. Raises InputError for another run."""
        return searched(self.run(run_id))

    def run(self, run_id: str = "") -> Row:
        """Return the run whose id starts with `run_id`. "": the latest search, else the latest run."""
        found = [row for row in self.runs() if row["id"].startswith(run_id)]
        found = [row for row in found if row["id"] == run_id] or found
        if not run_id:
            found.sort(key=lambda row: "command" in (row["options"] or {}))
        if not found:
            raise InputError(f"{self.path}: no run {run_id or 'yet'}; `optimize runs` lists them")
        if run_id and len(found) > 1:
            raise InputError(f"{run_id}: matches {len(found)} run ids; give more characters")
        return found[0]

    def trials(self, run_id: str, numbers: Sequence[int] | None = None) -> list[Row]:
        """Return trials with candidate, examples by row id, operator and cost.

        The cost is None if a price is unknown.
        """
        rows = self.select(
            f"""
            SELECT t.number, t.round, t.state, t.n, t.mean, t.low, t.high, t.reason, c.id AS candidate_id, c.technique,
                   c.format, c.role, c.n_examples, COALESCE(c.instruction, '(erased)') AS instruction, p.operator,
                   p.parent_id, p.reason AS proposal,
                   (SELECT json_group_array(example_id) FROM (SELECT example_id FROM examples e
                     WHERE e.candidate_id = c.id ORDER BY position)) AS demos,
                   COALESCE(SUM(k.state <> 'cached' AND {IS_CALL}), 0) AS calls,
                   COALESCE(SUM(k.state = 'cached'), 0) AS cached,
                   COALESCE(SUM(CASE WHEN k.state <> 'cached' THEN k.prompt_tokens + k.completion_tokens END), 0)
                     AS tokens,
                   {cost_of("k", "r")} AS cost_usd, COALESCE(SUM(k.latency_s), 0) AS seconds
            FROM trials t JOIN runs r ON r.id = t.run_id JOIN prompts c ON c.id = t.candidate_id
            LEFT JOIN proposals p ON p.candidate_id = c.id AND p.run_id = t.run_id
            LEFT JOIN calls k ON k.candidate_id = c.id AND k.run_id = t.run_id
            WHERE t.run_id = ? AND (? IS NULL OR t.number IN (SELECT value FROM json_each(?)))
            GROUP BY t.number ORDER BY t.number
            """,
            run_id,
            *2 * [None if numbers is None else json.dumps([*numbers])],
        )
        return [{**row, "demos": json.loads(row["demos"])} for row in rows]

    def dev_means(self) -> dict[str, list[float | None]]:
        """Return the dev scores of trials by run; None: not scored on all of dev."""
        found: dict[str, list[float | None]] = {}
        for row in self.select("SELECT run_id, state, mean FROM trials ORDER BY run_id, number"):
            found.setdefault(row["run_id"], []).append(row["mean"] if row["state"] == "complete" else None)
        return found

    def candidate(self, candidate_id: str) -> Row:
        """Return a candidate with all its parts, such as template, examples and calibration.

        Erased texts are None, or marked as ERASED.
        """
        rows = self.select("SELECT * FROM prompts WHERE id = ?", candidate_id)
        if not rows:
            raise InputError(f"{candidate_id}: no such candidate in {self.path}")
        examples = self.each(
            "SELECT e.position, e.example_id, e.source, b.body FROM examples e "
            "LEFT JOIN blobs b ON b.hash = e.body_hash WHERE e.candidate_id = ? ORDER BY e.position",
            candidate_id,
        )
        return {
            **rows[0],
            "instruction": rows[0]["instruction"] or ERASED,
            "template": _load(rows[0]["template"]) or [],
            "demos": [{**example, **(_load(example.pop("body")) or ERASED_EXAMPLE)} for example in examples],
            **self._facts_of(candidate_id),
        }

    def _facts_of(self, candidate_id: str) -> Row:
        facts = self.facts(
            *RETRIEVAL_EVENTS.values(), CALIBRATED_EVENT, *TEXT_EVENTS.values(), candidate_id=candidate_id
        )
        bodies = {fact["kind"]: fact["body"] for fact in reversed(facts)}  # the first of each kind
        for body in bodies.values():
            del body["candidate_id"]
        found: Row = {name: bodies.get(kind) for name, kind in RETRIEVAL_EVENTS.items()}
        if body := bodies.get(CALIBRATED_EVENT):
            bias, method = _load(self.text(body.pop("bias_hash"))), body.pop("method")
            found["calibration"] = {"method": method, "bias": bias, "temperature": body.pop("temperature"), **body}
        for name, kind in TEXT_EVENTS.items():
            if body := bodies.get(kind):
                found |= {name: _load(self.text(body[f"{name}_hash"])), **body}
        return found

    def outcomes(self, run_id: str, candidate_id: str, split: str) -> list[Row]:
        """Return a candidate's outcome and reply, or an agent's answer as JSON, on each row."""
        rows = self.select(
            f"SELECT o.example_id, o.value, o.call_key, b.body, {REPLY} AS reply "
            "FROM outcomes o LEFT JOIN blobs b ON b.hash = o.body_hash "
            "WHERE o.run_id = ? AND o.candidate_id = ? AND o.split = ? ORDER BY o.rowid",
            run_id,
            candidate_id,
            split,
        )
        found = []
        for row in rows:
            body = _load(row.pop("body")) or {"fields": {}, "error": ERASED, "scores": []}
            reply = _load(row.pop("reply"))
            text = reply["text"] if reply else ""
            if body.get("trace"):  # of an agent, which may answer otherwise than its model, or without one
                text = json.dumps(body["fields"], ensure_ascii=False) if body["fields"] else text.removeprefix("[]\n")
            found.append({**row, "reply": text, **body})
        return found

    def costs(self, run_id: str) -> list[Row]:
        """Return calls (`IS_CALL`), tokens, dollars (None: unknown) and seconds by role and state."""
        return self.select(
            "SELECT role, calls.model AS model, state, COUNT(*) AS calls, SUM(prompt_tokens) AS prompt_tokens, "
            "SUM(cached_prompt_tokens) AS cached_prompt_tokens, SUM(completion_tokens) AS completion_tokens, "
            f"{cost_of('calls', 'runs')} AS cost_usd, SUM(latency_s) AS seconds "
            "FROM calls JOIN runs ON runs.id = run_id "
            f"WHERE run_id = ? AND {IS_CALL} GROUP BY role, calls.model, state "
            "ORDER BY role = 'model' DESC, role DESC, state",
            run_id,
        )

    def rejected(self, run_id: str) -> list[Row]:
        """Return candidates that broke a hard rule and were never tried."""
        return self.select(
            "SELECT candidate_id, operator, rejected FROM proposals WHERE run_id = ? AND rejected <> ''", run_id
        )


ERASED_EXAMPLE: Row = {"inputs": {}, "outputs": {}, "rationale": ERASED}


def _load(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def history_of(path: Path, by_chain: bool = False) -> History:
    """Open a ledger for reading; complete one that a kill left half made. Raises LedgerError."""
    try:
        return History(path, by_chain=by_chain)
    except NeedsWriter:
        from agent.ledger.store import Ledger

        Ledger(path).close()
        return History(path, by_chain=by_chain)
