"""Compares a text with its snapshot, a file in this folder, and rewrites it on request."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
UPDATE = "--update-snapshots"
SHOWN = 200
"""Lines of a difference that a failure shows."""


class Snapshots:
    """The snapshots of this folder. `updates`: whether a text that differs is written instead of refused."""

    def __init__(self, updates: bool) -> None:
        self._updates = updates

    def check(self, name: str, text: str) -> None:
        """Fails where the snapshot `name` is not `text`, and says what differs."""
        path = HERE / name
        before = path.read_text("utf-8") if path.exists() else ""
        if before == text:
            return
        if self._updates:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, "utf-8")
            return
        lines = list(difflib.unified_diff(before.splitlines(), text.splitlines(), name, "now", lineterm=""))
        more = [f"... {len(lines) - SHOWN} more lines"] if len(lines) > SHOWN else []
        said = "\n".join([*lines[:SHOWN], *more])
        hint = f"changed on purpose? Run `pytest tests/snapshots {UPDATE}`, and read the difference in git"
        pytest.fail(f"{name} differs:\n{said}\n\n{hint}", pytrace=False)

    def check_names(self, folder: str, names: set[str]) -> None:
        """Fails where the files of a folder are not these; an update deletes those that are left over."""
        found = {path.name for path in (HERE / folder).iterdir()}
        if not self._updates:
            assert found == names
        for name in found - names:
            (HERE / folder / name).unlink()
