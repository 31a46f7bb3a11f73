"""Files that are there whole or not at all, and who may read them."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.safe_file import new_file, new_files


@contextmanager
def umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o077, 0o600)])
def test_who_may_read_what_is_passed_on_is_what_the_umask_says(tmp_path: Path, mask: int, expected: int) -> None:
    with umask(mask):
        with new_file(tmp_path / "export") as file:
            file.write(b"x")
        with new_files(tmp_path / "release") as beside:
            (beside / "prompt.md").write_text("x")
    assert (mode(tmp_path / "export"), mode(tmp_path / "release" / "prompt.md")) == (expected, expected)


@pytest.mark.parametrize("mask", [0, 0o022])
def test_what_is_private_is_its_owners_also_where_an_open_file_was_there(tmp_path: Path, mask: int) -> None:
    open_one = tmp_path / "open"
    open_one.write_text("before")
    open_one.chmod(0o666)
    with umask(mask):
        for path in (open_one, tmp_path / "new"):
            with new_file(path, private=True) as file:
                file.write(b"x")
            assert (mode(path), path.read_bytes()) == (0o600, b"x")


def write_all(folder: Path, names: list[str]) -> None:
    with new_files(folder) as beside:
        for name in names:
            (beside / name).write_text("x")


def test_a_folder_in_the_way_of_one_file_keeps_all_of_them_out(tmp_path: Path) -> None:
    names = [f"{letter}.txt" for letter in "abcdefgh"]
    for taken in names:
        folder = tmp_path / taken.removesuffix(".txt")
        (folder / taken).mkdir(parents=True)
        with pytest.raises(IsADirectoryError):
            write_all(folder, names)
        assert os.listdir(folder) == [taken]
