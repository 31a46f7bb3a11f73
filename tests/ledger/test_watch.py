"""An open ledger whose file, lock or log is taken away: nothing is promised any more, and nothing foreign is sealed."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from agent.errors import LedgerError
from agent.ledger import files, writer
from agent.ledger.connect import reader
from agent.ledger.files import Lock, is_held
from agent.ledger.store import Ledger
from agent.ledger.verify import verify
from tests.ledger.ledgers import read
from tests.ledger.test_writer import buy, reserve
from tests.toys import open_ledger

Change = Callable[[Path], None]


def lose(path: Path) -> None:
    path.unlink()


def move_over(path: Path) -> None:
    path.with_name("older.db").rename(path)


def copy_over(path: Path) -> None:
    """Into the same file, as `cp` does."""
    shutil.copyfile(path.with_name("older.db"), path)


def move_away(path: Path) -> None:
    path.rename(path.with_name("elsewhere.db"))


def lose_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("gone"))


def lose_lock(path: Path) -> None:
    path.with_name("ledger.db.lock").unlink()


def new_lock(path: Path) -> None:
    lose_lock(path)
    path.with_name("ledger.db.lock").touch()


def lose_log(path: Path) -> None:
    path.with_name("ledger.db-wal").unlink()


CHANGES: list[tuple[Change, str]] = [
    (lose, "ledger.db: was removed"),
    (move_away, "ledger.db: was removed"),
    (lose_folder, "ledger.db: was removed"),
    (move_over, "ledger.db: was replaced"),
    (copy_over, "ledger.db: was written to by another program"),
    (lose_lock, "ledger.db.lock: was removed"),
    (new_lock, "ledger.db.lock: was replaced"),
    (lose_log, "ledger.db-wal: was removed"),
]
changes = pytest.mark.parametrize(("change", "what"), CHANGES, ids=[change.__name__ for change, _ in CHANGES])


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """In use for the second time; next to it is `older.db`, a copy of the first."""
    path = tmp_path / "runs" / "ledger.db"
    with closing(open_ledger(path)) as first:
        asyncio.run(buy(first, 1))
    shutil.copyfile(path, path.with_name("older.db"))
    found = Ledger(path)
    yield found
    found._watch.close()


@changes
async def test_no_attempt_is_let_out_and_none_counts_as_settled(ledger: Ledger, change: Change, what: str) -> None:
    flying = await reserve(ledger, 2)
    change(ledger.path)
    for late in (lambda: reserve(ledger, 3), lambda: buy(ledger, 4), ledger.commit):
        with pytest.raises(LedgerError, match=re.escape(what)) as caught:
            await asyncio.wait_for(late(), 5)
        assert "\n" not in str(caught.value)
        assert "may have been paid for" in str(caught.value)
    with pytest.raises(LedgerError, match=re.escape(what)):
        await ledger.fail("run-1", flying, "error", "not_sent", 0.0, 0.0)
    ledger.close()  # who was told is not told again


@changes
def test_who_closes_it_is_told(ledger: Ledger, change: Change, what: str) -> None:
    ledger.event("", "note", {})
    ledger.flush()
    change(ledger.path)
    with pytest.raises(LedgerError, match=re.escape(what)):
        ledger.close()
    assert ledger._lock.is_mine() is False
    ledger.close()  # again is no harm


@pytest.mark.parametrize("change", [lose, move_over, copy_over])
def test_what_lies_there_now_is_neither_written_to_nor_sealed(ledger: Ledger, change: Change) -> None:
    ledger.event("", "note", {}, {"text": "word " * 10_000})
    ledger.flush()
    change(ledger.path)
    before = ledger.path.read_bytes() if ledger.path.exists() else None
    log = ledger.path.with_name("ledger.db-wal").read_bytes()
    with pytest.raises(LedgerError):
        ledger.close()
    assert (ledger.path.read_bytes() if ledger.path.exists() else None) == before
    assert ledger.path.with_name("ledger.db-wal").read_bytes() == log, "what was recorded stays where it is"


async def test_the_log_is_not_copied_into_a_file_that_is_not_the_open_one(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replaced in the moment between the commit and the copy."""
    monkeypatch.setattr(ledger._writer, "_log_limit", 1)
    plain = writer.Writer.copy_log

    def swapped(self: writer.Writer) -> bool:
        ledger.path.with_name("older.db").write_bytes(b"foreign")
        ledger.path.with_name("older.db").rename(ledger.path)
        return plain(self)

    monkeypatch.setattr(writer.Writer, "copy_log", swapped)
    with pytest.raises(LedgerError, match="was replaced"):
        await reserve(ledger, 2)
    assert ledger.path.read_bytes() == b"foreign"
    assert not files.seal_holds(ledger.path)
    ledger.close()
    assert not files.seal_holds(ledger.path)


def test_a_second_writer_that_a_lost_lock_let_in_stops_the_first(ledger: Ledger) -> None:
    lose_lock(ledger.path)
    with closing(Ledger(ledger.path)) as second:
        ledger.event("", "note", {"of": "first"})
        with pytest.raises(LedgerError, match=r"ledger\.db\.lock: was replaced"):
            ledger.flush()
        ledger.close()
        assert is_held(ledger.path), "the second's lock is its own"
        second.event("", "note", {"of": "second"})
        second.flush()
    assert [body for (body,) in read(ledger.path, "SELECT body FROM events WHERE kind = 'note'")] == ['{"of":"second"}']
    with closing(reader(ledger.path)) as db:
        assert verify(db) == []


def test_a_lock_that_was_deleted_while_it_was_taken_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opened the file before it was deleted, and locks it afterwards, keeps nobody out."""
    path, real = tmp_path / "ledger.db", os.open
    taken: list[int] = []

    def deleted_at_once(name: Path, flags: int, *more: int) -> int:
        file = real(name, flags, *more)
        if not taken:
            Path(name).unlink()
        taken.append(file)
        return file

    monkeypatch.setattr(os, "open", deleted_at_once)
    lock = Lock(path)
    assert lock.take()
    monkeypatch.undo()
    assert is_held(path)
    assert not Lock(path).take()
    lock.release()


def test_a_ledger_in_place_is_left_in_peace(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after its log was copied, which writes to the file, and while others read it."""
    monkeypatch.setattr(ledger._writer, "_log_limit", 1)
    monkeypatch.setattr(writer, "LOG_BYTES", 50_000)
    for number in range(20):
        ledger.event("", "note", {"n": number}, {"text": f"{number}" * 10_000})
        ledger.flush()
        read(ledger.path, "SELECT COUNT(*) FROM events")
        os.utime(ledger.path.with_name("ledger.db.lock"))
    ledger.close()
    assert files.seal_holds(ledger.path)
