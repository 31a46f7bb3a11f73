"""A release of plain files, such as a classifier. Knows no alias, no ledger and no particular kind.

    ROOT/NAME/VERSION/release.json    its kind, the function of `promptassay` that loads it, each file's size and hash
    ROOT/NAME/VERSION/...             the files; others do not count

The version is the hash of release.json without name and provenance, so it covers every byte of the files. It is a
hash, not a signature. A file is data: nothing in it is run. Needs the standard library only.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from agent.errors import ReleaseError
from agent.release.aliases import NAME
from agent.release.prompt_file import MAX_FILE, only_release_errors, require_version
from agent.safe_data import Rule, parse_json, read_as
from agent.safe_file import disk_errors, new_files, read_file
from agent.shipped import content_id

MANIFEST = "release.json"
MOST_BYTES = 256_000_000  # of one file
_TYPES = {
    "name": str,
    "version": str,
    "what": Annotated[str, Rule("printable text", lambda value: isinstance(value, str) and value.isprintable())],
    "loader": Annotated[str, Rule("a function", lambda value: isinstance(value, str) and value.isidentifier())],
    "files": dict[str, Any],
    "provenance": dict[str, Any],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRelease:
    """Files by name, which are shipped unchanged.

    `what`: a few words that follow "is". `loader`: the function of `promptassay` that takes NAME@ALIAS or the folder.
    """

    name: str
    what: str
    loader: str
    files: Mapping[str, bytes]
    provenance: Mapping[str, Any]
    version: str = field(init=False)

    def __post_init__(self) -> None:
        if not self.files or not all(NAME.fullmatch(name) and name != MANIFEST for name in self.files):
            raise ReleaseError(f"{list(self.files)!r:.90}: invalid file names for a release")
        content = {"what": self.what, "loader": self.loader, "files": self._listed()}
        object.__setattr__(self, "version", content_id("f", content))

    def manifest(self) -> dict[str, Any]:
        """Return the object of release.json."""
        texts = {"name": self.name, "version": self.version, "what": self.what, "loader": self.loader}
        return {**texts, "files": self._listed(), "provenance": dict(self.provenance)}

    def write(self, folder: Path) -> None:
        """Write the folder, verified before anything is moved into place. Raises ReleaseError."""
        text = json.dumps(self.manifest(), indent=2, ensure_ascii=True, allow_nan=False) + "\n"
        with disk_errors(f"{folder}: cannot write the release"), new_files(folder) as staged:
            for name, data in {**self.files, MANIFEST: text.encode()}.items():
                (staged / name).write_bytes(data)
            if read_files(staged).version != self.version:
                raise ReleaseError(f"{folder}: the written files differ from the release")

    def _listed(self) -> dict[str, dict[str, Any]]:
        return {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in sorted(self.files.items())
        }


def read_files(folder: str | os.PathLike[str]) -> FileRelease:
    """Read a released folder and verify every byte. Raises ReleaseError, which names the file."""
    path = Path(folder) / MANIFEST
    with only_release_errors(path):
        data = parse_json(read_file(path, MAX_FILE))
    return _release(path, data, lambda name: read_file(path.with_name(name), MOST_BYTES))


def kept_files(folder: Path) -> str | None:
    """Serialize the release for the ledger; None if it is damaged, binary or too large."""
    try:
        release = read_files(folder)
        files = {name: data.decode("utf-8").split("\n") for name, data in release.files.items()}
    except (ReleaseError, UnicodeDecodeError):
        return None
    text = json.dumps({"release": release.manifest(), "files": files}, ensure_ascii=False)
    return text if len(text) <= MAX_FILE else None


def restored_files(text: str) -> FileRelease:
    """Read the release that `kept_files` serialized. Raises ReleaseError if it was changed."""
    path = Path(MANIFEST)
    with only_release_errors(path):
        kept = parse_json(text)
    return _release(path, kept["release"], lambda name: "\n".join(kept["files"].get(name, ())).encode())


def _release(path: Path, data: Any, read: Callable[[str], bytes]) -> FileRelease:
    try:
        read_as(_TYPES, data, MANIFEST)
        if wrong := [name for name in data["files"] if not NAME.fullmatch(name)]:
            raise ValueError(f"{wrong[0]!r:.60} is not a file name")
    except ValueError as error:
        raise ReleaseError(f"{path}: is not the {MANIFEST} of a release: {error}; restore the released file") from None
    files = {}
    for name in data["files"]:
        with only_release_errors(path.with_name(name)):
            files[name] = read(name)
    try:
        named = {key: data[key] for key in ("name", "what", "loader", "provenance")}
        release = FileRelease(files=files, **named)
    except ReleaseError as error:
        raise ReleaseError(f"{path}: {error}") from None
    for name, listed in release.manifest()["files"].items():
        if listed != data["files"][name]:
            raise ReleaseError(
                f"{path.with_name(name)}: was edited after release or truncated; restore the released file"
            )
    require_version(path, release.version, data["version"])
    return release
