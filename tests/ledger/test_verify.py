"""Any change of a ledger is found, and the first event that no longer holds is named."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from agent.errors import LedgerError
from agent.ledger.chain import AUDITED, EVENT, SCHEMA, VERSION, Folded, link, sha256
from agent.ledger.connect import reader
from agent.ledger.publication import publication
from agent.ledger.query import History
from agent.ledger.store import Ledger, Reservation
from agent.ledger.verify import verify
from agent.types import canonical
from tests.ledger.ledgers import alter, endless, fill, first_naming, in_memory, last_seqs, make, reseal
from tests.toys import ask

TABLES = (*AUDITED, "blobs", "events", "head")
NO_LIMIT = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.fixture
def db(original: Path) -> Iterator[sqlite3.Connection]:
    with closing(in_memory(original)) as found:
        yield found


def seqs(db: sqlite3.Connection) -> list[int]:
    return [finding.seq for finding in verify(db)]


def columns(db: sqlite3.Connection, table: str) -> list[str]:
    return [name for (name,) in db.execute("SELECT name FROM pragma_table_info(?)", (table,))]


def last(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT MAX(seq) FROM events").fetchone()[0])


def other(value: Any) -> Any:
    """A value of the same type that is not `value`."""
    return "x" if value is None else f"{value} " if isinstance(value, str) else value + 1


# -- a whole ledger ----------------------------------------------------------------------------------------------------


async def test_a_ledger_verifies_at_any_moment_of_its_writing(tmp_path: Path, whole: Path) -> None:
    """Empty, while an attempt is reserved or sent, and while a writer adds rows between two reads."""
    ledger = Ledger(tmp_path / "new.db")
    with closing(reader(ledger.path)) as db:
        found = [verify(db)]
        await fill(ledger, "run-1", rows=1)
        found.append(verify(db))
        call = await ledger.reserve(Reservation("run-1", "model", "m", "k", "", 1, ask("a"), 0.5, 9))
        found.append(verify(db))
        ledger.sent(call)
        await ledger.commit()
        assert db.execute("SELECT state FROM calls WHERE id = ?", (call,)).fetchone() == ("sent",)
        found.append(verify(db))
    ledger.close()
    ledger = Ledger(whole)
    with closing(reader(whole)) as db:

        def late(sql: str) -> None:
            if sql.startswith("SELECT * FROM runs"):
                ledger.end_run("run-1", "failed", 1.0)
                ledger.flush()

        db.set_trace_callback(late)
        found.append(verify(db))
    ledger.close()
    assert found == [[]] * 5


@pytest.mark.parametrize(
    "statements",
    ["VACUUM", "ANALYZE", "REINDEX", "CREATE TABLE notes (x UNIQUE)",
     "CREATE TABLE notes (x); CREATE UNIQUE INDEX mine ON notes(x) WHERE x > 1",
     "CREATE TABLE notes (x PRIMARY KEY); CREATE TABLE more (x REFERENCES notes(x))"],
)  # fmt: skip
def test_what_changes_no_read_and_no_write_is_no_finding(db: sqlite3.Connection, statements: str) -> None:
    db.executescript(statements)
    assert verify(db) == []


# -- rows and texts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", AUDITED)
def test_a_changed_row_is_found_at_the_last_event_about_it(original: Path, table: str) -> None:
    with closing(in_memory(original)) as whole:
        rows = whole.execute(f"SELECT rowid, {', '.join(AUDITED[table])} FROM {table} ORDER BY rowid").fetchall()
        rowid, *key = rows[len(rows) // 2]
        seq, end, names = last_seqs(whole)[table, *key], last(whole), columns(whole, table)
    update, new = f"UPDATE {table} SET {{}} = ? WHERE rowid = {rowid}", 999 if isinstance(key[-1], int) else "new"
    copied = ", ".join("?" if name == AUDITED[table][-1] else name for name in names)
    changes: dict[str, list[int]] = {
        update.format(AUDITED[table][-1]): [seq, end + 1],
        f"DELETE FROM {table} WHERE rowid = {rowid} AND ? <> ''": [seq],
        f"INSERT INTO {table} SELECT {copied} FROM {table} WHERE rowid = {rowid}": [end + 1],
    }
    for statement, expected in changes.items():
        with closing(in_memory(original)) as db:
            alter(db, statement, values=(new,))
            assert seqs(db) == expected, statement
    for name in set(names) - set(AUDITED[table]):
        with closing(in_memory(original)) as db:
            (value,) = db.execute(f"SELECT {name} FROM {table} WHERE rowid = {rowid}").fetchone()
            alter(db, update.format(name), values=(other(value),))
            (finding,) = verify(db)
            assert (finding.seq, name in finding.what) == (seq, True), name


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE blobs SET body = body || ' ' WHERE hash = '{}'",
        "UPDATE blobs SET body = CAST(body AS BLOB) WHERE hash = '{}'",
        "UPDATE blobs SET body = (SELECT body FROM blobs WHERE hash <> '{0}' LIMIT 1) WHERE hash = '{0}'",
        "DELETE FROM blobs WHERE hash = '{}'",
    ],
)
def test_a_changed_or_missing_text_is_found_at_the_first_event_that_names_it(
    db: sqlite3.Connection, change: str
) -> None:
    (digest,) = db.execute("SELECT response_hash FROM calls WHERE state = 'ok' LIMIT 1 OFFSET 2").fetchone()
    seq, end = first_naming(db, digest), last(db)
    alter(db, change.format(digest))
    assert seqs(db) == [seq]
    alter(db, "INSERT INTO blobs VALUES (?, ?)", values=(sha256("new"), "new"))
    assert seqs(db) == [seq, end + 1], "a text that no event names"


# -- events and their head ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", EVENT[1:])
@pytest.mark.parametrize("seq", [1, 50, "last"])
def test_an_edited_event_is_found_in_its_place(db: sqlite3.Connection, column: str, seq: int | str) -> None:
    number = last(db) if seq == "last" else seq
    alter(db, f"UPDATE events SET {column} = {column} || ' ' WHERE seq = {number}")
    assert seqs(db) == [number]


@pytest.mark.parametrize(
    ("changes", "seq"),
    [
        (["DELETE FROM events WHERE seq = 40"], 40),
        (["DELETE FROM events WHERE seq = 40", "UPDATE events SET seq = -seq WHERE seq > 40",
          "UPDATE events SET seq = -seq - 1 WHERE seq < 0"], 40),
        (["UPDATE events SET seq = -1 WHERE seq = 30", "UPDATE events SET seq = 30 WHERE seq = 60",
          "UPDATE events SET seq = 60 WHERE seq = -1"], 30),
        (["INSERT OR REPLACE INTO events SELECT seq, run_id, utc, kind, '{}', prev_hash, hash FROM events "
          "WHERE seq = 20"], 20),
        (["DELETE FROM events"], 1),
    ],
    ids=["removed", "moved up", "swapped", "replaced", "all gone"],
)  # fmt: skip
def test_moved_and_missing_events_are_found_at_the_first(db: sqlite3.Connection, changes: list[str], seq: int) -> None:
    alter(db, *changes)
    assert seqs(db)[0] == seq


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE head SET hash = '00'",
        "UPDATE head SET seq = seq - 1",
        "DELETE FROM head",
        "INSERT OR REPLACE INTO head SELECT 1, seq, prev_hash FROM events ORDER BY seq DESC LIMIT 1",
    ],
)
def test_a_changed_head_is_found_after_the_last_event(db: sqlite3.Connection, change: str) -> None:
    end = last(db)
    alter(db, change)
    assert seqs(db) == [end + 1]


MEANINGLESS = ("", "{", "[]", "7", '{"insert":"runs"}', '{"insert":"nowhere","row":{}}', "[" * 99_999)


@pytest.mark.parametrize(("body", "in_head"), [*((body, True) for body in MEANINGLESS), ("{}", False)])
def test_a_linked_event_without_a_meaning_or_outside_the_head_is_found(
    db: sqlite3.Connection, body: str, in_head: bool
) -> None:
    end, prev = db.execute("SELECT seq, hash FROM head").fetchone()
    event = {"seq": end + 1, "run_id": "", "utc": "u", "kind": "note", "body": body}
    digest = link(prev, event)
    alter(db, "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", values=(*event.values(), prev, digest))
    if in_head:
        alter(db, "UPDATE head SET seq = ?, hash = ?", values=(end + 1, digest))
    assert seqs(db) == [end + 1 if in_head else end + 2]


def test_a_shorter_history_that_holds_is_revealed_by_a_noted_head(db: sqlite3.Connection) -> None:
    for (digest,) in db.execute("SELECT hash FROM events WHERE seq IN (1, 17, 90)").fetchall():
        assert verify(db, anchor=digest) == []
    (head,) = db.execute("SELECT hash FROM head").fetchone()
    (body,) = db.execute("SELECT body FROM events WHERE seq = 2").fetchone()
    alter(db, "DELETE FROM events WHERE seq > 2", "DELETE FROM blobs", *(f"DELETE FROM {table}" for table in AUDITED))
    alter(db, "UPDATE head SET (seq, hash) = (SELECT seq, hash FROM events WHERE seq = 2)")
    row = json.loads(body)["row"]
    db.execute(f"INSERT INTO runs ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", tuple(row.values()))
    assert verify(db) == [], "tamper-evident, not tamper-proof: the file alone cannot show it"
    (finding,) = verify(db, anchor=head)
    assert (finding.seq, head in finding.what) == (1, True)


# -- the schema --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TRIGGER events_append_only_update",
        "CREATE TRIGGER mine AFTER INSERT ON calls BEGIN UPDATE calls SET cost_usd = 0 WHERE id = NEW.id; END",
        "CREATE TRIGGER runs AFTER INSERT ON calls BEGIN UPDATE calls SET cost_usd = 0 WHERE id = NEW.id; END",
        "DROP TRIGGER events_in_sequence; CREATE TRIGGER events_in_sequence AFTER DELETE ON runs BEGIN SELECT 1; END",
        "DROP VIEW prompts; CREATE VIEW prompts AS SELECT c.*, '' AS instruction, '' AS template FROM candidates c",
        "CREATE VIEW mine AS SELECT * FROM runs",
        "CREATE VIRTUAL TABLE mine USING fts5(x)",
        "CREATE TABLE json_each (value)",
        "CREATE TABLE Pragma_table_info (name, dflt_value)",
        "DROP INDEX calls_by_key",
        "CREATE INDEX mine ON calls(model)",
        "create unique index mine on CALLS (run_id) where 0",
        "CREATE INDEX mine ON outcomes(json(value))",
        "CREATE TABLE mine (run REFERENCES runs(id))",
        "CREATE TABLE mine (x, run, FOREIGN KEY (run) REFERENCES Runs ON DELETE CASCADE)",
        "DROP TABLE examples",
        "DROP TABLE events",
        "DROP TABLE head",
        "ALTER TABLE runs RENAME TO walks",
        "ALTER TABLE runs ADD COLUMN more REAL DEFAULT 0.5",
        f"PRAGMA user_version = {VERSION + 1}",
        "PRAGMA user_version = 0",
    ],
)
def test_a_changed_schema_is_found(db: sqlite3.Connection, statement: str) -> None:
    db.executescript(statement)
    assert 0 in seqs(db)


@pytest.mark.parametrize("table", TABLES)
def test_a_view_in_place_of_a_table_is_reported_and_never_read(tmp_path: Path, table: str) -> None:
    """Its query may never end; whatever the seal says, it is refused."""
    path = tmp_path / "foreign.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(SCHEMA)
        endless(db, table)
        db.execute(f"PRAGMA user_version = {VERSION}")
        db.commit()
        db.set_progress_handler(lambda: 1, 10_000_000)  # fails here instead of never
        assert {finding.what for finding in verify(db)} >= {
            f"the schema was changed: table {table} is missing",
            f"the schema was changed: view {table} was added",
        }
    reseal(path)
    content = path.read_bytes()
    for opens in (History, Ledger):
        with pytest.raises(LedgerError, match=rf"{table}|no ledger"):
            opens(path)
    assert path.read_bytes() == content


def test_a_table_that_answers_for_sqlite_hides_no_edit(db: sqlite3.Connection) -> None:
    told = "SELECT ?, name, dflt_value FROM pragma_table_info(?)"
    rows = [row for table in AUDITED for row in db.execute(told, (table, table))]
    alter(db, "UPDATE calls SET http_status = 500 WHERE state IN ('ok', 'cached')")
    words = "unicode61 tokenchars '_'"
    db.execute(f'CREATE VIRTUAL TABLE pragma_table_info USING fts5(of, name, dflt_value, tokenize="{words}")')
    forged = [(of, name, "500" if name == "http_status" else value) for of, name, value in rows]
    db.executemany("INSERT INTO pragma_table_info VALUES (?, ?, ?)", forged)
    assert "the schema was changed: table pragma_table_info was added" in map(str, verify(db))
    db.execute("DROP TABLE pragma_table_info")
    assert "(http_status)" in verify(db)[0].what


# -- anything ----------------------------------------------------------------------------------------------------------


@NO_LIMIT
@given(data=st.data())
def test_any_change_of_any_value_in_any_table_is_found(original: Path, data: st.DataObject) -> None:
    with closing(in_memory(original)) as db:
        table = data.draw(st.sampled_from(TABLES))
        rowids = [rowid for (rowid,) in db.execute(f"SELECT rowid FROM {table} ORDER BY rowid")]
        rowid = data.draw(st.sampled_from(rowids))
        column = data.draw(st.sampled_from(columns(db, table)))
        every = f"SELECT * FROM {table} ORDER BY rowid"
        (old,), before = (
            db.execute(f"SELECT {column} FROM {table} WHERE rowid = {rowid}").fetchone(),
            db.execute(every).fetchall(),
        )
        values = st.text(max_size=5) | (
            st.binary(max_size=5)
            if isinstance(old, str)
            else st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
        )
        there = data.draw(st.sampled_from(rowids))
        of_another = db.execute(f"SELECT {column} FROM {table} WHERE rowid = {there}").fetchone()[0]
        new = data.draw(values | st.just(of_another))
        try:
            alter(db, f"UPDATE OR REPLACE {table} SET {column} = ? WHERE rowid = {rowid}", values=(new,))
        except (sqlite3.IntegrityError, UnicodeEncodeError):  # a key that is no number; a lone surrogate
            assume(False)
        assume(
            db.execute(every).fetchall() != before
        )  # SQLite converts to the column's type: `7.0` may be the old value
        assert verify(db), (table, column, rowid)


@NO_LIMIT
@given(place=st.floats(0, 1), noise=st.binary(min_size=1, max_size=64))
def test_noise_anywhere_in_the_file_is_found_or_changes_no_answer(original: Path, place: float, noise: bytes) -> None:
    content = bytearray(original.read_bytes())
    content[18:20] = b"\x01\x01"
    start = int(place * (len(content) - len(noise)))
    content[start : start + len(noise)] = noise
    with closing(sqlite3.connect(":memory:")) as db, closing(in_memory(original)) as before:
        try:
            db.deserialize(bytes(content))
            found = verify(db)
            assert found or everything(db) == everything(before)
        except sqlite3.Error:  # no longer a database
            pass


def everything(db: sqlite3.Connection) -> list[Any]:
    return [db.execute(f"SELECT * FROM {table} ORDER BY rowid").fetchall() for table in TABLES]


# -- the meaning of events ---------------------------------------------------------------------------------------------


def folded(*bodies: dict[str, Any]) -> Folded:
    found = Folded()
    for seq, body in enumerate(bodies, 1):
        found.add(seq, "r", canonical(body))
    return found


def test_a_row_is_what_was_written_last_and_updated_since() -> None:
    found = folded(
        {"insert": "runs", "row": {"id": "r", "status": "running", "seed": 1}},
        {"update": "runs", "key": ["r"], "set": {"status": "failed"}},
        {"insert": "runs", "row": {"id": "r", "status": "running", "seed": 2}},
        {"update": "runs", "key": ["r"], "set": {"status": "complete"}},
        {"why": "a fact"},
    )
    assert found.rows == {("runs", "r"): {"id": "r", "status": "complete", "seed": 2}}
    assert found.seqs == {("runs", "r"): 4}


def test_a_text_belongs_to_the_first_event_that_names_it_and_is_erased_until_named_again() -> None:
    found = folded(
        {"kind": 1, "reply_hash": "a"},
        {"insert": "calls", "row": {"id": 1, "request_hash": "b", "response_hash": ""}},
        {"update": "calls", "key": [1], "set": {"response_hash": "a"}},
        {"erased": ["a", "b"]},
        {"y_hash": "a"},
    )
    assert (found.texts, found.erased) == ({"a": 1, "b": 2}, {"b"})


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE events SET body = '{}' WHERE seq = 2",
        "UPDATE OR REPLACE events SET seq = 2 WHERE seq = 3",
        "DELETE FROM events",
        "INSERT OR REPLACE INTO events VALUES (2, 'r', 'u', 'k', '{}', 'p', 'h')",
        "INSERT INTO events VALUES (7, 'r', 'u', 'k', '{}', 'p', 'h') ON CONFLICT(seq) DO UPDATE SET body = 'x'",
        "INSERT INTO events VALUES (9999, 'r', 'u', 'k', '{}', 'p', 'h')",
        "INSERT INTO events VALUES (NULL, 'r', 'u', 'k', '{}', 'p', 'h')",
        "INSERT OR IGNORE INTO events VALUES (2, 'r', 'u', 'k', '{}', 'p', 'h')",
    ],
)
def test_events_are_append_only_for_any_client(db: sqlite3.Connection, sql: str) -> None:
    with pytest.raises(sqlite3.IntegrityError, match=r"events (are append-only|have no gaps)"):
        db.execute(sql)


def test_a_damaged_ledger_is_refused_with_the_command_that_lists_all_findings(tmp_path: Path) -> None:
    path = make(tmp_path / "cell.db", ["run-1"])
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        alter(db, "UPDATE events SET body = '{}' WHERE run_id = 'run-1'")
    says = re.escape(f"`optimize audit verify --db {path}` lists all")
    with pytest.raises(LedgerError, match=says):
        History(path)
    reseal(path)
    with closing(History(path)) as history, pytest.raises(LedgerError, match=says):
        publication(history, "run-1", with_texts=False)
