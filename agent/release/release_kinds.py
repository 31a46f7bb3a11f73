"""What can be released as a version: what the registry asks of it, and the kinds there are, by the tag of a version.

A new kind that is files needs nothing here: it is a `FileRelease` with a loader of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent.errors import ReleaseError
from agent.release.file_release import kept_files, read_files, restored_files
from agent.release.prompt_file import MESSAGES_FILE, PROMPT_FILE, read_release, release_in


class Releasable(Protocol):
    """Something that can be released as a version of a name."""

    @property
    def name(self) -> str:
        """Of the task: labels belong to it."""
        ...

    @property
    def version(self) -> str:
        """The tag of its kind, `_` and 16 hex digits: the hash of all that decides what it answers."""
        ...

    def write(self, folder: Path) -> object:
        """Writes the folder of the version, proved before it is moved into place. Raises ReleaseError."""
        ...


@dataclass(frozen=True, slots=True)
class ReleaseKind:
    """How the folders of a kind are read.

    Args:
        version_in: the version that a folder holds whole; raises ReleaseError where it holds none.
        kept: the text of a folder that the ledger keeps to restore it; None for what it cannot keep.
        restored: the release in such a text; raises ReleaseError where the text is not that any more.
    """

    version_in: Callable[[Path], str]
    kept: Callable[[Path], str | None]
    restored: Callable[[str], Releasable]

    def is_whole(self, folder: Path, version: str) -> bool:
        """Whether the folder holds all of this version."""
        try:
            return self.version_in(folder) == version
        except ReleaseError:
            return False


def kind_of(version: str) -> ReleaseKind:
    """The kind that a version is of, by its tag (`labels.VERSION` has the tags)."""
    return _KINDS[version[0]]


def _prompt_version(folder: Path) -> str:
    versions = {read_release(folder / name).version for name in (PROMPT_FILE, MESSAGES_FILE)}
    if len(versions) > 1:
        raise ReleaseError(f"{folder}: its two files are of two versions")
    return versions.pop()


def _prompt_text(folder: Path) -> str | None:
    """The text of messages.json; None for a prompt with an adapter, whose file is no text."""
    try:
        has_adapter = read_release(folder / MESSAGES_FILE, verify=False).adapter is not None
        return None if has_adapter else (folder / MESSAGES_FILE).read_text("utf-8")
    except (OSError, UnicodeDecodeError, ReleaseError):
        return None


_KINDS = {
    "p": ReleaseKind(_prompt_version, _prompt_text, lambda text: release_in(text, Path(MESSAGES_FILE))),
    "f": ReleaseKind(lambda folder: read_files(folder).version, kept_files, restored_files),
}
