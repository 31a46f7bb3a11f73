"""The forms of a released version: a prompt, files, or texts. The first letter of a version tells its form."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.errors import ReleaseError
from agent.release.aliases import releases_root
from agent.release.file_release import FileRelease, kept_files, read_files, restored_files
from agent.release.prompt_file import MESSAGES_FILE, PROMPT_FILE, PromptRelease, read_release, release_in
from agent.release.texts import TEXTS_FILE, TextsRelease, kept_texts, read_texts, texts_in

NOUNS: Mapping[str, str] = {TEXTS_FILE: "texts"}
"""What a run searches, by the file that it releases, if it is no prompt."""
Release = PromptRelease | FileRelease | TextsRelease
"""A version of a name."""


@dataclass(frozen=True, slots=True)
class VersionForm:
    """One form. `what` follows "is".

    `read` verifies a version's folder, `kept` gives the text by which the ledger can restore it (None for a binary
    one), and `restored` reads that text; they raise ReleaseError, but `kept` does not.
    """

    what: str
    read: Callable[[Path], Release]
    kept: Callable[[Path], str | None]
    restored: Callable[[str], Release]

    @property
    def noun(self) -> str:
        return self.what.removeprefix("a ")

    @property
    def own(self) -> str:
        """The user's one, in words."""
        return f"your own {self.noun}"


def _prompt(folder: Path) -> PromptRelease:
    one, other = (read_release(folder / name) for name in (PROMPT_FILE, MESSAGES_FILE))
    if one.version != other.version:
        raise ReleaseError(f"{folder}: holds {one.version} and {other.version}; restore the folder from a copy")
    return one


def _kept_prompt(folder: Path) -> str | None:
    try:
        release = read_release(folder / MESSAGES_FILE, verify=False)
        return None if any(part.files() for part in release.parts) else (folder / MESSAGES_FILE).read_text("utf-8")
    except (OSError, UnicodeDecodeError, ReleaseError):
        return None


FORMS = {
    "p": VersionForm("a prompt", _prompt, _kept_prompt, lambda text: release_in(text, Path(MESSAGES_FILE))),
    "f": VersionForm("files", read_files, kept_files, restored_files),
    "t": VersionForm("a set of texts", read_texts, kept_texts, lambda text: texts_in(text, Path(TEXTS_FILE))),
}
"""By the first letter of a version."""
_READERS: Mapping[str, Callable[[Path], PromptRelease | TextsRelease]] = {
    PROMPT_FILE: read_release,
    MESSAGES_FILE: read_release,
    TEXTS_FILE: read_texts,
}


def noun_of(file: str | os.PathLike[str]) -> str:
    """Return what a run searches that releases this file."""
    return NOUNS.get(Path(file).name, "prompt")


def form_of(version: str) -> VersionForm:
    """Return the form of a version."""
    return FORMS[version[0]]


def is_version(file: Path) -> bool:
    """Return whether what a run released there, by the file's name, can be a version."""
    return file.name in _READERS


def read_released(file: Path) -> PromptRelease | TextsRelease:
    """Read what a run released. Raises ReleaseError."""
    return _READERS[file.name](file)


def is_whole(folder: Path, version: str) -> bool:
    """Return whether the folder holds this version completely."""
    try:
        return form_of(version).read(folder).version == version
    except ReleaseError:
        return False


def how_to_load(folder: Path, reference: str, wanted: str = "p") -> str:
    """Describe a version of another form than `wanted`, with its folder.

    Says the Python that loads it. Raises ReleaseError.
    """
    release, root = form_of(folder.name).read(folder), folder.parents[1]
    more = "" if root == releases_root() else f", root={os.fspath(root)!r}"
    return (
        f"{reference}: {release.version} is {release.what}, not {FORMS[wanted].what}; it is in {folder}; load it with: "
        f"from promptassay import {release.loader}; loaded = {release.loader}({reference!r}{more})"
    )
