"""What an audit asks of the ledger: is it whole, did a run see rows that it must not see, which candidates were
released; and how texts are erased from it for good.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import AgentError, InputError, LedgerError, error_lines
from agent.ledger.anchors import anchor, checked, head_of, missing_heads, noted_hash, snapshot, unchecked, witnesses
from agent.ledger.chain import Finding
from agent.ledger.connect import is_there
from agent.ledger.files import is_held, log_is_empty, log_path
from agent.ledger.merged import Chain, chains, is_merged
from agent.ledger.query import History, Row, released_file, started_with
from agent.ledger.store import Ledger
from agent.ledger.texts import events_with, files_with, kinds_of, texts_with
from agent.ledger.verify import verify
from agent.run.locations import ledger_option, open_history, releases_folder
from agent.run.tasks import source_of, task_of

if TYPE_CHECKING:
    from agent.ledger.checks import Check
    from agent.types import Task


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether the ledger is whole: `findings` are what does not hold, the first event first; `notes` are no faults.
    `chains` are those of a merged ledger."""

    events: int
    head: str
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    chains: tuple[Chain, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The object of `optimize audit verify --json`."""
        return {
            "whole": not self.findings,
            "events": self.events,
            "head": self.head,
            "first_bad_seq": self.findings[0].seq if self.findings else None,
            "findings": [{"seq": finding.seq, "what": finding.what} for finding in self.findings],
            **({"chains": list(map(_chain, self.chains))} if self.chains else {}),
        }


def _chain(chain: Chain) -> dict[str, Any]:
    return {"name": chain.name, "ledger": chain.ledger, "events": chain.events, "head": chain.head}


def verify_ledger(db: Path, noted: str | None) -> Verification:
    """Checks everything in the ledger, and that it has the heads that files beside it name.

    Args:
        db: the ledger.
        noted: a head that it must have: its hash, or a file that holds it.

    Raises:
        InputError: there is no ledger.
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
        merged = tuple(chains(connection).values()) if not findings and is_merged(connection) else ()
    return Verification(events, head, tuple(findings), tuple(notes), merged)


def anchor_ledger(db: Path) -> dict[str, Any]:
    """The head of the chain, to keep elsewhere. Raises LedgerError where the ledger is not whole."""
    open_history(db).close()
    with unchecked(db) as connection:
        head = anchor(connection, db.resolve())
        _require_whole(connection, db)
    return head


def _require_whole(connection: sqlite3.Connection, db: Path) -> None:
    if findings := verify(connection):
        raise LedgerError(f"{db}: not whole: {findings[0]}; `optimize audit verify{ledger_option(db)}` lists all")


def check_run(history: History, run: Row) -> list[Check]:
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
    if command := (run["options"] or {}).get("command"):
        return None, f"a run of `optimize {command}`, which made no prompts"
    try:
        task = task_of(started_with(run))
    except AgentError as error:
        return None, f"the task is not at hand: {error_lines(error)[0]}"
    parts = [name for name in ("train", "dev", "test") if task.hashes.get(name) != run["hashes"].get(name)]
    changed = dict.fromkeys(source_of(name, started_with(run)) for name in parts)
    return (None, f"the rows changed since: {', '.join(changed)}") if changed else (task, "")


def released_versions(history: History) -> dict[str, str]:
    """The ids of released candidates by the version of their release, from files that are still there, and aliases."""
    from agent.release.runtime import load_prompt

    released = {}
    for run in history.runs():
        try:
            path = released_file(run, history.path)
            if path is None:
                continue
            prompt = load_prompt(path)
        except AgentError:
            continue
        if candidate := prompt.provenance.get("candidate_id"):
            released[prompt.version] = str(candidate)
    for move in (move for name in history.moved_names() for move in history.alias_moves(name)):
        if candidate := move["evidence"].get("candidate_id"):  # of a version that lies in the registry alone
            released[move["version"]] = str(candidate)
    return released


@dataclass(frozen=True, slots=True)
class Erasure:
    """What is to go: `texts` by their hashes, how many there are of each of `kinds`, and the `events` that hold the
    text in their own words and stay."""

    db: Path
    containing: str | None
    texts: tuple[str, ...]
    kinds: Mapping[str, int]
    events: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Erased:
    """What came of it: `left` says where the text still stands, a line each; `head` is the end of the chain."""

    plan: Erasure
    left: tuple[str, ...]
    head: str

    def to_json(self) -> dict[str, Any]:
        """The object of `optimize audit erase --json`."""
        plan = self.plan
        return {
            "erased": list(plan.texts),
            "kinds": dict(plan.kinds),
            "events": list(plan.events),
            "left": list(self.left),
            "head": self.head,
        }


def prepare_erasure(hashes: Sequence[str], containing: str | None, actor: str, reason: str, db: Path) -> Erasure:
    """Finds what is to go; changes nothing.

    Args:
        hashes: texts by their SHA-256.
        containing: every text that holds it, also where JSON writes it otherwise.
        actor: who wants it.
        reason: why.
        db: the ledger.

    Raises:
        InputError: nothing is named, or actor or reason is empty or holds the very text.
    """
    if not hashes and not containing:
        raise InputError("name what goes: --hash H (repeatable) or --containing TEXT")
    for option, words in (("--actor", actor), ("--reason", reason)):
        if not words.strip():
            raise InputError(f"{option} is empty; the ledger must say who erased and why")
        if containing and containing in words:
            raise InputError(f"{option} holds the very text that is to go, and would stay; say it without it")
    open_history(db).close()
    with snapshot(db) as connection:
        for digest in hashes:
            if not connection.execute("SELECT 1 FROM blobs WHERE hash = ?", (digest,)).fetchone():
                raise InputError(f"{digest}: no text of this hash in {db}; `optimize audit show` prints hashes")
        texts = list(dict.fromkeys([*hashes, *(texts_with(connection, containing) if containing else ())]))
        kinds = kinds_of(connection, texts)
        kept = events_with(connection, containing) if containing else []
    return Erasure(db, containing, tuple(texts), kinds, tuple(kept))


def erase(plan: Erasure, actor: str, reason: str) -> Erased:
    """Takes the texts out; the chain keeps their hashes, the actor and the reason.

    Raises LedgerError where the ledger is not whole then.
    """
    db = plan.db
    waits = not (log_is_empty(db) or is_held(db))  # what an earlier try erased, to leave the file
    if plan.texts or waits:
        with closing(Ledger(db)) as ledger:
            ledger.erase(list(plan.texts), actor, reason)
    with unchecked(db) as connection:
        head = head_of(connection)[1]
        _require_whole(connection, db)
    return Erased(plan, tuple(_left(db, plan.containing, plan.events)), head)


def _left(db: Path, containing: str | None, kept: Sequence[int]) -> list[str]:
    """Where the text, or what was erased, can still be found, a line each."""
    lines = []
    if kept:
        shown = ", ".join(map(str, kept[:20])) + (" ..." if len(kept) > 20 else "")
        lines.append(f"in the words of {len(kept)} events and their rows, which the chain covers: {shown}")
    if not log_is_empty(db):
        lines.append(f"{log_path(db)}: another process reads the ledger; end it, and run `optimize audit erase` again")
    if containing:
        named = {db} if kept else set()
        lines += [f"{path}: holds the text" for path in files_with(db.parent, containing) if path not in named]
    else:
        lines += [f"{path}: a bundle made before; delete it" for path in sorted(db.parent.glob("*.zip"))]
        lines += [f"{path}: a report made before; make it anew" for path in sorted(db.parent.glob("*/report.html"))]
    return lines
