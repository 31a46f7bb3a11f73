"""The one place that proves: what is unproved is said, and nothing is left behind where one format fails."""

from __future__ import annotations

import os
import resource
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import ReleaseError
from agent.release.export import probe_rows
from agent.release.formats.export_format import FORMATS, Material
from agent.release.formats.proof import verify_exports, write_exports, write_file
from tests.release.formats.sample import release

PYTHON = FORMATS.get("python")
MATERIAL = Material(release())


def test_formats_are_written_together_or_none_of_them(tmp_path: Path) -> None:
    names = ("md", "messages", "anthropic", "python")
    made = verify_exports([FORMATS.get(name) for name in names], dict.fromkeys(names, MATERIAL))
    paths = write_exports(made, tmp_path / "out")
    there = ["anthropic.json", "messages.json", "prompt.md", "prompt.py"]
    assert sorted(path.name for path in paths) == sorted(os.listdir(tmp_path / "out")) == there
    (tmp_path / "file").write_text("")
    with pytest.raises(ReleaseError, match="cannot write the export"):
        write_exports(made, tmp_path / "file")
    drifting = replace(PYTHON, files=lambda material: {"prompt.py": "MODEL = ''"})
    with pytest.raises(ReleaseError):
        write_exports(verify_exports([FORMATS.get("md"), drifting], dict.fromkeys(names, MATERIAL)), tmp_path / "new")
    assert sorted(os.listdir(tmp_path)) == ["file", "out"]


def test_one_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path, link = tmp_path / "prompt.md", tmp_path / "link.md"
    write_file("old", path)
    path.chmod(0o640)
    link.symlink_to(path)
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, most[1]))  # as a disk that is full
    try:
        with pytest.raises(ReleaseError, match="cannot write the export"):
            write_file("new" * 4096, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert path.read_text() == "old"
    write_file("new", link)
    assert (link.is_symlink(), path.read_text(), path.stat().st_mode & 0o777) == (True, "new", 0o640)
    assert sorted(os.listdir(tmp_path)) == ["link.md", "prompt.md"]
    inside, outside = os.pipe()
    write_file("through", Path(f"/dev/fd/{outside}"))
    assert os.read(inside, 100) == b"through"
    for end in (inside, outside):
        os.close(end)


def test_a_missing_library_and_values_that_are_not_held_are_said_and_strict_refuses_both() -> None:
    missing = replace(PYTHON, library="no-such-library", install="pip install no-such-library")
    (made,) = verify_exports([missing], {"python": MATERIAL})
    assert list(made.notes()) == ["python: not verified with no-such-library: pip install no-such-library"]
    dollars = replace(PYTHON, unfit=lambda release, values: "a dollar" if "$" in values["message"] else "")
    (made,) = verify_exports([dollars], {"python": MATERIAL})
    assert made.unfit["a dollar"] > 5
    assert made.rows >= 200
    assert any(note.startswith("python: cannot hold a dollar (") for note in made.notes())
    for form, why in ((missing, r"pip install no-such-library \(--strict\)"), (dollars, "cannot hold a dollar")):
        with pytest.raises(ReleaseError, match=why):
            verify_exports([form], {"python": MATERIAL}, strict=True)


@pytest.mark.parametrize("inputs", [("message",), ("message", "context")])
def test_hostile_rows_are_distinct_reproducible_and_200_are_without_line_ends(inputs: tuple[str, ...]) -> None:
    rows = list(probe_rows(inputs))
    assert rows == list(probe_rows(inputs))
    assert all(tuple(row) == inputs for row in rows)
    assert len({tuple(row.items()) for row in rows}) == len(rows) >= 400
    assert sum("".join(row.values()).isprintable() for row in rows) >= 200
