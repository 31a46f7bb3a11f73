"""A file of another version, and what is no ledger, is refused in one line and left alone."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from agent.errors import LedgerError
from agent.ledger.chain import VERSION
from agent.ledger.query import History
from agent.ledger.store import Ledger
from tests.toys import open_ledger

BOTH = pytest.mark.parametrize("opens", [History, Ledger])


def test_a_ledger_is_opened_without_sqlite_utils(whole: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from agent.ledger.store import Ledger; Ledger(Path(sys.argv[1])).close()"
    )
    code += "; from agent.ledger.query import History; History(Path(sys.argv[1]), by_chain=True)"
    asked = [sys.executable, "-c", f"{code}; assert 'sqlite_utils' not in sys.modules", str(whole)]
    subprocess.run(asked, check=True, cwd=Path(__file__).parents[2], timeout=60)


def refused(opens: Callable[[Path], object], path: Path, why: str | None = None) -> None:
    """The opener refuses in one line with advice, and the file stays as it was, byte by byte."""
    content = path.read_bytes()
    with pytest.raises(LedgerError, match=why) as caught:
        opens(path)
    assert str(path) in str(caught.value)
    assert any(advice in str(caught.value) for advice in ("--db", "optimize audit"))
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content


@BOTH
@pytest.mark.parametrize("version", [1, VERSION - 1, VERSION + 1, 99])
def test_a_ledger_of_another_version_is_refused_without_a_write(
    whole: Path, opens: Callable[[Path], object], version: int
) -> None:
    with closing(sqlite3.connect(whole)) as db:
        db.execute(f"PRAGMA user_version = {version}")
    refused(opens, whole, rf"written by another version of Promptassay \(schema {version}, this one has {VERSION}\)")


def songs(version: int, journal: str) -> Callable[[Path], object]:
    """Writes the database of another program."""
    sql = f"PRAGMA journal_mode = {journal}; CREATE TABLE songs (title TEXT); INSERT INTO songs VALUES ('x');"

    def write(path: Path) -> None:
        with closing(sqlite3.connect(path)) as db:
            db.executescript(f"{sql} PRAGMA user_version = {version};")

    return write


NO_LEDGERS: dict[str, bytes | Callable[[Path], object]] = {
    "text": b"this is no database, only a long enough text\n" * 50,
    "short": b"short",
    "picture": b"\x89PNG\r\n" + b"\0" * 4096,
    "header": b"SQLite format 3\0" + b"\xff" * 4096,
} | {
    f"songs {version} {journal}": songs(version, journal)
    for version in (0, 1, VERSION, 7)
    for journal in ("DELETE", "WAL")
}


@BOTH
@pytest.mark.parametrize("made", NO_LEDGERS.values(), ids=NO_LEDGERS)
def test_what_is_no_ledger_is_refused_without_a_write(
    tmp_path: Path, opens: Callable[[Path], object], made: bytes | Callable[[Path], object]
) -> None:
    file = tmp_path / "notes.txt"
    file.write_bytes(made) if isinstance(made, bytes) else made(file)
    refused(opens, file)


@BOTH
@pytest.mark.parametrize("beside", ["ledger.db.seal", "ledger.db-wal"])
def test_a_ledger_that_was_emptied_is_refused_without_a_write(
    tmp_path: Path, opens: Callable[[Path], object], beside: str
) -> None:
    """SQLite takes an empty file for a new one, and throws its log away."""
    (tmp_path / beside).write_bytes(b"1234 5678")
    (tmp_path / "ledger.db").touch()
    refused(opens, tmp_path / "ledger.db")
    assert (tmp_path / beside).read_bytes() == b"1234 5678"


@BOTH
def test_a_ledger_that_is_gone_but_for_its_log_is_refused_without_a_write(
    whole: Path, opens: Callable[[Path], object]
) -> None:
    """SQLite would throw the log away, and with it all that was paid for since the ledger was last closed."""
    log = whole.with_name("ledger.db-wal")
    log.write_bytes(b"the log of a run that was killed")
    whole.unlink()
    with pytest.raises(LedgerError, match=r"the ledger is gone.*restore a copy"):
        opens(whole)
    assert not whole.exists()
    assert log.read_bytes() == b"the log of a run that was killed"
    log.unlink()
    Ledger(whole).close()  # the seal alone is in nobody's way


def test_an_empty_file_becomes_a_ledger(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").touch()
    open_ledger(tmp_path / "ledger.db").close()
    assert len(History(tmp_path / "ledger.db").runs()) == 1
