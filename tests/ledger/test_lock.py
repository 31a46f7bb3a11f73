"""One writer a ledger: the second is refused with the first one's name, and a dead one holds nothing."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from agent.errors import LedgerError
from agent.ledger.files import Lock, is_held
from agent.ledger.provenance import boot_id
from agent.ledger.query import History
from agent.ledger.store import Ledger
from tests.ledger.ledgers import read

HOLDER = """
import sys
from pathlib import Path
from agent.ledger.store import Ledger
ledger = Ledger(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
ledger.close()
"""


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the ledger open, until its input ends."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def test_a_lock_is_taken_once_and_free_after_release(path: Path) -> None:
    one, two = Lock(path), Lock(path)
    assert not is_held(path)
    assert one.take()
    assert is_held(path)
    assert not two.take()
    one.release()
    assert not is_held(path)
    assert two.take()
    two.release()
    two.release()  # again is no harm


def test_a_second_writer_is_refused_with_the_name_of_the_first(path: Path) -> None:
    with holder(path) as process:
        with pytest.raises(LedgerError) as caught:
            Ledger(path)
        assert f"{path}: in use by process {process.pid} on {socket.gethostname()} since 20" in str(caught.value)
        assert "\n" not in str(caught.value)
        History(path).runs()  # whoever only reads is let in
    with closing(Ledger(path)):
        (body,) = read(path, "SELECT body FROM events WHERE kind = 'ledger_opened' ORDER BY seq DESC")[0]
        assert json.loads(body) == {"pid": os.getpid(), "host": socket.gethostname(), "boot_id": boot_id()}


def test_a_refused_file_is_not_left_locked(path: Path) -> None:
    path.write_text("no ledger, but a long enough text\n" * 100)
    for _ in range(2):
        with pytest.raises(LedgerError):
            Ledger(path)
        assert not is_held(path)


def test_a_child_does_not_keep_the_lock_of_its_parent(path: Path) -> None:
    lock = Lock(path)
    assert lock.take()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    lock.release()
    assert lock.take()
    lock.release()
    assert child.poll() is None
    child.communicate(b"\n")


def test_a_writer_is_seen_from_where_nothing_can_be_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, real = Lock(path), os.open
    assert lock.take()

    def mounted_read_only(name: Path, flags: int, *more: int, **named: int | None) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, "Read-only file system")
        return real(name, flags, *more, **named)

    monkeypatch.setattr(os, "open", mounted_read_only)
    assert is_held(path)
    lock.release()
    assert not is_held(path)


def test_two_that_look_at_the_same_time_do_not_take_each_other_for_a_writer(path: Path) -> None:
    """A reader that believed so would not check what it reads."""
    lock = Lock(path)
    assert lock.take()
    lock.release()
    with path.with_name("ledger.db.lock").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert not is_held(path)


def test_a_writer_is_not_refused_because_somebody_looks_for_an_instant(path: Path) -> None:
    lock = Lock(path)
    assert lock.take()
    lock.release()
    file = path.with_name("ledger.db.lock").open("rb")
    fcntl.flock(file, fcntl.LOCK_SH)
    threading.Timer(0.03, file.close).start()
    assert lock.take()
    lock.release()


def test_a_file_system_that_cannot_lock_is_named_as_the_reason(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(
        LedgerError, match=r"ledger\.db\.lock: this file system cannot lock .*put the ledger on another"
    ):
        Ledger(path)
