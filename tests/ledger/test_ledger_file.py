"""The file: of its owner only, durable, under any name, and with nothing in it that SQLite or JSON cannot hold."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.errors import InputError, LedgerError
from agent.ledger.chain import VERSION, sha256
from agent.ledger.connect import reader, unchecked
from agent.ledger.query import History
from agent.ledger.store import Ledger
from agent.ledger.verify import verify
from tests.ledger.ledgers import copy, fill, make, read
from tests.toys import open_ledger


def modes(folder: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


def test_only_the_owner_can_read_the_files(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = tmp_path / "new" / "folder" / "ledger.db"
        ledger = open_ledger(path)
        asyncio.run(fill(ledger, "run-2"))
        names = {"ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db.lock"}
        assert modes(path.parent) == dict.fromkeys(names, 0o600)
        ledger.close()
        History(path).runs()
        assert modes(path.parent).keys() >= {"ledger.db", "ledger.db.seal", "ledger.db.lock"}
        assert set(modes(path.parent).values()) == {0o600}
    finally:
        os.umask(before)


def test_opening_again_keeps_everything_and_adds_one_event(whole: Path) -> None:
    events, head = read(whole, "SELECT * FROM events"), read(whole, "SELECT hash FROM head")[0][0]
    with closing(Ledger(whole)) as again:
        assert read(whole, "PRAGMA user_version") == [(VERSION,)]
        assert again.head() != head
    after = read(whole, "SELECT * FROM events")
    assert after[:-1] == events
    assert after[-1][3] == "ledger_opened"
    assert after[-1][5] == head
    assert sum(kind == "ledger_opened" for _, _, _, kind, *_ in after) == 2


def test_closing_again_is_no_harm_even_when_another_has_it_open(whole: Path) -> None:
    first = Ledger(whole)
    first.close()
    with closing(open_ledger(whole, "run-3")) as second:
        first.close()
        with pytest.raises(LedgerError, match="in use"):
            Ledger(whole)
        second.event("run-3", "note", {})
        second.flush()
    assert History(whole).run("run-3")["id"] == "run-3"


def test_a_folder_and_a_path_through_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for bad in (tmp_path, tmp_path / "file" / "ledger.db"):
        with pytest.raises((LedgerError, InputError)) as caught:
            Ledger(bad)
        assert "--db" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_where_nothing_can_be_written_a_ledger_is_read_and_nothing_made_beside_it(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = modes(whole.parent)
    monkeypatch.setattr(os, "access", lambda place, mode: not mode & os.W_OK)  # as on a read-only file system
    history = History(whole)
    assert len(history.runs()) == 2
    with unchecked(whole) as db:
        assert verify(db) == []
        assert modes(whole.parent) == before
    history.close()


async def test_a_log_that_cannot_be_read_where_it_lies_is_no_damage(whole: Path, tmp_path: Path) -> None:
    ledger = Ledger(whole)
    await fill(ledger, "run-3")
    left = copy(whole, tmp_path / "killed" / "ledger.db")
    ledger.close()
    index = left.with_name("ledger.db-shm")
    index.unlink()
    index.symlink_to(tmp_path / "no" / "such" / "folder")  # so SQLite cannot make its file
    with pytest.raises(LedgerError, match="copy it with its -wal file to a writable folder"):
        History(left)
    with pytest.raises(LedgerError, match="SQLite cannot create its files"), unchecked(left):
        pass
    index.unlink()
    assert History(left).runs()[0]["id"] == "run-3"


@pytest.mark.parametrize("name", ["50% off? #1 %41", "a b\n c", "ünï𝄞", "colon:name", os.fsdecode(b"no-text-\xff")])
def test_the_ledger_may_have_any_name(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / name / f"{name}.db", ["run-1"])
    assert History(path).run()["id"] == "run-1"
    with closing(Ledger(path)) as ledger:
        assert verify(ledger.db) == []


# -- a disk that is full: a file may not grow beyond a limit, which SQLite meets in a real write -----------------------


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


# -- facts -------------------------------------------------------------------------------------------------------------


async def test_a_fact_with_texts_names_their_hashes_and_the_texts_are_kept(tmp_path: Path) -> None:
    with closing(open_ledger(tmp_path / "ledger.db")) as ledger:
        before = ledger.head()
        head = ledger.event("run-1", "proposal", {"round": 1}, {"prompt": "é \0", "reply": ""})
        assert head == ledger.head() != before
        await ledger.commit()
        ((body,),) = read(ledger.path, "SELECT body FROM events WHERE kind = 'proposal'")
        told = json.loads(body)
        assert told == {"round": 1, "prompt_hash": sha256("é \0"), "reply_hash": sha256("")}
        assert dict(read(ledger.path, "SELECT hash, body FROM blobs"))[told["prompt_hash"]] == "é \0"
        assert verify(ledger.db) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.dictionaries(st.text(st.characters(), min_size=1).map("x-{}-x".format), JSON, max_size=3))
def test_a_fact_of_any_json_is_kept_and_the_chain_holds(whole: Path, body: dict[str, object]) -> None:
    """Lone surrogates at any depth, NUL, numbers that SQLite cannot hold."""
    with closing(Ledger(whole)) as ledger:
        ledger.event("run-1", "note", body)
        ledger.flush()
        assert verify(ledger.db) == []
