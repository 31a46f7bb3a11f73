"""A release of files is found whole byte by byte, kept as text for the ledger, and names no file outside its folder."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import InputError, ReleaseError
from agent.ledger.store import Ledger
from agent.ledger.texts import holds
from agent.release.aliases import ALIAS, VERSION
from agent.release.file_release import MANIFEST, FileRelease, kept_files, read_files, restored_files
from agent.release.promotion import ReleaseRegistry
from agent.release.runtime import load_prompt
from tests.release.test_promotion import NAME, ONE, promote

ROW = '{"inputs": {"text": "\\u00c4nne said \\"no\\""}}'
FILES = {"rows.jsonl": f"{ROW}\n{ROW}\n".encode(), "index.bin": b"\r\n\r\x00\x85\xe2\x80\xa8"}


def release(**changes: Any) -> FileRelease:
    values: dict[str, Any] = {
        "name": NAME,
        "what": "an index",
        "loader": "load_index",
        "files": FILES,
        "provenance": {"run_id": "r"},
    }
    return FileRelease(**{**values, **changes})


def test_the_version_is_of_every_byte_and_of_what_loads_them_but_not_of_name_and_provenance(tmp_path: Path) -> None:
    one = release()
    one.write(tmp_path)
    assert read_files(tmp_path) == one
    assert VERSION.fullmatch(one.version)
    assert not ALIAS.fullmatch(one.version)
    assert release(name="other", provenance={}).version == one.version
    others = [
        release(what="a map"),
        release(loader="load_map"),
        release(files={**FILES, "more": b""}),
        release(files={**FILES, "index.bin": b""}),
        release(files={"rows.jsonl": FILES["index.bin"], "index.bin": FILES["rows.jsonl"]}),
    ]
    assert len({each.version for each in [one, *others]}) == 6


@given(st.dictionaries(st.from_regex(r"[a-z0-9]{1,8}\.txt", fullmatch=True), st.text(), min_size=1, max_size=4))
def test_what_the_ledger_keeps_gives_every_byte_back(texts: dict[str, str]) -> None:
    try:
        files = {name: text.encode("utf-8") for name, text in texts.items()}
    except UnicodeEncodeError:
        return
    one = release(files=files)
    with tempfile.TemporaryDirectory() as folder:
        one.write(Path(folder))
        kept = kept_files(Path(folder))
    assert kept is not None
    assert restored_files(kept) == one


def test_what_is_kept_is_found_by_its_words_and_what_is_no_text_is_not_kept(tmp_path: Path) -> None:
    release(files={"rows.jsonl": FILES["rows.jsonl"]}).write(tmp_path / "rows")
    kept = kept_files(tmp_path / "rows") or ""
    assert holds(kept, 'Änne said "no"')
    release(files={"index.bin": b"\xff"}).write(tmp_path / "index")
    assert kept_files(tmp_path / "index") is kept_files(tmp_path / "nothing") is None
    for changed in (kept.replace("said", "saw"), kept.replace("rows.jsonl", "r"), kept.replace("an index", "a map")):
        with pytest.raises(ReleaseError):
            restored_files(changed)


def test_a_file_outside_of_the_folder_is_neither_written_nor_read(tmp_path: Path) -> None:
    for name in ("../x", "a/b", ".hidden", "", "x\n", MANIFEST):
        with pytest.raises(ReleaseError, match="invalid file names"):
            release(files={name: b""})
    (tmp_path / "secret").write_bytes(b"s")
    folder = tmp_path / "v"
    release().write(folder)
    told = json.loads((folder / MANIFEST).read_text("utf-8"))
    for changes in (
        {"files": {**told["files"], "../secret": {}}},
        {"files": {}},
        {"files": []},
        {"what": "a\x1b[2J"},
        {"loader": "load; import os"},
        {"more": 1},
    ):
        (folder / MANIFEST).write_text(json.dumps({**told, **changes}), "utf-8")
        with pytest.raises(ReleaseError, match=rf"{MANIFEST}: .*; restore the released file|invalid file names"):
            read_files(folder)
    (folder / MANIFEST).write_text("[" * 100_000, "utf-8")
    with pytest.raises(ReleaseError):
        read_files(folder)
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).mkdir()
    with pytest.raises(ReleaseError):
        read_files(folder)


def test_the_registry_keeps_both_kinds_under_one_name_and_completes_each(tmp_path: Path) -> None:
    root, one = tmp_path / "releases", release(files={"rows.jsonl": FILES["rows.jsonl"]})
    ledger = Ledger(tmp_path / "ledger.db")
    registry = ReleaseRegistry(root)
    promote(root, ledger, ONE)
    registry.promote(one, "production", ledger, evidence={})
    with pytest.raises(
        ReleaseError, match=r"is an index, not a prompt; .*load_index\('support_triage@production', root="
    ):
        load_prompt(f"{NAME}@production", root=root)
    with pytest.raises(InputError, match="the same function loads"):
        promote(root, ledger, ONE, "ab", share=0.5)
    shutil.rmtree(root)
    assert registry.rollback(NAME, "production", ledger).version == ONE.version
    assert read_files(root / NAME / one.version) == one
    assert load_prompt(f"{NAME}@production", root=root).release == ONE
    binary = replace(one, files={"index.bin": b"\xff"})  # which the ledger cannot keep
    registry.promote(binary, "production", ledger, evidence={})
    promote(root, ledger, ONE)
    (root / NAME / binary.version / "index.bin").unlink()
    with pytest.raises(ReleaseError, match="is incomplete"):
        registry.rollback(NAME, "production", ledger)
    registry.promote(binary, "production", ledger, evidence={})
    assert read_files(root / NAME / binary.version) == binary
    ledger.close()
