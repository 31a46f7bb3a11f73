"""`optimize audit`: verify the ledger, check a run, show what was recorded, export, erase."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Literal

from agent.errors import AgentError, InputError, LedgerError, error_lines
from agent.jobs.locations import ledger_option, open_history, releases_folder
from agent.jobs.observers import Watcher
from agent.jobs.registry import DB, Printed, job
from agent.jobs.tasks import changed_parts, task_of
from agent.ledger.anchors import FoundWrong, checked, missing_heads, noted_hash, witnesses
from agent.ledger.anchors import anchor as head_to_keep
from agent.ledger.checks import HELD_OUT, RunCheck, consistency_checks, copied_answers, demo_ids, demo_texts
from agent.ledger.connect import head_of, is_there, refuse_merged, unchecked
from agent.ledger.container import new_export, write_bundle, write_jsonl
from agent.ledger.files import is_held, log_is_empty, log_path
from agent.ledger.query import History, Row, released_file, started_with
from agent.ledger.store import Ledger
from agent.ledger.texts import events_with, files_with, kinds_of, texts_with
from agent.ledger.trail import call_id, candidates_named
from agent.ledger.trail import lineage as lineage_of
from agent.ledger.verify import chains
from agent.ledger.verify import verify as findings_in
from agent.options.kinds import File, Texts
from agent.options.option import JobOptions, option
from agent.options.shared import LedgerOption
from agent.release.versions import is_version, read_released
from agent.report.blocks import Block, table, text
from agent.report.trail import CallTrail, LineageResult, RunTrail, TrialTrail, call_trail, run_trail, trial_trail
from agent.report.view import RunView
from agent.results.base import Result, absent
from agent.safe_text import counted
from agent.types import SPLITS, Task

SHOWN = 5  # findings of one check in the table
FORCE: Any = option(False, "Overwrite an existing file.")


class VerifiedChain(Result):
    """A chain of a merged ledger."""

    name: str
    ledger: str
    events: int
    head: str


class VerifyResult(Result):
    """Whether a ledger is whole: every violation, first event first, and the chains of a merged ledger."""

    whole: bool
    events: int
    head: str
    first_bad_seq: int | None
    findings: tuple[FoundWrong, ...]
    chains: tuple[VerifiedChain, ...] | None = absent()

    def blocks(self) -> Iterator[Block]:
        if self.findings:
            yield text(*map(str, self.findings), exact=True)
        elif self.chains:
            lines = [f"whole: {each.name}: {each.events} events, head {each.head}" for each in self.chains]
            yield text(*lines, f"whole: {len(lines)} chains, {self.events} events in a merged ledger", exact=True)
        else:
            yield text(f"whole: {self.events} events, head {self.head}", exact=True)


@job("audit verify")
def verify(
    *,
    anchor: str | None = option(
        None, "A head that was noted elsewhere: the hash, or a file that holds it.", metavar="HEAD"
    ),
    db: Path = DB,
) -> Printed[VerifyResult]:
    """Verify the ledger: file, schema, hash chain, and rows and texts against it.

    Prints `whole: N events, head HASH` (for each chain of a merged ledger) and exits with 0, or prints every violation,
    first event first, and exits with 1 (in --json, `seq` 0 is the file as a whole). Releases, aliases and reports next
    to the ledger name heads that it must have, so an older copy in its place is detected. The file of --anchor may be
    the output of `optimize audit anchor`, a --json result, or a released prompt.
    """
    if not is_there(db):
        raise InputError(f"{db}: no ledger here; name another with --db")
    noted = noted_hash(anchor) if anchor is not None else None
    named, notes = witnesses(db.parent, releases_folder(db)), list[str]()
    with unchecked(db) as connection:
        events, head, findings = checked(connection, noted)
        if not findings:
            findings, notes = missing_heads(connection, db, named)
        merged = [] if findings else [*chains(connection).values()]
    parts = (VerifiedChain.model_validate(each, from_attributes=True) for each in merged)
    result = VerifyResult(
        whole=not findings,
        events=events,
        head=head,
        first_bad_seq=findings[0].seq if findings else None,
        findings=FoundWrong.of(findings),
        chains=tuple(parts) if len(merged) > 1 else None,
    )
    return Printed(result, 1 if findings else 0, notes=[f"note: {note}" for note in notes])


@job("audit anchor", has_json=False)
def anchor(
    *,
    output: File = option(None, "Where to write it. Default: print it.", short="-o"),
    force: bool = FORCE,
    db: Path = DB,
) -> Printed[None]:
    """Print the chain's head as JSON. Store it where ledger writers have no access.

    The chain alone reveals a change in its middle; a chain that was rewritten as a whole is revealed by a head that was
    stored elsewhere: `optimize audit verify --anchor FILE`.
    """
    open_history(db).close()
    with unchecked(db) as connection:
        head = head_to_keep(connection, db.resolve())
        _require_whole(connection, db)
    written = json.dumps(head, indent=2) + "\n"
    if output is None:
        return Printed(None, exact=written)
    with new_export(output, force) as file:
        file.write(written.encode())
    return Printed(None, exact="", notes=[f"wrote {output}: event {head['seq']}, head {head['hash']}"])


def _require_whole(connection: sqlite3.Connection, db: Path) -> None:
    if findings := findings_in(connection):
        raise LedgerError(f"{db}: not whole: {findings[0]}; `optimize audit verify{ledger_option(db)}` lists all")


@job("audit export", has_json=False, required=("output",))
def export(
    run: str = "",
    *,
    format: Literal["jsonl", "zip"] = option(
        "jsonl", "Every event as JSON lines, or a bundle with tables and texts that verifies itself."
    ),
    output: File = option(None, "The file to write.", short="-o"),
    force: bool = FORCE,
    db: Path = DB,
) -> Printed[None]:
    """Export all events of the ledger. With RUN, rows and texts are those of that run only.

    The chain is always complete, as parts of it cannot be verified. `python FILE.zip` verifies the zip without this
    program.
    """
    out = output or Path()
    history = open_history(db)
    run_id = str(history.run(run)["id"]) if run else ""
    if out.is_dir():
        raise InputError(f"{out}: is a folder; name a file with -o")
    with unchecked(db, as_one=True) as connection:
        refuse_merged(connection, db, "an export holds one whole chain")
        if format == "jsonl":
            return Printed(None, exact="", notes=[f"wrote {out}: {write_jsonl(connection, out, force)} events"])
        events, texts, head = write_bundle(connection, out, force, run_id)
    said = f"{events} events, {texts} texts, head {head}; `python {out}` checks it"
    return Printed(None, exact="", notes=[f"wrote {out}: {said}"])


# -- a run is checked -------------------------------------------------------------------------------------------------


class AuditChecks(Result):
    """Whether a run is free of contamination and its books add up."""

    run_id: str
    holds: bool
    checks: tuple[RunCheck, ...]

    def blocks(self) -> Iterator[Block]:
        words = {True: "ok", False: "PROBLEM", None: "-"}
        rows = [(each.check, words[each.ok], _first(each.found)) for each in self.checks]
        yield table(f"checks of {self.run_id}", ("check", "ok", "found"), rows, tabbed=True)


@job("audit check")
def check(run: str = "", *, db: Path = DB) -> Printed[AuditChecks]:
    """Check RUN (default: the latest) for contamination, and that its books add up.

    Contamination: examples or instructions that contain dev or test rows, a test that was opened twice. Books: scores
    without a reply, means, charges and caps that do not follow from the calls. Exits with 1 if a check fails. Checks
    that need the rows are skipped (-) if the task is gone or its rows changed.
    """
    history = open_history(db)
    row = history.run(run)
    checks = (*_contamination(history, row), *consistency_checks(history, row))
    result = AuditChecks(run_id=row["id"], holds=all(each.ok is not False for each in checks), checks=checks)
    return Printed(result, 0 if result.holds else 1)


def _first(findings: tuple[str, ...]) -> str:
    more = [f"and {len(findings) - SHOWN} more"] if len(findings) > SHOWN else []
    return "; ".join([*findings[:SHOWN], *more])


def _contamination(history: History, run: Row) -> list[RunCheck]:
    tried = history.select("SELECT candidate_id FROM proposals WHERE run_id = ? AND rejected = ''", run["id"])
    candidates = [history.candidate(row["candidate_id"]) for row in tried]
    rows = history.select(
        "SELECT DISTINCT example_id, split FROM outcomes WHERE run_id = ? AND split IN ('dev', 'test')", run["id"]
    )
    held_out = {row["example_id"]: row["split"] for row in rows}
    task, why = _task(run)
    if task is None:
        names = ("no example reads like a dev or test row", "no instruction contains text of a dev or test row")
        return [demo_ids(candidates, held_out), *(RunCheck.skipped(name, why) for name in names)]
    held_out |= {example.id: split for split in HELD_OUT for example in getattr(task, split)}
    return [demo_ids(candidates, held_out), demo_texts(candidates, task), copied_answers(candidates, task)]


def _task(run: Row) -> tuple[Task | None, str]:
    if command := (run["options"] or {}).get("command"):
        return None, f"a run of `optimize {command}`, which made no prompts"
    try:
        task = task_of(started_with(run))
    except AgentError as error:
        return None, f"the task cannot be loaded: {error_lines(error)[0]}"
    changed = changed_parts(run, task, SPLITS)
    return (None, f"the rows changed since: {', '.join(changed)}") if changed else (task, "")


# -- what was recorded ------------------------------------------------------------------------------------------------


@job("audit show")
def show(what: Annotated[str, "RUN|TRIAL|CALL"], *, db: Path = DB) -> RunTrail | TrialTrail | CallTrail:
    """Show what was recorded about a run, a trial or a call.

    RUN is a run's id or the start of it. TRIAL is RUN:NUMBER, or a number for the latest run. CALL is call:ID or #ID,
    or the key of a call (k_...) as shown with a trial's rows.
    """
    history = open_history(db)
    if re.fullmatch(r"(call:|#)\d{1,18}|k_[0-9a-f]{16}", what):
        return call_trail(history, call_id(history, what))
    run_id, colon, number = what.rpartition(":")
    if colon and number.isdecimal():
        return trial_trail(RunView(history, run_id), int(number))
    if what.isdecimal() and len(what) < 8:
        latest = RunView(history)
        if history.trials(latest.id, [int(what)]):
            return trial_trail(latest, int(what))
    return run_trail(history, history.run(what))


@job("audit lineage")
def lineage(prompt_hash: str, *, db: Path = DB) -> LineageResult:
    """Show the origin of a prompt: parents, operators, examples, trials, runs, releases and aliases.

    PROMPT_HASH is a candidate (c_...), the version of a release (p_..., f_..., t_...), or the hash of a template or an
    instruction; a unique prefix is enough.
    """
    history = open_history(db)
    versions = _released_versions(history)
    names = candidates_named(history, prompt_hash, versions)
    return LineageResult.model_validate({"prompts": [lineage_of(history, name, versions) for name in names]})


def _released_versions(history: History) -> dict[str, str]:
    released = {}
    for run in history.runs():
        try:
            path = released_file(run, history.path)
            if path is None or not is_version(path):
                continue
            release = read_released(path)
        except AgentError:
            continue
        if candidate := release.provenance.get("candidate_id"):
            released[release.version] = str(candidate)
    for move in (move for name in history.moved_names() for move in history.alias_moves(name)):
        if candidate := move["evidence"].get("candidate_id"):  # of a version that is in the registry alone
            released[move["version"]] = str(candidate)
    return released


# -- texts are erased --------------------------------------------------------------------------------------------------


class EraseResult(Result):
    """Erased texts by kind; `events` that quote the text; places where it is `left`; and the head of the chain."""

    erased: tuple[str, ...]
    kinds: Mapping[str, int]
    events: tuple[int, ...]
    left: tuple[str, ...]
    head: str

    def blocks(self) -> Iterator[Block]:
        yield text(f"erased {len(self.erased)} texts; the ledger is whole, head {self.head}", exact=True)


class EraseOptions(JobOptions):
    """What is erased, and who wants it."""

    hash: Texts = option((), "A text by its SHA-256; repeatable.", metavar="H")
    containing: str | None = option(None, metavar="TEXT")
    """Every text that contains TEXT, also with JSON escapes."""
    actor: str = option("", "Who asks for it; recorded.", metavar="NAME")
    reason: str = option("", "Why; recorded.", metavar="TEXT")
    yes: bool = option(False, "Do not ask.")


@job("audit erase", required=("actor", "reason"), typed=("yes",))
def erase(
    *, options: EraseOptions, ledger: LedgerOption, observer: Watcher, as_json: bool
) -> Printed[EraseResult | None]:
    """Erase prompts, requests and replies for good; the chain keeps their hashes.

    The chain also keeps the actor and the reason. An erased reply is bought again when it is needed. Text that rows and
    events quote, such as an error message, cannot be erased, and is listed.
    """

    def confirm(count: int, kinds: Mapping[str, int]) -> None:
        words = ", ".join(counted(number, kind) for kind, number in kinds.items())
        observer.on_message(f"{count} texts go for good: {words}" if count else "no text holds it")
        if count and not options.yes:
            observer.confirm("erase them?")

    def erased() -> EraseResult:
        found = _erased(options, ledger.db, confirm)
        for line in () if as_json else found.left:
            observer.warn(f"still there: {line}")
        return found

    return Printed(None, later=erased)


def _erased(options: EraseOptions, db: Path, confirm: Callable[[int, Mapping[str, int]], None]) -> EraseResult:
    hashes, containing, actor, reason = options.hash, options.containing, options.actor, options.reason
    if not hashes and not containing:
        raise InputError("name what goes: --hash H (repeatable) or --containing TEXT")
    for flag, words in (("--actor", actor), ("--reason", reason)):
        if not words.strip():
            raise InputError(f"{flag} is empty; the ledger must say who erased and why")
        if containing and containing in words:
            raise InputError(f"{flag} holds the very text that is to go, and would stay; say it without it")
    open_history(db).close()
    with unchecked(db, as_one=True) as connection:
        for digest in hashes:
            if not connection.execute("SELECT 1 FROM blobs WHERE hash = ?", (digest,)).fetchone():
                raise InputError(f"{digest}: no text of this hash in {db}; `optimize audit show` prints hashes")
        texts = list(dict.fromkeys([*hashes, *(texts_with(connection, containing) if containing else ())]))
        kinds = kinds_of(connection, texts)
        kept = events_with(connection, containing) if containing else []
    confirm(len(texts), kinds)
    waits = not (log_is_empty(db) or is_held(db))  # what an earlier try erased, to leave the file
    if texts or waits:
        with closing(Ledger(db)) as ledger:
            ledger.erase(texts, actor, reason)
    with unchecked(db) as connection:
        head = head_of(connection)[1]
        _require_whole(connection, db)
    left = tuple(_left(db, containing, kept))
    return EraseResult(erased=tuple(texts), kinds=kinds, events=tuple(kept), left=left, head=head)


def _left(db: Path, containing: str | None, kept: Sequence[int]) -> list[str]:
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
        lines += [f"{path}: a report made before; make it again" for path in sorted(db.parent.glob("*/report.html"))]
    return lines
