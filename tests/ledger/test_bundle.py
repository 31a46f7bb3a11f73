"""A bundle checks itself with nothing but Python, and nothing that it says can change unseen."""

from __future__ import annotations

import io
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import zipfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import InputError
from agent.ledger.chain import OWNER_OF
from agent.ledger.connect import unchecked
from agent.ledger.container import new_export, write_bundle
from agent.ledger.query import History
from agent.ledger.store import Ledger, Reservation
from agent.ledger.verify import LEDGER, verify
from tests.ledger import ledgers
from tests.toys import ask


def pack(ledger: Path, bundle: Path, run_id: str = "") -> bytes:
    """The ledger in the bundle that was written."""
    with unchecked(ledger, as_one=True) as db:
        write_bundle(db, bundle, False, run_id)
    with zipfile.ZipFile(bundle) as zipped:
        return zipped.read(LEDGER)


@pytest.fixture(scope="module")
def packed(original: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return pack(original, tmp_path_factory.mktemp("bundle") / "b.zip")


def check(data: bytes, *statements: str) -> list[tuple[int, str]]:
    """What is found after a change."""
    with closing(ledgers.in_memory(data)) as db:
        ledgers.alter(db, *statements)
        return [(seq, what) for seq, what in verify(db)]


def rows(data: bytes, sql: str) -> list[tuple[object, ...]]:
    with closing(ledgers.in_memory(data)) as db:
        return db.execute(sql).fetchall()


def dump(data: bytes) -> list[str]:
    with closing(ledgers.in_memory(data)) as db:
        return [*db.iterdump()]


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Without site-packages and without this project."""
    return subprocess.run([sys.executable, "-I", "-S", *map(str, words)], capture_output=True, text=True, check=False)


def test_the_zip_and_the_folder_check_themselves(whole: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "b.zip"
    pack(whole, bundle)
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o600
    seq, head = ledgers.read(whole, "SELECT seq, hash FROM head")[0]
    shutil.unpack_archive(bundle, tmp_path / "folder")
    for words in ([bundle], [tmp_path / "folder"], [tmp_path / "folder", bundle]):
        done = run(*words)
        said, _, counts = done.stdout.partition("; of all runs: ")
        assert (done.returncode, said, done.stderr) == (0, f"whole: {seq} events, head {head}", "")
        assert counts.startswith("runs 2, examples 5, candidates 4, ")
    middle = ledgers.read(whole, "SELECT hash FROM events WHERE seq = 7")[0][0]
    assert run(bundle, "--anchor", middle).returncode == 0
    done = run(bundle, "--anchor", "f" * 64)
    assert done.returncode == 1
    assert done.stdout.startswith("event 1: no event has the hash")


def test_what_is_no_bundle_is_told_as_such(original: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "b.zip"
    pack(original, bundle)
    with zipfile.ZipFile(tmp_path / "no-ledger.zip", "w") as zipped:
        zipped.writestr(LEDGER, b"noise")
    (tmp_path / "noise.zip").write_bytes(b"noise")
    (tmp_path / "empty").mkdir()
    for name in ("noise.zip", "no-ledger.zip", "empty", "missing"):
        done = run(bundle, tmp_path / name)
        assert done.returncode == 1
        assert done.stdout.startswith("event 0: ")
        assert done.stderr == ""


def test_the_same_ledger_gives_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    pack(whole, tmp_path / "one.zip")
    pack(whole, tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_what_is_in_a_bundle_is_read_as_a_ledger(packed: bytes, tmp_path: Path) -> None:
    (tmp_path / LEDGER).write_bytes(packed)
    with closing(History(tmp_path / LEDGER)) as history:
        assert [trial["mean"] for trial in history.trials("run-1")]


@settings(max_examples=150)
@given(st.data())
def test_no_byte_of_a_bundle_can_change_unseen(packed: bytes, data: st.DataObject) -> None:
    """Or it is one that says nothing."""
    content = bytearray(packed)
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = check(bytes(content))
    except (sqlite3.Error, UnicodeDecodeError):  # a name that is no text is a UnicodeDecodeError since Python 3.12
        return
    if not found:
        assert dump(bytes(content)) == dump(packed)


def test_an_emptied_bundle_of_a_run_that_never_was_is_found(packed: bytes) -> None:
    emptied = [f"DELETE FROM {table}" for table in (*OWNER_OF, "blobs")]
    assert check(packed, *emptied, "UPDATE merged_chains SET only = 'nobody'") == [
        (0, "no event starts the bundle's run: nobody")
    ]


def test_nothing_that_is_printed_steers_a_terminal(packed: bytes, original: Path, tmp_path: Path) -> None:
    pack(original, tmp_path / "b.zip")
    with closing(ledgers.in_memory(packed)) as db:
        ledgers.alter(db, "UPDATE merged_chains SET only = 'x' || char(27) || '[2J'")
        data = db.serialize()
    changed = io.BytesIO()
    with zipfile.ZipFile(changed, "w") as zipped:
        zipped.writestr(LEDGER, data)
    (tmp_path / "changed.zip").write_bytes(changed.getvalue())
    assert "\\u001b[2J" in run(tmp_path / "b.zip", tmp_path / "changed.zip").stdout


def test_a_bundle_of_one_run_has_the_whole_chain_and_that_run_only(whole: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "b.zip"
    data = pack(whole, bundle, "run-2")
    assert "; of the run run-2: runs 1, examples 5, candidates 4, " in run(bundle).stdout
    assert rows(data, "SELECT COUNT(*) FROM events") == ledgers.read(whole, "SELECT COUNT(*) FROM events")
    for table in ("runs", "trials", "outcomes", "proposals"):
        assert rows(data, f"SELECT DISTINCT {OWNER_OF[table]} FROM {table}") == [("run-2",)]
    own = "SELECT COUNT(*) FROM calls WHERE run_id = 'run-2'"
    assert rows(data, own) == ledgers.read(whole, own)
    left_out = ledgers.read(whole, "SELECT result_hash FROM runs WHERE id = 'run-1'")[0][0]
    kept = ledgers.read(whole, "SELECT result_hash FROM runs WHERE id = 'run-2'")[0][0]
    hashes = [digest for (digest,) in rows(data, "SELECT hash FROM blobs")]
    assert kept in hashes
    assert left_out not in hashes
    assert check(data, f"DELETE FROM blobs WHERE hash = '{kept}'")[0][1].endswith(kept)


def test_a_text_that_was_erased_is_not_missed_and_must_not_come_back(whole: Path, tmp_path: Path) -> None:
    digest, body = ledgers.read(whole, "SELECT hash, body FROM blobs LIMIT 1")[0]
    ledger = Ledger(whole)
    ledger.erase([digest], "ann", "asked")
    ledger.close()
    data = pack(whole, tmp_path / "b.zip")
    assert not rows(data, f"SELECT 1 FROM blobs WHERE hash = '{digest}'")
    assert check(data) == []
    with closing(ledgers.in_memory(data)) as db:
        db.execute("INSERT INTO blobs VALUES (?, ?)", (digest, body))
        assert [what for _, what in verify(db)] == [f"an erased text is back: {digest}"]


async def test_a_call_that_is_on_its_way_is_no_change(whole: Path, tmp_path: Path) -> None:
    ledger = Ledger(whole)
    call = await ledger.reserve(Reservation("run-1", "model", "m", "k", "", 1, ask("x"), 0.0, 0))
    ledger.sent(call)
    await ledger.commit()
    data = pack(whole, tmp_path / "b.zip")
    ledger.close()
    assert rows(data, f"SELECT state FROM calls WHERE id = {call}") == [("sent",)]
    assert check(data) == []


def test_a_file_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(TypeError), new_export(path, False) as file:
        file.write("no bytes")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
    path.write_text("mine")
    with pytest.raises(InputError, match="--force"), new_export(path, False):
        pass
    assert path.read_text() == "mine"
    with new_export(path, True) as file:
        file.write(b"new")
    assert path.read_text() == "new"


def test_a_link_and_a_pipe_stay_what_they_are(tmp_path: Path) -> None:
    path, link, pipe = tmp_path / "file", tmp_path / "link", tmp_path / "pipe"
    path.write_text("old")
    path.chmod(0o644)
    link.symlink_to("file")
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    for place in (link, pipe):
        with new_export(place, True) as file:
            file.write(b"new")
    assert (link.is_symlink(), path.read_text(), stat.S_IMODE(path.stat().st_mode)) == (True, "new", 0o600)
    assert (pipe.is_fifo(), os.read(reader, 9)) == (True, b"new")
    os.close(reader)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "link", "pipe"]
