"""What an audit asks: is the ledger whole, did a run see rows that it must not see, which candidates were released."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import AgentError, InputError, LedgerError
from agent.ledger.anchors import anchor, checked, head_of, missing_heads, noted_hash, unchecked, witnesses
from agent.ledger.connect import is_there
from agent.ledger.query import History, Row, released_file, started_with
from agent.ledger.schema import Finding
from agent.ledger.verify import verify
from agent.run.locations import open_history, releases_folder

if TYPE_CHECKING:
    from agent.ledger.checks import Check
    from agent.types import Task


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether the ledger is whole: `findings` are what does not hold, the first event first; `notes` are no faults."""

    events: int
    head: str
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The object of `optimize audit verify --json`."""
        return {
            "whole": not self.findings,
            "events": self.events,
            "head": self.head,
            "first_bad_seq": self.findings[0].seq if self.findings else None,
            "findings": [{"seq": finding.seq, "what": finding.what} for finding in self.findings],
        }


def verified(db: Path, noted: str | None) -> Verification:
    """Checks everything in the ledger, and that it has the heads that files beside it name.

    Args:
        db: the ledger.
        noted: a head that it must have: its hash, or a file that holds it.
    """
    if not is_there(db):
        raise InputError(f"{db}: no ledger here; name another with --db")
    head_noted = noted_hash(noted) if noted is not None else None
    named = witnesses(db.parent, releases_folder(db))
    notes: list[str] = []
    with unchecked(db) as connection:
        events, head, findings = checked(connection, head_noted)
        if not findings:
            findings, notes = missing_heads(connection, db, named)
    return Verification(events, head, tuple(findings), tuple(notes))


def anchored(db: Path) -> dict[str, Any]:
    """The head of the chain, to keep elsewhere. Raises LedgerError where the ledger is not whole."""
    open_history(db).close()
    with unchecked(db) as connection:
        found = anchor(connection, db.resolve())
        _require_whole(connection, db)
    return found


def whole_head(db: Path) -> str:
    """The hash of the last event. Raises LedgerError where the ledger is not whole."""
    with unchecked(db) as connection:
        head = head_of(connection)[1]
        _require_whole(connection, db)
    return head


def _require_whole(connection: sqlite3.Connection, db: Path) -> None:
    if findings := verify(connection):
        raise LedgerError(f"{db}: not whole: {findings[0]}; see `audit verify`")


def checks_of(history: History, run: Row) -> list[Check]:
    """Whether held-out rows got into a prompt of the run, and whether its books add up."""
    from agent.ledger.checks import consistency_checks

    return [*_contamination(history, run), *consistency_checks(history, run)]


def _contamination(history: History, run: Row) -> list[Check]:
    from agent.ledger.checks import HELD_OUT, Check, copied_answers, demo_ids, demo_texts

    tried = history.select("SELECT candidate_id FROM proposals WHERE run_id = ? AND rejected = ''", run["id"])
    candidates = [history.candidate(row["candidate_id"]) for row in tried]
    rows = history.select(
        "SELECT DISTINCT example_id, split FROM outcomes WHERE run_id = ? AND split IN ('dev', 'test')", run["id"]
    )
    held_out = {row["example_id"]: row["split"] for row in rows}
    task, why = _task(run)
    if task is None:
        names = ("no demo reads like a dev or test row", "no instruction holds words of a dev or test row")
        return [demo_ids(candidates, held_out), *(Check(name, None, (why,)) for name in names)]
    held_out |= {example.id: split for split in HELD_OUT for example in getattr(task, split)}
    return [demo_ids(candidates, held_out), demo_texts(candidates, task), copied_answers(candidates, task)]


def _task(run: Row) -> tuple[Task | None, str]:
    """The run's task with the rows that it had, or why these are not at hand."""
    from agent.run.launch import source_of, task_of

    if command := (run["options"] or {}).get("command"):
        return None, f"a run of `optimize {command}`, which made no prompts"
    try:
        task = task_of(started_with(run))
    except AgentError as error:
        return None, f"the task is not at hand: {str(error).splitlines()[0]}"
    parts = [name for name in ("train", "dev", "test") if task.hashes.get(name) != run["hashes"].get(name)]
    changed = dict.fromkeys(source_of(name, run["options"]) for name in parts)
    return (None, f"the rows changed since: {', '.join(changed)}") if changed else (task, "")


def released_versions(history: History) -> dict[str, str]:
    """The ids of released candidates by the version of their release, from files that are still there, and labels."""
    from agent.release.runtime import load_prompt

    found = {}
    for run in history.runs():
        try:
            path = released_file(run, history.path)
            if path is None:
                continue
            prompt = load_prompt(path)
        except AgentError:
            continue
        if candidate := prompt.provenance.get("candidate_id"):
            found[prompt.version] = str(candidate)
    for move in (move for name in history.moved_names() for move in history.label_moves(name)):
        if candidate := move["evidence"].get("candidate_id"):  # of a version that lies in the registry alone
            found[move["version"]] = str(candidate)
    return found
