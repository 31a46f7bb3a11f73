"""Whatever a stranger changes in the file is found, and the first event that no longer holds is named."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from agent.errors import LedgerError
from agent.ledger.chain import AUDITED, EVENT, SCHEMA, VERSION, link, sha256
from agent.ledger.connect import reader
from agent.ledger.query import History
from agent.ledger.store import Ledger, Reservation
from agent.ledger.team_store import publication
from agent.ledger.verify import verify
from tests.ledger.ledgers import (
    alter,
    candidates,
    endless,
    fill,
    first_naming,
    in_memory,
    last_seqs,
    make,
    read,
    reseal,
)
from tests.toys import ask

TABLES = (*AUDITED, "blobs", "events", "head")


@pytest.fixture
def db(original: Path) -> Iterator[sqlite3.Connection]:
    with closing(in_memory(original)) as found:
        yield found


def seqs(db: sqlite3.Connection) -> list[int]:
    return [finding.seq for finding in verify(db)]


def columns(db: sqlite3.Connection, table: str) -> list[str]:
    return [name for (name,) in db.execute("SELECT name FROM pragma_table_info(?)", (table,))]


def a_row(db: sqlite3.Connection, table: str) -> tuple[int, tuple[Any, ...]]:
    """The rowid of one from the middle, and its place."""
    key = ", ".join(AUDITED[table])
    rows = db.execute(f"SELECT rowid, {key} FROM {table} ORDER BY rowid").fetchall()
    rowid, *values = rows[len(rows) // 2]
    return rowid, (table, *values)


def last(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT MAX(seq) FROM events").fetchone()[0])


def other(value: Any) -> Any:
    """A value of the same type that is not `value`."""
    return "x" if value is None else f"{value} " if isinstance(value, str) else value + 1


# -- a whole ledger ----------------------------------------------------------------------------------------------------


def test_a_whole_ledger_verifies(db: sqlite3.Connection) -> None:
    assert verify(db) == []


def test_an_empty_ledger_verifies(tmp_path: Path) -> None:
    Ledger(tmp_path / "ledger.db").close()
    with closing(reader(tmp_path / "ledger.db")) as db:
        assert verify(db) == []


async def test_a_ledger_that_is_being_written_verifies_at_any_moment(tmp_path: Path) -> None:
    """Also while an attempt is reserved, and while it is sent."""
    ledger = Ledger(tmp_path / "ledger.db")
    found = []
    with closing(reader(ledger.path)) as db:
        found.append(verify(db))
        await fill(ledger, "run-1", rows=1)
        found.append(verify(db))
        call = await ledger.reserve(Reservation("run-1", "model", "m", "k", "", 1, ask("a"), 0.5, 9))
        found.append(verify(db))
        ledger.sent(call)
        await ledger.commit()
        assert db.execute("SELECT state FROM calls WHERE id = ?", (call,)).fetchone() == ("sent",)
        found.append(verify(db))
    ledger.close()
    assert found == [[]] * 4


def test_what_a_writer_adds_meanwhile_is_not_taken_for_tampering(whole: Path) -> None:
    """The events are read before the rows: a row that came in between would be one that no event tells of."""
    ledger = Ledger(whole)
    with closing(reader(whole)) as db:

        def late(sql: str) -> None:
            if sql.startswith("SELECT * FROM runs"):
                ledger.end_run("run-1", "failed", 1.0)
                ledger.flush()

        db.set_trace_callback(late)
        assert verify(db) == []
    ledger.close()


@pytest.mark.parametrize(
    "statements",
    [
        "VACUUM",
        "ANALYZE",
        "REINDEX",
        "CREATE TABLE notes (x UNIQUE)",
        "CREATE TABLE notes (x); CREATE UNIQUE INDEX mine ON notes(x) WHERE x > 1",
        "CREATE TABLE notes (x PRIMARY KEY); CREATE TABLE more (x REFERENCES notes(x))",
    ],
)
def test_what_changes_no_read_and_no_write_is_no_finding(db: sqlite3.Connection, statements: str) -> None:
    db.executescript(statements)
    assert verify(db) == []


# -- rows --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", AUDITED)
def test_an_edit_of_any_column_is_found_at_the_last_event_about_the_row(original: Path, table: str) -> None:
    with closing(in_memory(original)) as whole:
        names = [name for name in columns(whole, table) if name not in AUDITED[table]]
        rowid, place = a_row(whole, table)
        seq = last_seqs(whole)[place]
    for name in names:
        with closing(in_memory(original)) as db:
            (value,) = db.execute(f"SELECT {name} FROM {table} WHERE rowid = ?", (rowid,)).fetchone()
            alter(db, f"UPDATE {table} SET {name} = ? WHERE rowid = {rowid}", values=(other(value),))
            found = verify(db)
            assert [finding.seq for finding in found] == [seq], name
            assert name in found[0].what


@pytest.mark.parametrize("table", AUDITED)
def test_a_changed_key_is_a_row_that_is_missing_and_one_that_nobody_wrote(db: sqlite3.Connection, table: str) -> None:
    rowid, place = a_row(db, table)
    seq, new = last_seqs(db)[place], 999 if isinstance(place[-1], int) else other(place[-1])
    alter(db, f"UPDATE {table} SET {AUDITED[table][-1]} = ? WHERE rowid = {rowid}", values=(new,))
    assert seqs(db) == [seq, last(db) + 1]


@pytest.mark.parametrize("table", AUDITED)
def test_a_removed_row_is_found_at_the_last_event_about_it(db: sqlite3.Connection, table: str) -> None:
    rowid, place = a_row(db, table)
    seq = last_seqs(db)[place]
    alter(db, f"DELETE FROM {table} WHERE rowid = {rowid}")
    assert seqs(db) == [seq]


@pytest.mark.parametrize("table", AUDITED)
@pytest.mark.parametrize("verb", ["INSERT", "INSERT OR REPLACE", "REPLACE"])
def test_a_row_that_nobody_wrote_is_found_after_the_last_event(db: sqlite3.Connection, table: str, verb: str) -> None:
    key = AUDITED[table][-1]
    new = 999 if (table, key) == ("calls", "id") or key in ("position", "number") else "new"
    picked = ", ".join("?" if name == key else name for name in columns(db, table))
    alter(db, f"{verb} INTO {table} SELECT {picked} FROM {table} LIMIT 1", values=(new,))
    assert seqs(db) == [last(db) + 1]


@pytest.mark.parametrize("table", AUDITED)
def test_a_row_that_is_replaced_is_found_at_the_last_event_about_it(db: sqlite3.Connection, table: str) -> None:
    rowid, place = a_row(db, table)
    seq = last_seqs(db)[place]
    names = columns(db, table)
    changed = next(n for n in names if n not in AUDITED[table] and n not in ("run_id", "candidate_id"))
    row = db.execute(f"SELECT * FROM {table} WHERE rowid = ?", (rowid,)).fetchone()
    values = [other(value) if name == changed else value for name, value in zip(names, row, strict=True)]
    alter(db, f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * len(names))})", values=values)
    assert seqs(db) == [seq]


@pytest.mark.parametrize("table", AUDITED)
def test_two_rows_that_change_places_are_found(db: sqlite3.Connection, table: str) -> None:
    key = AUDITED[table]
    first, second = db.execute(f"SELECT rowid, {', '.join(key)} FROM {table} ORDER BY rowid LIMIT 2").fetchall()
    expected = sorted(last_seqs(db)[table, *row[1:]] for row in (first, second))
    names = [name for name in columns(db, table) if name not in key]
    rest = ", ".join(names)
    held = [db.execute(f"SELECT {rest} FROM {table} WHERE rowid = ?", (row[0],)).fetchone() for row in (first, second)]
    assert held[0] != held[1]
    update = f"UPDATE {table} SET {', '.join(f'{name} = ?' for name in names)} WHERE rowid = "
    alter(db, f"{update}{first[0]}", values=held[1])
    alter(db, f"{update}{second[0]}", values=held[0])
    assert seqs(db) == expected


def test_a_value_of_another_type_is_found(db: sqlite3.Connection) -> None:
    alter(db, "UPDATE runs SET task = CAST(task AS BLOB) WHERE id = 'run-1'")
    alter(db, "UPDATE trials SET mean = 'high' WHERE run_id = 'run-2' AND number = 0")
    places = last_seqs(db)
    assert seqs(db) == sorted([places["runs", "run-1"], places["trials", "run-2", 0]])


# -- texts -------------------------------------------------------------------------------------------------------------


def a_text(db: sqlite3.Connection) -> str:
    (digest,) = db.execute("SELECT response_hash FROM calls WHERE state = 'ok' LIMIT 1 OFFSET 2").fetchone()
    return str(digest)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE blobs SET body = body || ' ' WHERE hash = '{}'",
        "UPDATE blobs SET body = CAST(body AS BLOB) WHERE hash = '{}'",
        "UPDATE blobs SET body = (SELECT body FROM blobs WHERE hash <> '{0}' LIMIT 1) WHERE hash = '{0}'",
        "INSERT OR REPLACE INTO blobs VALUES ('{}', 'another')",
        "DELETE FROM blobs WHERE hash = '{}'",
    ],
)
def test_a_changed_or_missing_text_is_found_at_the_first_event_that_names_it(
    db: sqlite3.Connection, change: str
) -> None:
    digest = a_text(db)
    seq = first_naming(db, digest)
    alter(db, change.format(digest))
    assert seqs(db) == [seq]


def test_a_text_that_nobody_wrote_is_found(db: sqlite3.Connection) -> None:
    end = last(db)
    alter(db, "INSERT INTO blobs VALUES (?, ?)", values=(sha256("new"), "new"))
    assert seqs(db) == [end + 1]


def test_a_text_under_another_hash_is_found(db: sqlite3.Connection) -> None:
    digest = a_text(db)
    seq = first_naming(db, digest)
    alter(db, "UPDATE blobs SET hash = ? WHERE hash = ?", values=("0" * 64, digest))
    assert seqs(db) == [seq, last(db) + 1]


# -- events and their head ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", EVENT[1:])
@pytest.mark.parametrize("seq", [1, 50, "last"])
def test_an_edited_event_is_found_where_it_stands(db: sqlite3.Connection, column: str, seq: int | str) -> None:
    number = last(db) if seq == "last" else seq
    alter(db, f"UPDATE events SET {column} = {column} || ' ' WHERE seq = {number}")
    assert seqs(db) == [number]


def test_a_removed_event_is_found_where_it_stood(db: sqlite3.Connection) -> None:
    alter(db, "DELETE FROM events WHERE seq = 40")
    assert seqs(db) == [40]


def test_events_that_change_places_are_found_at_the_first(db: sqlite3.Connection) -> None:
    moves = ("UPDATE events SET seq = -1 WHERE seq = 30", "UPDATE events SET seq = 30 WHERE seq = 60")
    alter(db, *moves, "UPDATE events SET seq = 60 WHERE seq = -1")
    assert seqs(db) == [30]


def test_events_that_move_up_after_one_was_removed_are_found(db: sqlite3.Connection) -> None:
    alter(db, "DELETE FROM events WHERE seq = 40", "UPDATE events SET seq = -seq WHERE seq > 40")
    alter(db, "UPDATE events SET seq = -seq - 1 WHERE seq < 0")
    assert seqs(db) == [40]


def test_a_replaced_event_is_found_where_it_stands(db: sqlite3.Connection) -> None:
    row = "SELECT seq, run_id, utc, kind, '{}', prev_hash, hash FROM events WHERE seq = 20"
    alter(db, f"INSERT OR REPLACE INTO events {row}")
    assert seqs(db) == [20]


def test_events_cut_off_at_the_end_are_found_after_the_last_one(db: sqlite3.Connection) -> None:
    end = last(db)
    alter(db, f"DELETE FROM events WHERE seq > {end - 3}")
    assert end - 2 in seqs(db)


def test_all_events_gone_are_found(db: sqlite3.Connection) -> None:
    alter(db, "DELETE FROM events")
    assert seqs(db)[0] == 1


def test_an_event_that_is_linked_but_not_in_the_head_is_found(db: sqlite3.Connection) -> None:
    end, prev = db.execute("SELECT seq, hash FROM head").fetchone()
    event = {"seq": end + 1, "run_id": "", "utc": "u", "kind": "note", "body": "{}"}
    alter(db, "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", values=(*event.values(), prev, link(prev, event)))
    assert seqs(db) == [end + 2]


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


def cut_with_care(db: sqlite3.Connection, keep: int) -> str:
    """Takes everything after event `keep` out, and makes the rest fit. Returns the head that the chain had."""
    (head,) = db.execute("SELECT hash FROM head").fetchone()
    alter(db, f"DELETE FROM events WHERE seq > {keep}")
    alter(db, f"UPDATE head SET (seq, hash) = (SELECT seq, hash FROM events WHERE seq = {keep})")
    for table in AUDITED:
        db.execute(f"DELETE FROM {table}")
    db.execute("DELETE FROM blobs")
    told = [json.loads(body) for (body,) in db.execute("SELECT body FROM events ORDER BY seq").fetchall()]
    for row in (body["row"] for body in told if "insert" in body):
        holders = ", ".join("?" * len(row))
        table = next(b["insert"] for b in told if b.get("row") is row)
        db.execute(f"INSERT OR REPLACE INTO {table} ({', '.join(row)}) VALUES ({holders})", tuple(row.values()))
    return str(head)


def test_a_shorter_history_that_holds_is_told_by_a_head_that_was_noted(db: sqlite3.Connection) -> None:
    head = cut_with_care(db, 2)  # the opening and the first run's row
    assert verify(db) == [], "tamper-evident, not tamper-proof: the file alone cannot show it"
    (finding,) = verify(db, anchor=head)
    assert finding.seq == 1
    assert head in finding.what


def test_any_head_of_the_past_is_an_anchor(db: sqlite3.Connection) -> None:
    for (digest,) in db.execute("SELECT hash FROM events WHERE seq IN (1, 17, 90)").fetchall():
        assert verify(db, anchor=digest) == []
    assert [finding.seq for finding in verify(db, anchor="f" * 64)] == [1]


@pytest.mark.parametrize(
    "body", ["", "{", "[]", "7", "null", '{"insert":"runs"}', '{"insert":"nowhere","row":{}}', "[" * 200_000]
)
def test_an_event_that_says_nothing_that_an_event_can_say_is_found(db: sqlite3.Connection, body: str) -> None:
    """Even when it is linked: no words of a stranger make the check itself fail."""
    end, prev = db.execute("SELECT seq, hash FROM head").fetchone()
    event = {"seq": end + 1, "run_id": "", "utc": "u", "kind": "note", "body": body}
    digest = link(prev, event)
    alter(db, "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", values=(*event.values(), prev, digest))
    alter(db, "UPDATE head SET seq = ?, hash = ?", values=(end + 1, digest))
    assert seqs(db) == [end + 1]


# -- the schema --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TRIGGER events_append_only_update",
        "DROP TRIGGER events_append_only_delete",
        "DROP TRIGGER events_in_sequence",
        "CREATE TRIGGER mine AFTER INSERT ON calls BEGIN UPDATE calls SET cost_usd = 0 WHERE id = NEW.id; END",
        "CREATE TRIGGER runs AFTER INSERT ON calls BEGIN UPDATE calls SET cost_usd = 0 WHERE id = NEW.id; END",
        "DROP VIEW prompts",
        "CREATE VIEW mine AS SELECT * FROM runs",
        "CREATE VIRTUAL TABLE mine USING fts5(x)",
        "CREATE TABLE json_each (value)",
        "CREATE TABLE Pragma_table_info (name, dflt_value)",
        "DROP INDEX calls_by_key",
        "CREATE INDEX mine ON calls(model)",
        "CREATE UNIQUE INDEX mine ON calls(run_id) WHERE state = 'none'",
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
    db.execute(statement)
    assert 0 in seqs(db)


@pytest.mark.parametrize(
    ("name", "sql"),
    [
        ("events_in_sequence", "CREATE TRIGGER events_in_sequence BEFORE INSERT ON events BEGIN SELECT 1; END"),
        ("prompts", "CREATE VIEW prompts AS SELECT c.*, 'mine' AS instruction, '' AS template FROM candidates c"),
    ],
)
def test_a_trigger_or_a_view_that_is_made_anew_otherwise_is_found(db: sqlite3.Connection, name: str, sql: str) -> None:
    db.execute(f"DROP {sql.split()[1]} {name}")
    db.execute(sql)
    (finding,) = verify(db)
    assert finding.seq == 0
    assert name in finding.what


@pytest.mark.parametrize("table", TABLES)
def test_a_view_in_place_of_a_table_is_told_before_it_is_asked(db: sqlite3.Connection, table: str) -> None:
    """Its question could be one that never ends."""
    endless(db, table)
    db.set_progress_handler(lambda: 1, 10_000_000)  # fails here instead of never
    assert {finding.what for finding in verify(db)} >= {
        f"the schema was changed: table {table} is missing",
        f"the schema was changed: view {table} was added",
    }
    assert not any(finding.seq for finding in verify(db))


@pytest.mark.parametrize("table", ["runs", "candidates", "events", "head"])
def test_a_ledger_of_another_making_is_refused_before_anything_of_it_is_asked(tmp_path: Path, table: str) -> None:
    """Whatever its seal says."""
    path = tmp_path / "foreign.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(SCHEMA)
        endless(db, table)
        db.execute(f"PRAGMA user_version = {VERSION}")
    reseal(path)
    content = path.read_bytes()
    for opens in (History, Ledger):
        found = subprocess.run(
            [sys.executable, "-c", OPENS, opens.__name__, str(path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert found.returncode == 0, found.stderr
        assert table in found.stdout or "no ledger" in found.stdout
    assert path.read_bytes() == content


OPENS = """
import sys
from pathlib import Path
from agent.errors import LedgerError
from agent.ledger.query import History
from agent.ledger.store import Ledger
try:
    {"History": History, "Ledger": Ledger}[sys.argv[1]](Path(sys.argv[2]))
except LedgerError as error:
    print(error)
else:
    sys.exit("it was opened")
"""


def test_a_table_that_answers_for_sqlite_hides_no_edit(db: sqlite3.Connection) -> None:
    told = "SELECT ?, name, dflt_value FROM pragma_table_info(?)"
    rows = [row for table in AUDITED for row in db.execute(told, (table, table))]
    alter(db, "UPDATE calls SET http_status = 500 WHERE state IN ('ok', 'cached')")
    words = "unicode61 tokenchars '_'"
    db.execute(f'CREATE VIRTUAL TABLE pragma_table_info USING fts5(of, name, dflt_value, tokenize="{words}")')
    forged = [(of, name, "500" if name == "http_status" else value) for of, name, value in rows]
    db.executemany("INSERT INTO pragma_table_info VALUES (?, ?, ?)", forged)
    found = verify(db)
    assert "the schema was changed: table pragma_table_info was added" in map(str, found)
    assert not any(finding.seq for finding in found)
    db.execute("DROP TABLE pragma_table_info")
    found = verify(db)
    assert found[0].seq > 0
    assert "(http_status)" in found[0].what


# -- anything ----------------------------------------------------------------------------------------------------------


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_any_change_of_any_value_in_any_table_is_found(original: Path, data: st.DataObject) -> None:
    with closing(in_memory(original)) as db:
        table = data.draw(st.sampled_from(TABLES))
        rowids = [rowid for (rowid,) in db.execute(f"SELECT rowid FROM {table} ORDER BY rowid")]
        rowid = data.draw(st.sampled_from(rowids))
        verb = data.draw(st.sampled_from(["delete", "edit", "move"]))
        column = data.draw(st.sampled_from(columns(db, table)))
        (old,) = db.execute(f"SELECT {column} FROM {table} WHERE rowid = ?", (rowid,)).fetchone()
        if verb == "delete":
            alter(db, f"DELETE FROM {table} WHERE rowid = {rowid}")
        else:
            if verb == "move":  # a value of another row of the same table
                there = data.draw(st.sampled_from(rowids))
                (new,) = db.execute(f"SELECT {column} FROM {table} WHERE rowid = ?", (there,)).fetchone()
            elif isinstance(old, str):
                new = data.draw(st.text(max_size=5) | st.binary(max_size=5))
            else:
                new = data.draw(st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=5))
            sql = f"UPDATE OR REPLACE {table} SET {column} = ? WHERE rowid = {rowid}"
            try:
                alter(db, sql, values=(new,))
            except (sqlite3.IntegrityError, UnicodeEncodeError):  # a key that is no number; a lone surrogate
                assume(False)
            assume(changed(original, db, table))
        assert verify(db), (table, column, rowid)


def changed(original: Path, db: sqlite3.Connection, table: str) -> bool:
    """SQLite turns a value into the column's type: `7.0` may be what was there."""
    with closing(in_memory(original)) as before:
        every = f"SELECT * FROM {table} ORDER BY rowid"
        return bool(before.execute(every).fetchall() != db.execute(every).fetchall())


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1), noise=st.binary(min_size=1, max_size=64))
def test_noise_anywhere_in_the_file_is_found_or_changes_no_answer(original: Path, place: float, noise: bytes) -> None:
    content = bytearray(original.read_bytes())
    content[18:20] = b"\x01\x01"
    start = int(place * (len(content) - len(noise)))
    content[start : start + len(noise)] = noise
    db = sqlite3.connect(":memory:")
    try:
        db.deserialize(bytes(content))
        found = verify(db)
        assert found or everything(db) == everything(in_memory(original))
    except sqlite3.Error:  # not even a database any more
        pass
    finally:
        db.close()


def everything(db: sqlite3.Connection) -> list[Any]:
    return [db.execute(f"SELECT * FROM {table} ORDER BY rowid").fetchall() for table in TABLES]


# -- erasure -----------------------------------------------------------------------------------------------------------


def reply_hash(path: Path) -> str:
    return str(read(path, "SELECT response_hash FROM calls WHERE state = 'ok' LIMIT 1")[0][0])


def test_erased_texts_are_gone_and_the_rest_verifies(whole: Path) -> None:
    digest = reply_hash(whole)
    (body,) = read(whole, "SELECT body FROM blobs WHERE hash = ?", digest)[0]
    with closing(Ledger(whole)) as ledger:
        ledger.erase([digest], "somebody", "on request")
        assert verify(ledger.db) == []
        assert read(whole, "SELECT COUNT(*) FROM blobs WHERE hash = ?", digest) == [(0,)]
    with closing(reader(whole)) as db:
        assert verify(db) == []
    assert body.encode() not in whole.read_bytes(), "nothing of it is left in free space"
    told = json.loads(read(whole, "SELECT body FROM events WHERE kind = 'texts_erased'")[0][0])
    assert told == {"erased": [digest], "actor": "somebody", "reason": "on request"}


def test_an_erased_text_that_is_put_back_behind_its_back_is_found(whole: Path) -> None:
    digest = reply_hash(whole)
    (body,) = read(whole, "SELECT body FROM blobs WHERE hash = ?", digest)[0]
    with closing(Ledger(whole)) as ledger:
        ledger.erase([digest], "somebody", "on request")
    with closing(in_memory(whole)) as db:
        seq = first_naming(db, digest)
        alter(db, "INSERT INTO blobs VALUES (?, ?)", values=(digest, body))
        assert seqs(db) == [seq]


@pytest.mark.parametrize("reopened", [True, False], ids=["another process", "the same process"])
async def test_an_erased_text_that_a_later_run_brings_again_verifies(tmp_path: Path, reopened: bool) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    await fill(ledger, "run-1")
    ledger.erase([digest for (digest,) in read(ledger.path, "SELECT hash FROM blobs")], "somebody", "all of it")
    if reopened:
        ledger.close()
        ledger = Ledger(ledger.path)
    await fill(ledger, "run-2")
    assert verify(ledger.db) == []
    assert read(ledger.path, "SELECT COUNT(*) FROM blobs")[0][0] > 0
    ledger.close()
    with closing(reader(ledger.path)) as db:
        assert verify(db) == []


def test_a_ledger_whose_texts_are_all_erased_still_opens_and_tells_its_numbers(tmp_path: Path) -> None:
    path = make(tmp_path / "ledger.db", ["run-1"])
    with closing(Ledger(path)) as ledger:
        ledger.erase([digest for (digest,) in read(path, "SELECT hash FROM blobs")], "somebody", "all of it")
    history = History(path)
    assert [trial["mean"] for trial in history.trials("run-1")] == [0.5] * 3
    assert history.run()["result"] is None
    assert {row["error"] for row in history.outcomes("run-1", candidates()[0].id, "dev")} == {"(erased)"}
    assert history.candidate(candidates()[1].id)["demos"][0]["rationale"] == "(erased)"


def test_a_message_about_a_damaged_ledger_names_the_command_that_reads_it(tmp_path: Path) -> None:
    path = make(tmp_path / "cell.db", ["run-1"])
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        alter(db, "UPDATE events SET body = '{}' WHERE run_id = 'run-1'")
    says = re.escape(f"`optimize audit verify --db {path}` lists all")
    with pytest.raises(LedgerError, match=says):
        History(path)
    reseal(path)
    with closing(History(path)) as history, pytest.raises(LedgerError, match=says):
        publication(history, "run-1", with_texts=False)
