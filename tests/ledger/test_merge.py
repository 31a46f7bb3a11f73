"""Many ledgers in one file that is only read: nothing is lost or counted twice, and each chain can be proved."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from itertools import permutations
from pathlib import Path

import pytest

from agent.errors import InputError, LedgerError
from agent.ledger.chain import EVENT, OWNER_OF
from agent.ledger.connect import unchecked
from agent.ledger.container import merge_ledgers
from agent.ledger.query import History
from agent.ledger.store import Ledger
from agent.ledger.trail import call
from agent.ledger.verify import Chain, chain_events, chains, home_of, verify
from tests.ledger.ledgers import alter, copy, fill, in_memory, make, read

EVENTS = f"SELECT {', '.join(EVENT)} FROM events ORDER BY seq"


def go_on(path: Path, run_id: str) -> Path:
    """The ledger with one run more."""
    with closing(Ledger(path)) as ledger:
        asyncio.run(fill(ledger, run_id))
    return path


def note(path: Path, run_id: str, number: int) -> Path:
    """The ledger with one event more about a run."""
    with closing(Ledger(path)) as ledger:
        ledger.event(run_id, "note", {"number": number})
    return path


def events_in(db: sqlite3.Connection, chain: Chain) -> list[tuple[object, ...]]:
    return [tuple(event.values()) for event in chain_events(db, chain, chain.events)]


def seen(path: Path, run_id: str) -> dict[str, object]:
    """What commands show of a run, without numbers of calls and events."""
    with closing(History(path)) as history:
        run = history.run(run_id)
        trials = history.trials(run_id)
        outcomes = [history.outcomes(run_id, trial["candidate_id"], "dev") for trial in trials]
        candidates = [history.candidate(trial["candidate_id"]) for trial in trials]
        return {
            "run": run,
            "trials": trials,
            "outcomes": outcomes,
            "candidates": candidates,
            "costs": history.costs(run_id),
            "rejected": history.rejected(run_id),
        }


def test_every_row_and_event_of_the_sources_is_there_once(tmp_path: Path) -> None:
    sources = [make(tmp_path / f"{name}.db", (f"{name}-1", f"{name}-2")) for name in "abc"]
    merged = merge_ledgers(sources, tmp_path / "team.db")
    assert (merged.chains, merged.runs, merged.calls) == (
        3,
        6,
        sum(read(p, "SELECT COUNT(*) FROM calls")[0][0] for p in sources),
    )
    for source in sources:
        for (run_id,) in read(source, "SELECT id FROM runs"):
            assert seen(merged.ledger, run_id) == seen(source, run_id)
    with unchecked(merged.ledger) as db:
        assert verify(db) == []
        assert [events_in(db, chain) for chain in chains(db).values()] == [read(source, EVENTS) for source in sources]
    texts = {row for source in sources for row in read(source, "SELECT hash, body FROM blobs")}
    assert sorted(read(merged.ledger, "SELECT hash, body FROM blobs")) == sorted(texts)


def test_the_order_of_the_sources_changes_no_byte(tmp_path: Path) -> None:
    sources = [make(tmp_path / f"{name}.db", (f"{name}-1",)) for name in "abc"]
    whole = {
        merge_ledgers(order, tmp_path / "team.db", force=True).ledger.read_bytes() for order in permutations(sources)
    }
    assert len(whole) == 1


def test_a_copy_adds_nothing_and_one_that_went_on_what_came_after(tmp_path: Path, original: Path) -> None:
    older = copy(original, tmp_path / "older.db")
    longer = go_on(copy(original, tmp_path / "longer.db"), "run-3")
    merged = merge_ledgers([older, longer, original], tmp_path / "team.db")
    assert (merged.chains, merged.runs) == (1, 3)
    assert read(merged.ledger, EVENTS) == read(longer, EVENTS)
    assert len(merged.sources) == 3
    assert merged.sources[0].name.endswith("longer.db")
    for table in OWNER_OF:
        assert read(merged.ledger, f"SELECT * FROM {table}") == read(longer, f"SELECT * FROM {table}")


def test_two_copies_that_both_went_on_share_their_beginning(tmp_path: Path, original: Path) -> None:
    left = go_on(copy(original, tmp_path / "left.db"), "run-3")
    right = note(go_on(copy(original, tmp_path / "right.db"), "run-4"), "run-1", 7)
    third = go_on(copy(right, tmp_path / "third.db"), "run-5")
    merged = merge_ledgers([left, right, third], tmp_path / "team.db")
    common = read(original, "SELECT MAX(seq) FROM events")[0][0]
    own = [read(path, "SELECT MAX(seq) FROM events")[0][0] - common for path in (left, third)]
    assert (merged.chains, merged.runs, merged.events) == (2, 5, common + sum(own))
    for path, runs in ((left, ("run-2", "run-3")), (third, ("run-1", "run-4", "run-5"))):
        for run_id in runs:
            assert seen(merged.ledger, run_id) == seen(path, run_id)
    with unchecked(merged.ledger) as db:
        assert verify(db) == []
        heads = {read(path, "SELECT hash FROM head")[0][0] for path in (left, right, third)}
        for head in heads:
            assert verify(db, head) == []
        assert [finding.what for finding in verify(db, "f" * 64)] == [
            f"no event has the hash that was noted elsewhere: {'f' * 64}"
        ]
        assert events_in(db, home_of(db, "run-5")) == read(third, EVENTS)


def test_a_run_that_went_on_in_two_ways_is_refused(tmp_path: Path, original: Path) -> None:
    left = note(copy(original, tmp_path / "left.db"), "run-1", 1)
    right = note(copy(original, tmp_path / "right.db"), "run-1", 2)
    with pytest.raises(LedgerError, match="the run run-1 differs from the one in"):
        merge_ledgers([left, right], tmp_path / "team.db")
    assert not (tmp_path / "team.db").exists()
    other = make(tmp_path / "other.db", ("run-2", "run-9"))
    with pytest.raises(LedgerError, match="the run run-2 differs from the one in"):
        merge_ledgers([original, other], tmp_path / "team.db")


def test_what_is_wrong_with_the_sources_is_said_at_once(tmp_path: Path, original: Path) -> None:
    changed = copy(original, tmp_path / "changed.db")
    with closing(sqlite3.connect(changed, isolation_level=None)) as db:
        alter(db, "UPDATE trials SET mean = 0.9 WHERE number = 1")
    merged = merge_ledgers([original, make(tmp_path / "b.db", ("b-1",))], tmp_path / "merged.db").ledger
    held = Ledger(tmp_path / "held.db")
    try:
        with pytest.raises(LedgerError) as caught:
            merge_ledgers([original, changed, merged, held.path], tmp_path / "team.db")
    finally:
        held.close()
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert "changed.db: not whole: event" in lines[0]
    assert "a merged ledger" in lines[1]
    assert "in use by process" in lines[2]
    assert lines[3] == "nothing was merged"
    for paths, output, why in (
        ([original], "team.db", "two or more"),
        ([original, tmp_path / "none.db"], "team.db", "no ledger here"),
        ([original, merged], "merged.db", "is one of the ledgers"),
        ([original, changed], "held.db", "already exists"),
        ([original, changed], ".", "is a folder"),
    ):
        with pytest.raises(InputError, match=why):
            merge_ledgers(paths, tmp_path / output)
    with pytest.raises(InputError, match="is not a merged ledger"):
        merge_ledgers([original, merged], held.path, force=True)


def test_a_text_that_one_source_erased_is_not_in_the_merged_ledger(tmp_path: Path, original: Path) -> None:
    erased = make(tmp_path / "erased.db", ("e-1",))
    (digest,) = read(erased, "SELECT response_hash FROM calls WHERE response_hash IS NOT NULL LIMIT 1")[0]
    with closing(Ledger(erased)) as ledger:
        ledger.erase([digest], "someone", "asked for")
    assert read(original, "SELECT 1 FROM blobs WHERE hash = ?", digest)
    merged = merge_ledgers([original, erased], tmp_path / "team.db").ledger
    assert not read(merged, "SELECT 1 FROM blobs WHERE hash = ?", digest)
    with unchecked(merged) as db:
        assert verify(db) == []


def test_nothing_writes_to_a_merged_ledger(tmp_path: Path, original: Path) -> None:
    merged = merge_ledgers([original, make(tmp_path / "b.db", ("b-1",))], tmp_path / "team.db").ledger
    before = merged.read_bytes()
    with pytest.raises(LedgerError, match="a merged ledger: it is only read; name the ledger of the run with --db"):
        Ledger(merged)
    assert merged.read_bytes() == before
    assert os.stat(merged).st_mode & 0o777 == 0o400


def test_a_call_is_shown_with_its_own_events(tmp_path: Path) -> None:
    sources = [make(tmp_path / f"{name}.db", (f"{name}-1",)) for name in "ab"]
    merged = merge_ledgers(sources, tmp_path / "team.db").ledger
    with closing(History(merged)) as history, closing(History(sources[1])) as source:
        for number in range(1, source.select("SELECT MAX(id) AS last FROM calls")[0]["last"] + 1):
            of_b = history.select("SELECT MIN(id) AS first FROM calls WHERE run_id = 'b-1'")[0]["first"] + number - 1
            here, there = call(history, of_b), call(source, number)
            assert [event["body"] for event in here["events"]] == [event["body"] for event in there["events"]]
            assert (here["request"], here["reply"]) == (there["request"], there["reply"])


CHANGES = {
    "a row of a run": "UPDATE trials SET mean = 0.9 WHERE run_id = 'run-3' AND number = 1",
    "a row of the common part": "UPDATE outcomes SET value = 0.9 WHERE run_id = 'run-1'",
    "a row that is gone": "DELETE FROM outcomes WHERE run_id = 'run-4' AND rowid % 3 = 0",
    "a call that is gone": "DELETE FROM calls WHERE run_id = 'run-4' AND id % 3 = 0",
    "a candidate": "UPDATE candidates SET technique = 'x'",
    "a row that no event has": "INSERT INTO trials SELECT 'x', number, round, candidate_id, state, n, mean, low, high, "
    "reason FROM trials LIMIT 1",
    "an event": "UPDATE events SET utc = '2020' WHERE seq = 9",
    "the last event of a chain": "UPDATE events SET hash = 'x' WHERE seq = (SELECT MAX(seq) FROM events)",
    "an event that is gone": "DELETE FROM events WHERE seq = (SELECT MAX(seq) FROM events)",
    "a text": "UPDATE blobs SET body = 'x' WHERE rowid = 3",
    "a text that is gone": "DELETE FROM blobs WHERE rowid = 3",
    "a text more": "INSERT INTO blobs VALUES ('x', 'y')",
    "where a chain was continued": "UPDATE merged_chains SET parent = 0 WHERE number = 2",
    "how much two chains share": "UPDATE merged_chains SET shared = shared - 1, seq_offset = seq_offset + 1 "
    "WHERE number = 2",
    "the numbers of calls": "UPDATE merged_chains SET call_offset = call_offset + 1 WHERE number = 2",
    "what it is limited to": "UPDATE merged_chains SET only = 'run-2' WHERE number = 1",
    "a chain's head": "UPDATE merged_chains SET head = 'x' WHERE number = 1",
    "a chain's length": "UPDATE merged_chains SET events = events - 1 WHERE number = 2",
    "a chain that is gone": "DELETE FROM merged_chains WHERE number = 2",
    "a chain's ledger": "UPDATE merged_chains SET ledger = 'x' WHERE number = 2",
    "the head": "UPDATE head SET seq = seq - 1",
}


def test_whatever_is_changed_in_it_is_found(tmp_path: Path, original: Path) -> None:
    left = go_on(copy(original, tmp_path / "left.db"), "run-3")
    right = note(go_on(copy(original, tmp_path / "right.db"), "run-4"), "run-1", 7)
    merged = merge_ledgers([left, right], tmp_path / "team.db").ledger
    missed = []
    for what, statement in CHANGES.items():
        with closing(in_memory(merged)) as db:
            alter(db, statement)
            if not verify(db):
                missed.append(what)
    assert missed == []
    with closing(in_memory(merged)) as db:
        db.execute("ALTER TABLE merged_chains ADD COLUMN note TEXT")
        assert verify(db)


def test_ledgers_of_one_folder_are_merged_after_an_alias_moved(tmp_path: Path) -> None:
    sources = [make(tmp_path / f"{name}.db", (f"{name}-1",)) for name in "ab"]
    move = {"name": "triage", "alias": "production", "version": "p_1", "hash": "f" * 64}
    for source in sources:
        with closing(Ledger(source)) as ledger:
            ledger.event("a-1", "alias_moved", move)
    merged = merge_ledgers(sources, tmp_path / "team.db").ledger
    with closing(History(merged)) as history:
        assert verify(history.db) == []
        assert history.alias_moves("triage") == [move]
