"""Whatever happens to a ledger's file, what is saved of it is a whole ledger and nothing but what was written."""

from __future__ import annotations

import random
import resource
import shutil
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.errors import InputError, LedgerError
from agent.ledger import seal
from agent.ledger.connect import reader
from agent.ledger.pages import Pages
from agent.ledger.query import History
from agent.ledger.recover import recover
from agent.ledger.schema import AUDITED, STEPS
from agent.ledger.store import Ledger
from agent.ledger.verify import verify
from tests.ledger import ledgers
from tests.toys import open_ledger

PAGE = 4096


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of many pages, with texts that go over several of them. Not to be written to."""
    path = tmp_path_factory.mktemp("large") / "ledger.db"
    ledger = open_ledger(path)
    rng = random.Random(3)
    for number in range(120):
        text = f"{number} é \0 " + rng.choice("abc") * rng.choice([10, 100, 5_000, 20_000])
        ledger.event("run-1", "note", {"number": number, "why": "x" * rng.choice([1, 300, 6_000])}, {"text": text})
    ledger.close()
    return path


@pytest.fixture(scope="module")
def named(large: Path) -> dict[str, int]:
    """The first event that names each text."""
    with closing(sqlite3.connect(large)) as db:
        return {digest: ledgers.first_naming(db, digest) for (digest,) in db.execute("SELECT hash FROM blobs")}


def events(path: Path) -> list[Any]:
    return ledgers.read(path, "SELECT * FROM events ORDER BY seq")


def texts(path: Path) -> dict[str, str]:
    return dict(ledgers.read(path, "SELECT hash, body FROM blobs"))


def check_saved(original: Path, new: Path) -> None:
    """A whole ledger: a beginning of the old events, and texts of the old ones."""
    with closing(reader(new)) as db:
        assert verify(db) == []
    *kept, last = events(new)
    assert kept == events(original)[: len(kept)]
    assert last[3] == "recovered"
    assert texts(new).items() <= texts(original).items()
    assert stat.S_IMODE(new.stat().st_mode) == 0o600
    assert seal.holds(new)


@pytest.mark.parametrize("which", ["original", "large"])
def test_of_a_ledger_that_is_whole_nothing_is_lost(which: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(which)
    found = recover(path, tmp_path / "new.db")
    check_saved(path, tmp_path / "new.db")
    assert (found.events, found.why, found.lost) == (len(events(path)), "", [])
    assert found.had == found.events
    for table in AUDITED:
        rows = f"SELECT * FROM {table} ORDER BY {', '.join(AUDITED[table])}"
        assert ledgers.read(tmp_path / "new.db", rows) == ledgers.read(path, rows)
        assert found.rows[table] == len(ledgers.read(path, rows))
    assert texts(tmp_path / "new.db") == texts(path)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_what_is_saved_of_a_damaged_file_is_what_was_written(
    large: Path, named: dict[str, int], tmp_path: Path, data: st.DataObject
) -> None:
    content = bytearray(large.read_bytes())
    at = data.draw(st.integers(0, len(content) - PAGE))
    size = data.draw(st.sampled_from([1, 100, PAGE, 20 * PAGE]))
    content[at : at + size] = random.Random(at).randbytes(len(content[at : at + size]))
    damaged, new = tmp_path / "damaged.db", tmp_path / "new.db"
    damaged.write_bytes(content)
    for path in tmp_path.glob("new.db*"):
        path.unlink()
    try:
        found = recover(damaged, new)
    except LedgerError:
        assert not new.exists()
        return
    check_saved(large, new)
    assert damaged.read_bytes() == content
    assert set(texts(large)) >= set(texts(new))
    kept = {digest for digest, seq in named.items() if seq <= found.events}
    assert set(found.lost) == kept - set(texts(new))
    assert found.had >= found.events


def test_every_page_of_the_file_can_be_lost_alone(large: Path, tmp_path: Path) -> None:
    whole, damaged, new = large.read_bytes(), tmp_path / "damaged.db", tmp_path / "new.db"
    unsaved = []
    for page in range(0, len(whole) // PAGE, 9):
        damaged.write_bytes(whole[: page * PAGE] + b"\xff" * PAGE + whole[(page + 1) * PAGE :])
        for path in tmp_path.glob("new.db*"):
            path.unlink()
        try:
            recover(damaged, new)
        except LedgerError:
            unsaved.append(page)
        else:
            check_saved(large, new)
    assert len(unsaved) <= 1  # that of the first event


def test_without_header_and_schema_everything_is_saved(large: Path, tmp_path: Path) -> None:
    content = bytearray(large.read_bytes())
    content[:PAGE] = bytes(PAGE)
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(content)
    with pytest.raises(LedgerError):
        History(damaged)
    found = recover(damaged, tmp_path / "new.db")
    assert (found.events, found.lost) == (len(events(large)), [])
    check_saved(large, tmp_path / "new.db")


def test_what_stands_in_the_log_only_is_saved_too(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "ledger.db")
    for number in range(200):
        ledger.event("run-1", "note", {"number": number}, {"text": f"text {number}" * 500})
    ledger.flush()
    for name in ("ledger.db", "ledger.db-wal"):  # as a crash leaves them
        shutil.copy(tmp_path / name, tmp_path / f"crashed-{name}")
    expected = events(tmp_path / "ledger.db")
    ledger.close()
    crashed = tmp_path / "crashed-ledger.db"
    assert crashed.stat().st_size < 50_000  # the log was not copied into it
    before = crashed.read_bytes()
    found = recover(crashed, tmp_path / "new.db")
    assert (found.events, found.lost) == (len(expected), [])
    assert events(tmp_path / "new.db")[:-1] == expected
    assert crashed.read_bytes() == before
    crashed.unlink()
    found = recover(crashed, tmp_path / "newer.db")  # it has no page that the log has not
    assert (found.events, found.lost) == (len(expected), [])
    crashed.write_bytes(before)
    log = tmp_path / "crashed-ledger.db-wal"
    log.write_bytes(log.read_bytes()[:-5000])  # its end did not get to the disk
    found = recover(crashed, tmp_path / "less.db")
    assert 0 < found.events < len(expected)
    assert events(tmp_path / "less.db")[:-1] == expected[: found.events]


def test_pages_hold_the_rows_that_sqlite_reads(large: Path, original: Path) -> None:
    for path in (large, original):
        pages = Pages(path)
        with closing(sqlite3.connect(path)) as db:
            db.text_factory = bytes
            for table in ("blobs", "events", "calls", "outcomes"):
                columns = len(db.execute(f"SELECT * FROM {table} LIMIT 0").description)
                rows = {rowid: tuple(row) for rowid, *row in db.execute(f"SELECT rowid, * FROM {table}")}
                found = [(rowid, pages.values(place)) for rowid, place in pages.rows(columns)]
                for rowid, row in rows.items():
                    stored = (None, *row[1:]) if table in ("events", "calls") else row
                    assert (rowid, stored) in found


def test_a_changed_event_ends_what_is_saved_and_a_changed_row_is_put_right(whole: Path, tmp_path: Path) -> None:
    expected = ledgers.read(whole, "SELECT value FROM outcomes ORDER BY rowid")
    with closing(sqlite3.connect(whole, isolation_level=None)) as db:
        ledgers.alter(db, "UPDATE outcomes SET value = 1 - value")
        ledgers.alter(db, "UPDATE events SET kind = 'x' WHERE seq = 100")
    found = recover(whole, tmp_path / "new.db")
    assert found.events == 99
    assert found.why.startswith("event 100 ")
    assert found.had > 99
    saved = ledgers.read(tmp_path / "new.db", "SELECT value FROM outcomes ORDER BY rowid")
    assert saved == expected[: len(saved)]
    ledger = Ledger(tmp_path / "new.db")  # it can be written again
    ledger.event("run-1", "note", {})
    ledger.close()


def test_a_text_that_was_erased_before_is_not_told_as_lost(whole: Path, tmp_path: Path) -> None:
    digest = ledgers.read(whole, "SELECT hash FROM blobs LIMIT 1")[0][0]
    ledger = Ledger(whole)
    ledger.erase([digest], "ann", "asked")
    ledger.close()
    found = recover(whole, tmp_path / "new.db")
    assert found.lost == []
    assert digest not in texts(tmp_path / "new.db")


def test_what_cannot_be_recovered_is_refused(original: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is there already"):
        recover(original, whole)
    ledger = Ledger(whole)
    with pytest.raises(LedgerError, match="in use"):
        recover(whole, tmp_path / "new.db")
    ledger.close()
    with closing(sqlite3.connect(tmp_path / "old.db")) as db:
        db.executescript(STEPS[0])
    for path in (tmp_path / "old.db", tmp_path / "missing.db", tmp_path):
        with pytest.raises(LedgerError):
            recover(path, tmp_path / "new.db")
        assert not (tmp_path / "new.db").exists()


def test_a_disk_that_is_full_leaves_no_file_in_the_way(whole: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.db"
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, most[1]))  # as a disk that is full
    try:
        with pytest.raises(LedgerError, match="cannot be written"):
            recover(whole, new)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert recover(whole, new).events > 0
