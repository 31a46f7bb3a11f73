"""No byte of a ledger changes unnoticed, a killed writer loses nothing that was settled, and no check costs a write."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from agent.errors import LedgerError
from agent.ledger import files
from agent.ledger.query import History
from agent.ledger.store import Ledger
from agent.ledger.verify import verify
from tests.ledger.ledgers import alter, fill, read, reseal

ROOT = Path(__file__).resolve().parents[2]
OPENERS: list[Callable[[Path], object]] = [History, Ledger]
BOTH = pytest.mark.parametrize("opens", OPENERS)


def stranger(path: Path, *statements: str) -> None:
    """Changes the ledger with nothing but sqlite3."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        alter(db, *statements)


# -- the seal itself ---------------------------------------------------------------------------------------------------


def test_a_seal_holds_until_a_byte_changes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10_000)
    assert not files.seal_holds(path), "there is none yet"
    reseal(path)
    assert files.seal_holds(path)
    path.write_bytes(b"x" * 9_999 + b"y")
    assert not files.seal_holds(path)
    reseal(path)
    assert files.seal_holds(path)
    files.break_seal(path)
    assert not files.seal_holds(path)
    files.break_seal(path)  # again is no harm


@pytest.mark.parametrize("content", [b"", b"0" * 64, b"\xff\xfe", b"{}"])
def test_a_seal_that_is_no_seal_does_not_hold(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(b"x")
    files.seal_path(tmp_path / "file").write_bytes(content)
    assert not files.seal_holds(tmp_path / "file")


def test_a_closed_ledger_is_sealed_and_reading_it_leaves_it_so(whole: Path) -> None:
    assert files.seal_holds(whole)
    before = whole.read_bytes()
    assert len(History(whole).runs()) == 2
    assert files.seal_holds(whole)
    assert whole.read_bytes() == before
    Ledger(whole).close()
    assert files.seal_holds(whole)


# -- damage and tampering ----------------------------------------------------------------------------------------------


def overwrite(path: Path, offset: int, noise: bytes) -> bytes:
    content = bytearray(path.read_bytes())
    content[offset : offset + len(noise)] = noise
    path.write_bytes(content)
    return bytes(content)


@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "without its seal"])
@pytest.mark.parametrize("seed", range(6))
def test_a_ledger_with_4_kb_overwritten_is_refused_and_left_as_it_is(whole: Path, seed: int, sealed: bool) -> None:
    rng = random.Random(seed)
    after = overwrite(whole, rng.randrange(whole.stat().st_size - 4096), rng.randbytes(4096))
    if not sealed:
        files.break_seal(whole)
    for opens in OPENERS:
        with pytest.raises(LedgerError) as caught:
            opens(whole)
        assert str(whole) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert whole.read_bytes() == after


def test_a_ledger_without_its_seal_is_verified_once_in_a_process(whole: Path, verified: list[object]) -> None:
    files.break_seal(whole)
    os.utime(whole, (1_700_000_000, 1_700_000_000))
    History(whole).close()
    History(whole).close()
    assert len(verified) == 1
    History(whole, by_chain=True).close()
    assert len(verified) == 2
    Ledger(whole).close()
    assert len(verified) == 2, "a writer believes it, too"
    stranger(whole, "UPDATE runs SET status = 'failed' WHERE id = 'run-1'")
    for opens in OPENERS:
        with pytest.raises(LedgerError, match="runs"):
            opens(whole)


def test_a_change_of_a_ledger_that_was_just_written_is_seen_at_the_same_time_of_change(whole: Path) -> None:
    files.break_seal(whole)
    whole.touch()
    then = whole.stat().st_mtime_ns
    History(whole).close()
    overwrite(whole, 8192, b"x" * 4096)
    os.utime(whole, ns=(then, then))
    for opens in OPENERS:
        with pytest.raises(LedgerError):
            opens(whole)


@BOTH
def test_what_a_stranger_left_in_the_log_is_refused_too(whole: Path, opens: Callable[[Path], object]) -> None:
    """The seal fits the main file, which a change does not reach while somebody reads."""
    with closing(sqlite3.connect(whole)) as reading:
        reading.execute("SELECT * FROM runs").fetchone()
        stranger(whole, "UPDATE runs SET status = 'failed' WHERE id = 'run-1'")
        assert files.seal_holds(whole)
        with pytest.raises(LedgerError, match="runs"):
            opens(whole)


@BOTH
@pytest.mark.parametrize("statement", ["VACUUM", "CREATE TABLE notes (x)"])
def test_a_change_that_alters_no_answer_is_accepted(
    whole: Path, opens: Callable[[Path], object], statement: str
) -> None:
    with closing(sqlite3.connect(whole)) as db:
        db.execute(statement)
        db.commit()
    assert not files.seal_holds(whole)
    found = opens(whole)
    if isinstance(found, Ledger):
        found.close()
        assert files.seal_holds(whole), "what was checked is sealed"


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE UNIQUE INDEX mine ON calls(run_id) WHERE state = 'none'",
        "CREATE TRIGGER mine AFTER UPDATE ON calls BEGIN SELECT RAISE(ABORT, 'no'); END",
        "DROP TRIGGER events_in_sequence",
    ],
)
def test_a_schema_that_would_refuse_a_write_is_refused_before_anything_is_written(whole: Path, statement: str) -> None:
    """Whatever the seal says."""
    with closing(sqlite3.connect(whole)) as db:
        db.execute(statement)
        db.commit()
    reseal(whole)
    before = whole.read_bytes()
    with pytest.raises(LedgerError, match=r"the schema was changed.*nothing was changed; .*restore a copy"):
        Ledger(whole)
    assert whole.read_bytes() == before


def test_the_seal_of_another_file_does_not_cover_a_change(whole: Path, tmp_path: Path) -> None:
    """Who can write the file can write a seal: it is for speed. The long check sees what the seal hides."""
    stranger(whole, "UPDATE runs SET status = 'failed' WHERE id = 'run-1'")
    reseal(whole)
    assert History(whole).run("run-1")["status"] == "failed"
    with closing(sqlite3.connect(whole)) as db:
        assert [finding.seq for finding in verify(db)] != []
    with pytest.raises(LedgerError, match=r"a row of runs is not what event \d+ says"):
        History(whole, by_chain=True)
    with closing(Ledger(whole)), pytest.raises(LedgerError, match="a row of runs"):  # while another writes to it, too
        History(whole, by_chain=True)


# -- a writer that lives, and one that was killed ----------------------------------------------------------------------


async def test_a_reader_sees_what_is_committed_while_a_writer_writes(whole: Path) -> None:
    ledger = Ledger(whole)
    history = History(whole)
    assert [run["id"] for run in history.runs()] == ["run-2", "run-1"]
    await fill(ledger, "run-3")
    assert {run["id"] for run in history.runs()} == {"run-1", "run-2", "run-3"}
    assert len(History(whole).trials("run-3")) == 3
    ledger.close()
    assert len(history.trials("run-3")) == 3, "a reader outlives the writer"


def kill(path: Path, lines: int) -> tuple[set[str], set[str]]:
    """Lets a victim write until it has said `lines` lines, and kills it. Returns the keys reserved and settled."""
    command = [sys.executable, "-m", "tests.ledger.victim", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as victim:
        assert victim.stdout is not None
        said = [victim.stdout.readline() for _ in range(lines)]
        victim.send_signal(signal.SIGKILL)
        said += [line for line in victim.stdout if line.endswith("\n")]
    told = [line.split() for line in said]
    return {key for word, key in told if word == "reserved"}, {key for word, key in told if word == "settled"}


@pytest.mark.parametrize("lines", [1, 401])
def test_a_killed_writer_has_lost_nothing_that_it_knew_to_be_safe(tmp_path: Path, lines: int) -> None:
    path = tmp_path / "ledger.db"
    reserved, settled = kill(path, lines)
    assert len(reserved) + len(settled) >= lines
    with closing(Ledger(path)) as ledger:
        calls = dict(ledger.db.execute("SELECT call_key, state FROM calls").fetchall())
        assert reserved <= calls.keys()
        assert {key for key in settled if calls[key] != "ok"} == set()
        assert set(calls.values()) <= {"ok", "unknown"}
        assert sum(state == "unknown" for state in calls.values()) <= 4, "at most those in flight"
        charged = ledger.db.execute("SELECT DISTINCT cost_usd, reserved_usd FROM calls WHERE state = 'unknown'")
        assert set(charged) <= {(0.5, 0.5)}
        assert ledger.db.execute("SELECT status FROM runs").fetchall() == [("killed",)]
        assert verify(ledger.db) == []
        for key in settled:
            found = ledger.settled(key)
            assert found is not None
            assert found.text == key
    assert History(path).run("run-1")["status"] == "killed"


async def test_opening_twice_after_a_kill_changes_what_was_open_once(tmp_path: Path) -> None:
    kill(tmp_path / "ledger.db", 60)
    assert History(tmp_path / "ledger.db").run("run-1")["status"] == "killed", "readable before it is repaired"
    Ledger(tmp_path / "ledger.db").close()
    events = "SELECT kind FROM events WHERE kind LIKE '%found_open'"
    found = read(tmp_path / "ledger.db", events)
    assert ("run_found_open",) in found
    Ledger(tmp_path / "ledger.db").close()
    assert read(tmp_path / "ledger.db", events) == found
