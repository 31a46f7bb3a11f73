"""A disk that is full: every opening says so in one line, and an erasure that it cut short is completed by another try.

A file may not grow beyond a limit: SQLite meets that where it would meet a full disk, in a real write to a real file.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.errors import LedgerError
from agent.ledger.connect import reader, unchecked
from agent.ledger.query import History
from agent.ledger.store import Ledger
from agent.ledger.verify import verify
from tests.ledger.ledgers import read


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "opens", [History, Ledger, lambda path: unchecked(path).__enter__(), lambda path: unchecked(path, True).__enter__()]
)
def test_a_ledger_beside_which_nothing_can_be_made_is_told_in_one_line(whole: Path, opens: Any) -> None:
    content = whole.read_bytes()
    with no_file_beyond(0), pytest.raises(LedgerError, match="free space") as refused:
        opens(whole)
    assert "\n" not in str(refused.value)
    assert "restore" not in str(refused.value)  # it is whole
    assert whole.read_bytes() == content
    with closing(reader(whole)) as db:
        assert verify(db) == []


def test_an_erasure_that_cannot_leave_the_log_is_refused_and_completed_by_the_next(whole: Path) -> None:
    content = whole.read_bytes()
    known = [(body.encode(), digest) for digest, body in read(whole, "SELECT hash, body FROM blobs")]
    place, body, digest = max((content.find(body), body, digest) for body, digest in known if content.count(body) == 1)
    ledger = Ledger(whole)
    with no_file_beyond(place):  # enough for the log, not for the page that is to go
        with pytest.raises(LedgerError, match="run the command again"):
            ledger.erase([digest], "ann", "asked")
        ledger.close()
    assert body in whole.read_bytes()
    with closing(reader(whole)) as db:
        assert verify(db) == []
    with closing(Ledger(whole)) as ledger:
        ledger.erase([], "ann", "asked")
        assert body not in b"".join(file.read_bytes() for file in whole.parent.iterdir())
    assert len(read(whole, "SELECT 1 FROM events WHERE kind = 'texts_erased'")) == 1
    with closing(reader(whole)) as db:
        assert verify(db) == []
