"""The log that a killed writer left: whole and its own, or refused; and the journal of one that died at birth."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agent.errors import LedgerError
from agent.ledger import files
from agent.ledger.connect import unfinished
from agent.ledger.query import History
from agent.ledger.store import Ledger
from agent.ledger.verify import verify
from tests.ledger.ledgers import copy, fill, read


async def killed(whole: Path, folder: Path) -> Path:
    """A ledger as `kill -9` leaves it: sealed, with some commits that are only in the log."""
    ledger = Ledger(whole)
    await fill(ledger, "run-3")
    left = copy(ledger.path, folder / "ledger.db")
    shutil.copy(whole.with_name("ledger.db.seal"), folder)
    ledger.close()
    return left


@pytest.mark.parametrize("folder", ["a%41b", "q#1?mode=rw"])
async def test_what_is_only_in_the_log_of_a_killed_run_is_read(whole: Path, tmp_path: Path, folder: str) -> None:
    left = await killed(whole, tmp_path / folder)
    before = sorted(tmp_path.iterdir())
    with closing(sqlite3.connect(left)) as db:
        assert not files.log_is_empty(left)
        assert not files.log_is_damaged(left, db)
    assert History(left).runs()[0]["id"] == "run-3"
    assert sorted(tmp_path.iterdir()) == before


async def test_a_log_is_verified_once_in_a_process_however_often_it_is_read(
    whole: Path, tmp_path: Path, verified: list[object]
) -> None:
    left = await killed(whole, tmp_path / "left")
    verified.clear()
    for file in (left, files.log_path(left)):
        os.utime(file, (1_700_000_000, 1_700_000_000))
    with closing(History(left)) as history:
        assert history.runs()[0]["id"] == "run-3"
    Ledger(left).close()
    assert len(verified) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE trials SET mean = 0.9 WHERE number = 2",
        "UPDATE head SET hash = 'ab'",
        "DELETE FROM calls WHERE id = 3",
        "INSERT OR REPLACE INTO blobs VALUES ('ab', 'cd')",
    ],
)
async def test_what_a_stranger_adds_to_it_is_refused(whole: Path, tmp_path: Path, statement: str) -> None:
    left = await killed(whole, tmp_path / "killed")
    with closing(sqlite3.connect(left, isolation_level=None)) as stranger, closing(sqlite3.connect(left)) as db:
        db.execute("SELECT 1 FROM runs").fetchone()
        stranger.execute("PRAGMA wal_autocheckpoint = 0")
        stranger.execute(statement)
        with pytest.raises(LedgerError, match="the ledger was altered"):
            History(left)


async def test_the_end_of_the_commit_before_the_last_is_not_taken_for_a_torn_one(whole: Path, tmp_path: Path) -> None:
    """Its mark is gone, so that one commit alone seems to lie behind the bad place."""
    left = await killed(whole, tmp_path / "killed")
    lines = left.with_name("ledger.db-wal")
    content = bytearray(lines.read_bytes())
    size = files.FRAME + int.from_bytes(content[8:12], "big")
    starts = range(files.HEADER, len(content) - size + 1, size)
    ends = [start for start in starts if int.from_bytes(content[start + 4 : start + 8], "big")]
    at = ends[-2]
    content[at : at + 24] = bytes(24)
    lines.write_bytes(content)
    with pytest.raises(LedgerError, match="damaged"):
        History(left)


@pytest.mark.parametrize("seed", range(6))
async def test_commits_are_never_lost_to_damage_without_a_word(whole: Path, tmp_path: Path, seed: int) -> None:
    """SQLite takes a bad place for the end. Only the very last commit could be one that a power cut tore."""
    left = await killed(whole, tmp_path / "killed")
    lines, rng = left.with_name("ledger.db-wal"), random.Random(seed)
    content = bytearray(lines.read_bytes())
    at = rng.randrange(len(content) - 4096)
    content[at : at + 4096] = rng.randbytes(4096)
    lines.write_bytes(content)
    before = left.read_bytes(), lines.read_bytes()
    (written,) = read(whole, "SELECT MAX(seq) FROM events")[0]
    try:
        (seen,) = History(left).select("SELECT MAX(seq) AS seq FROM events")
    except LedgerError:
        with pytest.raises(LedgerError):
            Ledger(left)
        assert (left.read_bytes(), lines.read_bytes()) == before
    else:
        assert at > len(content) - 40_000
        assert seen["seq"] > written - 40


def test_a_ledger_that_died_while_it_was_made_can_be_opened(tmp_path: Path) -> None:
    """The kill came before there was a log: the file next to it is a rollback journal."""
    made, left = tmp_path / "made.db", tmp_path / "left.db"
    with closing(sqlite3.connect(made, isolation_level=None)) as db:
        db.execute("CREATE TABLE first (x)")
        db.execute("PRAGMA cache_size = 1")
        db.execute("BEGIN IMMEDIATE")
        db.execute("DROP TABLE first")
        db.execute("CREATE TABLE runs (x)")
        db.executemany("INSERT INTO runs VALUES (?)", [("x" * 900,)] * 100)
        shutil.copy(made, left)
        shutil.copy(made.with_name("made.db-journal"), left.with_name("left.db-journal"))
    assert unfinished(left)
    with pytest.raises(LedgerError, match="half made"):
        History(left)
    with pytest.raises(LedgerError, match="no ledger"):  # rolled back to the other program's table
        Ledger(left)
    assert not unfinished(left)
    left.unlink()
    left.touch()
    left.with_name("left.db-journal").touch()
    with closing(Ledger(left)) as ledger:
        assert verify(ledger.db) == []
