"""Aliases of released prompts, read from their files: the current version of an alias, and the A/B arm of a unit.

    ROOT/NAME/VERSION/prompt.md, messages.json    a version: VERSION is the hash of its content, so it never changes
    ROOT/NAME/VERSION/texts.json                  a version of texts (`texts.py`)
    ROOT/NAME/VERSION/release.json, ...           one of files (`file_release.py`)
    ROOT/NAME/aliases.jsonl                        the append-only history: one change of an alias per line

Each line holds the hash of the line before. A last line without a line end was cut off by a kill and does not count.
Needs the standard library only; knows no ledger and writes nothing (`promotion.py` does).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from agent.errors import ReleaseError
from agent.safe_data import REAL, Rule, matching, parse_json, read_as
from agent.safe_file import read_file

ALIASES_FILE = "aliases.jsonl"
MAX_FILE = 64_000_000  # bytes of a history: some 60,000 changes
PRODUCTION = "production"
ROOT_VARIABLE = "PROMPTASSAY_RELEASES"
DEFAULT_ROOT = os.path.join("runs", "releases")
GENESIS = "0" * 64
"""The `prev` of the first line."""
CANDIDATE_ARM = "candidate"
PRODUCTION_ARM = "production"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
ALIAS = re.compile(r"(?![pft]_[0-9a-f]{16}\Z)[a-z][a-z0-9_-]{0,39}")
VERSION = re.compile(r"[pft]_[0-9a-f]{16}")
"""p: a prompt; f: files; t: texts."""
_SHARE = Rule("a part of 1", lambda value: value is None or (REAL.holds(value) and 0 <= value <= 1))


class NeedsUnit(ReleaseError):
    """An A/B alias was loaded without a unit."""


@dataclass(frozen=True, slots=True)
class AliasChange:
    """One change of an alias, as a line of its history.

    `before` is the previous version ("" for none), `share` the part of the units of an A/B alias (else None). `hash`
    covers all other fields, including `prev`.
    """

    name: str
    seq: int
    utc: str
    actor: str
    action: Literal["promote", "rollback"]
    alias: Annotated[str, matching(ALIAS.pattern, "an alias")]
    version: Annotated[str, matching(VERSION.pattern, "a version")]
    before: str
    share: Annotated[float | None, _SHARE]
    reason: str
    evidence: Mapping[str, Any]
    prev: str
    hash: str

    def as_dict(self) -> dict[str, Any]:
        """Return the line's object, with the keys of the file."""
        return {key: getattr(self, "before" if key == "from" else key) for key in (*KEYS, "hash")}


KEYS = tuple("from" if each.name == "before" else each.name for each in fields(AliasChange) if each.name != "hash")
"""The keys of a line, without its hash."""


def change_from(data: Any) -> AliasChange:
    """Read a change from a line's object. Raises ValueError for anything else, or a wrong hash."""
    renamed = (
        {"before" if key == "from" else key: value for key, value in data.items()} if isinstance(data, dict) else 0
    )
    try:
        change: AliasChange = read_as(AliasChange, renamed, "the line")
    except ValueError as error:
        raise ValueError(f"is no change of an alias: {error}") from None
    if change.hash != hash_of(data):
        raise ValueError("was edited: its hash does not hold")
    return change


def hash_of(data: Mapping[str, Any]) -> str:
    """Hash a line's object without its own hash: SHA-256, hex."""
    return hashlib.sha256(_text({key: data[key] for key in KEYS}).encode()).hexdigest()


def line_of(change: AliasChange) -> bytes:
    """Format a change as a line of the file, in ASCII."""
    return (_text(change.as_dict()) + "\n").encode()


def _text(data: Mapping[str, Any]) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


# -- the file ---------------------------------------------------------------------------------------------------------


def releases_root(given: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of all released names: as given, else PROMPTASSAY_RELEASES, else runs/releases."""
    return Path(given if given is not None else os.environ.get(ROOT_VARIABLE) or DEFAULT_ROOT)


def _whole_lines(folder: Path) -> list[bytes]:
    try:
        raw = read_file(folder / ALIASES_FILE, MAX_FILE)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ReleaseError(
            f"{folder / ALIASES_FILE}: cannot be read ({reason}); make it readable, or give a fallback"
        ) from error
    return raw[: raw.rfind(b"\n") + 1].splitlines()


def read_history(folder: Path) -> list[AliasChange]:
    """Read and verify every change, oldest first. Raises ReleaseError at the first invalid line."""
    history: list[AliasChange] = []
    prev = GENESIS
    for number, line in enumerate(_whole_lines(folder), 1):
        change = _change(folder, number, line)
        _require_name(folder, number, change)
        if (change.seq, change.prev) != (number, prev):
            raise _damaged(folder, number, "does not follow from the line before it")
        history.append(change)
        prev = change.hash
    return history


def latest(folder: Path, alias: str) -> AliasChange | None:
    """Return the last change of an alias: its current meaning. Verifies that line alone."""
    lines = _whole_lines(folder)
    for number in range(len(lines), 0, -1):
        change = _change(folder, number, lines[number - 1])
        if change.alias == alias:
            _require_name(folder, number, change)
            return change
    return None


def current(history: Sequence[AliasChange]) -> dict[str, AliasChange]:
    """Return the last change of each alias."""
    return {change.alias: change for change in history}


def in_force(history: Sequence[AliasChange], alias: str) -> list[AliasChange]:
    """Return the promotions of an alias that were not rolled back, oldest first."""
    kept: list[AliasChange] = []
    for change in history:
        if change.alias == alias and change.action == "rollback":
            del kept[-1:]
        elif change.alias == alias:
            kept.append(change)
    return kept


@lru_cache(maxsize=4096)
def _read(line: bytes) -> AliasChange:
    return change_from(parse_json(line))


def _change(folder: Path, number: int, line: bytes) -> AliasChange:
    try:
        return _read(line)
    except ValueError as error:
        why = "is not JSON" if isinstance(error, json.JSONDecodeError | UnicodeDecodeError) else str(error)
        raise _damaged(folder, number, why) from None


def _require_name(folder: Path, number: int, change: AliasChange) -> None:
    if change.name != folder.name:
        raise ReleaseError(
            f"{folder / ALIASES_FILE}:{number}: belongs to {change.name!r:.60}; rename the folder back, "
            "or move it away if it is a copy"
        )


def _damaged(folder: Path, number: int, why: str) -> ReleaseError:
    return ReleaseError(
        f"{folder / ALIASES_FILE}:{number}: {why}; restore a copy, or move it away: `optimize promote` "
        "rewrites it from the ledger"
    )


# -- references ------------ -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference NAME@ALIAS or NAME@VERSION."""

    name: str
    word: str

    @staticmethod
    def of(text: str) -> Reference | None:
        """Parse a reference; None for any other text, such as a path."""
        name, at, word = text.partition("@")
        fits = at and NAME.fullmatch(name) and (ALIAS.fullmatch(word) or VERSION.fullmatch(word))
        return Reference(name, word) if fits else None

    def __str__(self) -> str:
        return f"{self.name}@{self.word}"


@dataclass(frozen=True, slots=True)
class ResolvedVersion:
    """The version that a reference means, the alias it came by, and the arm of an A/B alias ("" for the others)."""

    version: str
    alias: str = ""
    arm: str = ""


def resolve(root: Path, reference: Reference, unit: str | None = None) -> ResolvedVersion:
    """Return the version of a reference; an A/B alias (with a share) assigns the `unit`.

    Raises NeedsUnit for an A/B alias without a unit, ReleaseError for an unknown alias or a damaged history.
    """
    if VERSION.fullmatch(reference.word):
        return ResolvedVersion(reference.word)
    folder = root / reference.name
    change = latest(folder, reference.word)
    if change is None:
        raise ReleaseError(f"{folder}: {_lacking(root, reference)}; `optimize promote` sets an alias")
    if change.share is None:
        return ResolvedVersion(change.version, change.alias)
    if unit is None:
        raise NeedsUnit(f"{reference} is an A/B alias and needs a unit; pass unit=ID")
    if bucket(reference.name, unit) < change.share:
        return ResolvedVersion(change.version, change.alias, CANDIDATE_ARM)
    production = latest(folder, PRODUCTION)
    if production is None:
        raise ReleaseError(f"{folder}: {reference.word} needs the alias {PRODUCTION} for its other arm; promote one")
    return ResolvedVersion(production.version, change.alias, PRODUCTION_ARM)


def bucket(name: str, unit: str) -> float:
    """Hash a unit to a fixed place in [0, 1).

    Below the share it gets the candidate, so a larger share only adds units.

    >>> bucket("triage", "user-17") == bucket("triage", "user-17") < 1
    True
    """
    digest = hashlib.sha256(f"{name}\0{unit}".encode("utf-8", "surrogatepass")).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def released_names(root: Path) -> list[str]:
    """Return the names under `root` that have a history, sorted."""
    names = (path.parent.name for path in root.glob(f"*/{ALIASES_FILE}"))
    return sorted(name for name in names if NAME.fullmatch(name))


def _lacking(root: Path, reference: Reference) -> str:
    lines = _whole_lines(root / reference.name)
    if not lines:
        others = [name for name in released_names(root) if name != reference.name]
        return f"no releases of this name; known: {', '.join(others) or 'none'}"
    aliases = sorted({_read(line).alias for line in lines})  # which `latest` has checked
    return f"no alias {reference.word!r}; known: {', '.join(aliases)}"
