"""Many writes share a commit, each waits for its own, and after the first refusal of the disk nothing is written."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent.errors import LedgerError, Transient
from agent.ledger import files, writer
from agent.ledger.connect import reader
from agent.ledger.store import Ledger, Reservation
from agent.ledger.verify import verify
from agent.types import Completion, Usage
from tests.ledger.ledgers import Disk, read
from tests.toys import ask, open_ledger, until

REPLY = Completion("billing", "stop", Usage(7, 5, 3), "m-1")


@pytest.fixture
def ledger(tmp_path: Path, disk: type[Disk]) -> Iterator[Ledger]:
    found = open_ledger(tmp_path / "ledger.db")
    found.flush()
    disk.commits = 0
    yield found
    disk.full = False
    found.close()


async def reserve(ledger: Ledger, number: int = 0) -> int:
    return await ledger.reserve(Reservation("run-1", "model", "m", f"k{number}", "c", 1, ask(f"row {number}"), 0.5, 40))


async def buy(ledger: Ledger, number: int = 0) -> None:
    await ledger.settle("run-1", await reserve(ledger, number), REPLY, 0.25, 0.1)


def calls(path: Path, state: str = "ok") -> int:
    return int(read(path, "SELECT COUNT(*) FROM calls WHERE state = ?", state)[0][0])


# -- groups ------------------------------------------------------------------------------------------------------------


async def test_writes_that_come_at_once_share_a_commit(ledger: Ledger) -> None:
    await asyncio.gather(*(reserve(ledger, number) for number in range(200)))
    assert calls(ledger.path, "reserved") == 200
    assert 1 <= Disk.commits <= 3


async def test_what_comes_while_a_commit_is_on_its_way_shares_the_next_one(ledger: Ledger) -> None:
    await asyncio.gather(*(buy(ledger, number) for number in range(100)))
    assert calls(ledger.path) == 100
    assert Disk.commits <= 20, "200 writes, each of them waited for"


async def test_notes_that_nobody_waits_for_need_no_commit_of_their_own(ledger: Ledger) -> None:
    for number in range(50):
        ledger.event("run-1", "note", {"n": number})
        ledger.sent(number)
    await reserve(ledger)
    assert Disk.commits == 1


def test_outside_of_a_loop_flush_writes(ledger: Ledger) -> None:
    ledger.event("run-1", "note", {"n": 1})
    assert read(ledger.path, "SELECT COUNT(*) FROM events WHERE kind = 'note'") == [(0,)]
    ledger.flush()
    assert read(ledger.path, "SELECT COUNT(*) FROM events WHERE kind = 'note'") == [(1,)]


def test_a_loop_that_ends_while_a_commit_is_on_its_way_holds_nobody_up(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, began = Disk.execute, threading.Event()

    def slow(self: Disk, sql: str, *values: Any) -> sqlite3.Cursor:
        if sql == "COMMIT":
            began.set()
            time.sleep(0.1)
        return plain(self, sql, *values)

    async def leave() -> None:
        task = asyncio.ensure_future(reserve(ledger))
        await until(began.is_set)
        task.cancel()

    async def next_loop() -> None:
        await asyncio.wait_for(reserve(ledger, 1), 5)

    monkeypatch.setattr(Disk, "execute", slow)
    asyncio.run(leave())
    asyncio.run(next_loop())
    assert calls(ledger.path, "reserved") == 2


def test_a_loop_that_ends_before_its_commit_began_holds_nobody_up(ledger: Ledger) -> None:
    async def note() -> None:
        ledger.event("run-1", "note", {})

    async def next_loop() -> None:
        await asyncio.wait_for(ledger.commit(), 5)

    asyncio.run(note())
    asyncio.run(next_loop())
    assert read(ledger.path, "SELECT COUNT(*) FROM events WHERE kind = 'note'") == [(1,)]


# -- the log -----------------------------------------------------------------------------------------------------------


async def test_a_long_log_is_copied_and_the_seal_fits_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "LOG_BYTES", 200_000)
    ledger = open_ledger(tmp_path / "ledger.db")
    sizes = []
    for number in range(40):
        ledger.event("run-1", "note", {"n": number}, {"text": f"{number}" * 10_000})
        await ledger.commit()
        sizes.append((tmp_path / "ledger.db-wal").stat().st_size)
    assert max(sizes) < 400_000, "the log does not grow without end"
    assert min(sizes) == 0
    assert files.seal_holds(ledger.path), "the main file is only touched around the seal"
    ledger.close()
    assert files.seal_holds(ledger.path)


async def test_a_reader_that_holds_on_to_the_log_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "LOG_BYTES", 100_000)
    ledger = open_ledger(tmp_path / "ledger.db")
    await ledger.commit()
    with closing(reader(ledger.path)) as db:
        db.execute("BEGIN")
        db.execute("SELECT * FROM events").fetchone()
        for number in range(30):
            ledger.event("run-1", "note", {"n": number}, {"text": f"{number}" * 10_000})
            await asyncio.wait_for(ledger.commit(), 10)
        assert db.execute("SELECT COUNT(*) FROM events WHERE kind = 'note'").fetchone() == (0,), "its own moment"
        assert files.seal_holds(ledger.path)
    ledger.close()
    with closing(reader(ledger.path)) as db:
        assert verify(db) == []


# -- a disk that refuses -----------------------------------------------------------------------------------------------


async def outcomes(*jobs: Any) -> list[Any]:
    return await asyncio.wait_for(asyncio.gather(*jobs, return_exceptions=True), 10)


@pytest.mark.parametrize("sql", ["INSERT", "UPDATE", "COMMIT"])
async def test_everyone_who_waits_hears_of_a_refusal_and_nothing_of_their_group_is_written(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, sql: str
) -> None:
    call = await reserve(ledger, 99)
    plain = Disk.execute

    def refuse(self: Disk, statement: str, *values: Any) -> sqlite3.Cursor:
        if statement.startswith(sql):
            raise sqlite3.OperationalError("database or disk is full")
        return plain(self, statement, *values)

    monkeypatch.setattr(Disk, "execute", refuse)
    results = await outcomes(
        *(reserve(ledger, number) for number in range(5)), ledger.settle("run-1", call, REPLY, 0.25, 0.1)
    )
    monkeypatch.setattr(Disk, "execute", plain)
    assert all(isinstance(result, LedgerError) for result in results)
    assert all("ledger.db" in str(e) and "disk is full" in str(e) and "\n" not in str(e) for e in results)
    assert read(ledger.path, "SELECT state FROM calls") == [("reserved",)]


async def test_after_a_refusal_nothing_is_written_although_the_disk_has_room_again(ledger: Ledger) -> None:
    await buy(ledger)
    Disk.full = True
    with pytest.raises(LedgerError):
        await reserve(ledger, 1)
    Disk.full = False
    before = read(ledger.path, "SELECT * FROM events")
    for late in (
        lambda: buy(ledger, 2),
        lambda: ledger.settle("run-1", 1, REPLY, 0.0, 0.0),
        lambda: ledger.fail("run-1", 1, "error", Transient("x"), 0.0, 0.0),
        lambda: ledger.commit(),
    ):
        with pytest.raises(LedgerError, match="disk is full"):
            await asyncio.wait_for(late(), 5)
    for now in (
        lambda: ledger.event("run-1", "note", {}),
        lambda: ledger.end_run("run-1", "failed", 0.0),
        lambda: ledger.flush(),
    ):
        with pytest.raises(LedgerError, match="disk is full"):
            now()
    ledger.close()
    assert read(ledger.path, "SELECT * FROM events") == before
    assert calls(ledger.path) == 1


async def test_after_a_refusal_the_file_is_not_sealed_and_opens_again_whole(ledger: Ledger) -> None:
    await buy(ledger)
    await reserve(ledger, 1)
    Disk.full = True
    with pytest.raises(LedgerError):
        await reserve(ledger, 2)
    Disk.full = False
    ledger.close()
    assert not files.seal_holds(ledger.path)
    with closing(Ledger(ledger.path)) as again:
        assert again.settled("k0") == REPLY
        assert read(ledger.path, "SELECT state, cost_usd FROM calls ORDER BY id") == [("ok", 0.25), ("unknown", 0.5)]
        assert verify(again.db) == []
    assert files.seal_holds(ledger.path)


@pytest.mark.parametrize("value", [2**63, object()], ids=["too large", "no value at all"])
async def test_a_value_that_sqlite_cannot_hold_is_told_to_whoever_waits(ledger: Ledger, value: Any) -> None:
    waiting = asyncio.ensure_future(reserve(ledger))
    await asyncio.sleep(0)
    ledger._writer.put(writer.Entry([("INSERT INTO head VALUES (1, ?, '')", (value,))], (0, "")))
    with pytest.raises(LedgerError):
        await asyncio.wait_for(waiting, 5)
    with pytest.raises(LedgerError):
        await asyncio.wait_for(ledger.commit(), 5)


async def test_a_closed_ledger_refuses_instead_of_waiting_for_ever(ledger: Ledger) -> None:
    ledger.close()
    with pytest.raises(LedgerError):
        await asyncio.wait_for(reserve(ledger), 5)
