"""A bundle checks itself with nothing but Python, and no byte of it can change unseen."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import InputError
from agent.ledger import chain
from agent.ledger.anchors import snapshot
from agent.ledger.bundle import new_export, write_bundle
from agent.ledger.schema import AUDITED, expected_objects, sha256
from agent.ledger.store import Ledger, Reservation
from tests.ledger import ledgers
from tests.toys import ask


class Members(dict[str, bytes]):
    """A bundle's files by name."""

    def __repr__(self) -> str:
        return f"{len(self)} files"


def pack(ledger: Path, bundle: Path, run_id: str = "") -> Members:
    with snapshot(ledger) as db:
        write_bundle(db, bundle, False, run_id)
    with zipfile.ZipFile(bundle) as zipped:
        return Members({name: zipped.read(name) for name in zipped.namelist()})


@pytest.fixture(scope="module")
def packed(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Members:
    return pack(original, tmp_path_factory.mktemp("bundle") / "b.zip")


def check(members: Mapping[str, bytes], anchor: str = "") -> list[tuple[int, str]]:
    return chain.check(members.__getitem__, set(members), anchor)[0]


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Without site-packages and without this project."""
    return subprocess.run([sys.executable, "-I", "-S", *map(str, words)], capture_output=True, text=True, check=False)


def named_anew(members: Mapping[str, bytes]) -> Members:
    """With a manifest that fits, as somebody would make it who changed something."""
    manifest = json.loads(members["manifest.json"])
    rest = {name: data for name, data in members.items() if name != "manifest.json"}
    manifest["members"] = {name: hashlib.sha256(data).hexdigest() for name, data in rest.items()}
    return Members({**rest, "manifest.json": json.dumps(manifest).encode()})


def test_the_zip_and_the_folder_check_themselves(whole: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "b.zip"
    pack(whole, bundle)
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o600
    seq, head = ledgers.read(whole, "SELECT seq, hash FROM head")[0]
    shutil.unpack_archive(bundle, tmp_path / "folder")
    for words in ([bundle], [tmp_path / "folder" / "verify.py"], [tmp_path / "folder" / "verify.py", bundle]):
        done = run(*words)
        said, _, counts = done.stdout.partition("; of all runs: ")
        assert (done.returncode, said, done.stderr) == (0, f"whole: {seq} events, head {head}", "")
        assert counts.startswith("runs 2, candidates 4, demos 5, ")
    middle = ledgers.read(whole, "SELECT hash FROM events WHERE seq = 7")[0][0]
    assert run(bundle, "--anchor", middle).returncode == 0
    done = run(bundle, "--anchor", "f" * 64)
    assert done.returncode == 1
    assert done.stdout.startswith("event 1: no event has the hash")


def test_what_is_no_bundle_is_told_as_such(tmp_path: Path) -> None:
    script = Path(chain.__file__)
    (tmp_path / "noise.zip").write_bytes(b"noise")
    (tmp_path / "empty").mkdir()
    for name in ("noise.zip", "empty", "missing"):
        done = run(script, tmp_path / name)
        assert done.returncode == 1
        assert done.stdout.startswith("event 0: not a readable bundle")
        assert done.stderr == ""


def test_the_same_ledger_gives_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    pack(whole, tmp_path / "one.zip")
    pack(whole, tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_a_bundle_holds_every_row_and_text(whole: Path, packed: Members) -> None:
    for table in AUDITED:
        rows = [json.loads(line) for line in packed[f"tables/{table}.jsonl"].splitlines()]
        assert len(rows) == ledgers.read(whole, f"SELECT COUNT(*) FROM {table}")[0][0]
    texts = dict(ledgers.read(whole, "SELECT hash, body FROM blobs"))
    found = {name.removeprefix("blobs/"): data.decode() for name, data in packed.items() if name.startswith("blobs/")}
    assert found == texts


def test_the_script_knows_the_tables_as_the_schema_has_them(whole: Path) -> None:
    assert dict(chain.KEYS) == dict(AUDITED)
    assert expected_objects()
    for table in AUDITED:
        for name, default, required in ledgers.read(
            whole, 'SELECT name, dflt_value, "notnull" FROM pragma_table_info(?)', table
        ):
            if default is not None or not required:
                assert default in (None, "0", "''", "'{}'"), f"{table}.{name}: the script takes {default} for a change"


@settings(max_examples=150)
@given(st.data())
def test_no_byte_of_a_bundle_can_change_unseen(packed: Members, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(set(packed) - {"manifest.json"})))
    content = bytearray(packed[name])
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    assert (0, f"a file was changed: {name}") in check({**packed, name: bytes(content)})


@pytest.mark.parametrize("name", ["events.jsonl", "tables/calls.jsonl", "README.txt", "verify.py", "__main__.py"])
def test_a_file_that_is_missing_or_was_added_is_found(packed: Members, name: str) -> None:
    assert (0, f"a file is missing: {name}") in check({key: data for key, data in packed.items() if key != name})
    assert check({**packed, "more.txt": b""})[0] == (0, "a file that manifest.json does not name: more.txt")


def lines(members: Members, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in members[name].splitlines()]


def with_lines(members: Members, name: str, rows: list[dict[str, Any]]) -> Members:
    return named_anew({**members, name: "".join(json.dumps(row) + "\n" for row in rows).encode()})


@settings(max_examples=60)
@given(st.data())
def test_a_changed_event_is_named_although_the_manifest_was_made_anew(packed: Members, data: st.DataObject) -> None:
    events = lines(packed, "events.jsonl")
    at = data.draw(st.integers(0, len(events) - 1))
    column = data.draw(st.sampled_from(["run_id", "utc", "kind", "body", "prev_hash", "hash"]))
    events[at] = {**events[at], column: events[at][column] + "0"}
    assert check(with_lines(packed, "events.jsonl", events))[0][0] == at + 1


@settings(max_examples=60)
@given(st.data())
def test_a_changed_or_missing_row_is_named_with_the_event_that_says_otherwise(
    original: Path, packed: Members, data: st.DataObject
) -> None:
    with sqlite3.connect(original) as db:
        seqs = ledgers.last_seqs(db)
    name = data.draw(st.sampled_from([t for t in AUDITED if lines(packed, f"tables/{t}.jsonl")]))
    rows = lines(packed, f"tables/{name}.jsonl")
    at = data.draw(st.integers(0, len(rows) - 1))
    place = (name, *(rows[at][column] for column in AUDITED[name]))
    column = data.draw(st.sampled_from([None, *(c for c in rows[at] if c not in AUDITED[name])]))
    if column is None:
        del rows[at]
    else:
        rows[at] = {**rows[at], column: f"{rows[at][column]} "}
    found = check(with_lines(packed, f"tables/{name}.jsonl", rows))
    assert [seq for seq, _ in found] == [seqs[place]]


@settings(max_examples=40)
@given(st.data())
def test_a_changed_missing_or_added_text_is_named(original: Path, packed: Members, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(name for name in packed if name.startswith("blobs/"))))
    digest = name.removeprefix("blobs/")
    with sqlite3.connect(original) as db:
        seq = ledgers.first_naming(db, digest)
    changed = named_anew({**packed, name: packed[name] + b" "})
    assert check(changed) == [(seq, f"a text is not what its hash says: {digest}")]
    missing = named_anew({key: content for key, content in packed.items() if key != name})
    assert check(missing) == [(seq, f"a text is missing: {digest}")]
    stranger = str(sha256("stranger"))
    added = named_anew({**packed, f"blobs/{stranger}": b"stranger"})
    assert check(added) == [(0, f"no event tells of a text: {stranger}")]


def test_an_emptied_bundle_of_a_run_that_never_was_is_found(packed: Members) -> None:
    left = {name: b"" if name.startswith("tables/") else data for name, data in packed.items() if name[:6] != "blobs/"}
    manifest = json.loads(packed["manifest.json"])
    counts = {**manifest["counts"], "texts": 0}
    left["manifest.json"] = json.dumps({**manifest, "run": "nobody\x1b[2J", "counts": counts}).encode()
    assert check(named_anew(left)) == [(0, "no event begins the run that manifest.json names: nobody\x1b[2J")]


@pytest.mark.parametrize("name", ["events.jsonl", "tables/calls.jsonl"])
@pytest.mark.parametrize(
    "forge",
    [
        lambda text: text.replace("{", '{"run_id": "nobody", ', 1),
        lambda text: text.replace("{", '{"note": "signed by the auditor", ', 1),
        lambda text: text + '{"cost_usd": 999.0}',
    ],
    ids=["a key twice", "a key more", "a line without an end"],
)
def test_what_no_event_says_is_found_wherever_it_is_put(
    packed: Members, name: str, forge: Callable[[str], str]
) -> None:
    assert check(named_anew({**packed, name: forge(packed[name].decode()).encode()}))


def test_a_manifest_that_says_more_or_another_number_is_found(packed: Members) -> None:
    for key, value in (("note", "signed"), ("counts", {"events": 1, "texts": 1})):
        manifest = json.dumps({**json.loads(packed["manifest.json"]), key: value})
        assert check({**packed, "manifest.json": manifest.encode()})
    twice = packed["manifest.json"].decode().replace("{", '{"run": "run-1",', 1)
    with pytest.raises(ValueError, match="twice"):
        check({**packed, "manifest.json": twice.encode()})


def test_nothing_that_is_printed_steers_a_terminal(packed: Members, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as zipped:
        for name, data in {**packed, "\x1b[2J": b""}.items():
            zipped.writestr(name, data)
    assert "does not name: \\u001b[2J" in run(Path(chain.__file__), tmp_path / "b.zip").stdout


def test_a_chain_that_was_cut_off_is_found(packed: Members) -> None:
    found = check(with_lines(packed, "events.jsonl", lines(packed, "events.jsonl")[:-1]))
    assert any("is not the head in manifest.json" in what for _, what in found)


def test_a_bundle_of_one_run_has_the_whole_chain_and_that_run_only(whole: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "b.zip"
    members = pack(whole, bundle, "run-2")
    assert "; of the run run-2: runs 1, candidates 4, " in run(bundle).stdout
    assert len(lines(members, "events.jsonl")) == ledgers.read(whole, "SELECT COUNT(*) FROM events")[0][0]
    for table in ("runs", "trials", "outcomes", "proposals"):
        column = "id" if table == "runs" else "run_id"
        assert {row[column] for row in lines(members, f"tables/{table}.jsonl")} == {"run-2"}
    own = ledgers.read(whole, "SELECT COUNT(*) FROM calls WHERE run_id = 'run-2'")[0][0]
    assert sum(row["run_id"] == "run-2" for row in lines(members, "tables/calls.jsonl")) == own
    left_out = ledgers.read(whole, "SELECT result_hash FROM runs WHERE id = 'run-1'")[0][0]
    assert f"blobs/{left_out}" not in members
    kept = ledgers.read(whole, "SELECT result_hash FROM runs WHERE id = 'run-2'")[0][0]
    assert check(named_anew({n: d for n, d in members.items() if n != f"blobs/{kept}"}))[0][1].endswith(kept)


def test_a_text_that_was_erased_is_not_missed_and_must_not_come_back(whole: Path, tmp_path: Path) -> None:
    digest, body = ledgers.read(whole, "SELECT hash, body FROM blobs LIMIT 1")[0]
    ledger = Ledger(whole)
    ledger.erase([digest], "ann", "asked")
    ledger.close()
    members = pack(whole, tmp_path / "b.zip")
    assert f"blobs/{digest}" not in members
    assert check(members) == []
    back = check(named_anew({**members, f"blobs/{digest}": body.encode()}))
    assert [what for _, what in back] == [f"a text that was erased is back: {digest}"]


async def test_a_call_that_is_on_its_way_is_no_change(whole: Path, tmp_path: Path) -> None:
    ledger = Ledger(whole)
    call = await ledger.reserve(Reservation("run-1", "model", "m", "k", "", 1, ask("x"), 0.0, 0))
    ledger.sent(call)
    await ledger.commit()
    members = pack(whole, tmp_path / "b.zip")
    ledger.close()
    assert [row["state"] for row in lines(members, "tables/calls.jsonl") if row["id"] == call] == ["sent"]
    assert check(members) == []


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
