"""The released texts of a user's own program as data: one file. Knows no alias, no model, no ledger, no program.

    RUN/texts.json, ROOT/NAME/VERSION/texts.json

Any language can read it: `texts` is an object of texts by name. The version is a hash of all but name and provenance.
Imports only the standard library and the light parts of this package. A file is data: nothing in it is run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from agent.errors import ReleaseError
from agent.release.prompt_file import FEW, MAX_FILE, only_release_errors, outputs_data, storable
from agent.safe_data import Rule, parse_json, read_as, require_keys
from agent.safe_file import disk_errors, new_files, read_file
from agent.safe_text import SURROGATE
from agent.shipped import Field, content_id

TEXTS_FILE = "texts.json"
MOST_TEXTS = 1_000


def _are_texts(value: Any) -> bool:
    return isinstance(value, Mapping) and 0 < len(value) <= MOST_TEXTS and all(name.isprintable() for name in value)


_TYPES: dict[str, Any] = {
    "name": str,
    "version": str,
    "texts": Annotated[Mapping[str, str], Rule(f"1 to {MOST_TEXTS:,} texts with printable names", _are_texts)],
    "program": str,
    "inputs": Annotated[tuple[str, ...], FEW],
    "outputs": Annotated[tuple[Field, ...], FEW],
    "model": str,
    "parameters": dict[str, Any],
    "provenance": dict[str, Any],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TextsRelease:
    """Released texts by name. `program`: as in task.toml; `inputs` and `outputs`: of its rows and answers.

    `parameters` and `provenance` become plain JSON data, as those of a prompt.
    """

    name: str
    texts: Mapping[str, str]
    program: str
    inputs: tuple[str, ...]
    outputs: tuple[Field, ...]
    model: str
    parameters: Mapping[str, Any]
    provenance: Mapping[str, Any]
    version: str = field(init=False)

    what: ClassVar = "a set of texts"
    loader: ClassVar = "load_texts"

    def __post_init__(self) -> None:
        for name in ("parameters", "provenance"):
            object.__setattr__(self, name, storable(getattr(self, name), name))
        object.__setattr__(self, "version", content_id("t", self._content()))

    def _content(self) -> dict[str, Any]:
        return {
            "texts": dict(self.texts),
            "program": self.program,
            "inputs": list(self.inputs),
            "outputs": outputs_data(self.outputs),
            "model": self.model,
            "parameters": self.parameters,
        }

    @property
    def target(self) -> str:
        return self.model

    @property
    def adapter(self) -> None:
        return None

    @property
    def reads_tokens(self) -> bool:
        return False

    def write(self, folder: Path) -> Path:
        """Write the file, read back and compared before it is moved into place. Raises ReleaseError."""
        data = {"name": self.name, "version": self.version, **self._content(), "provenance": self.provenance}
        text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        text = SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
        if wrong := [name for name, value in json.loads(text)["texts"].items() if value != self.texts.get(name)]:
            raise ReleaseError(
                f"{self.name!r}: {TEXTS_FILE} cannot hold the text {wrong[0]!r:.60}: half characters that make one; "
                "write it as one"
            )
        with disk_errors(f"{folder}: cannot write the release"), new_files(folder) as staged:
            (staged / TEXTS_FILE).write_bytes(text.encode("utf-8"))
            if read_texts(staged) != self:
                raise ReleaseError(f"{folder / TEXTS_FILE}: the written file differs from the release")
        return folder / TEXTS_FILE


def read_texts(path: str | os.PathLike[str]) -> TextsRelease:
    """Read a texts.json, or a folder with one. Raises ReleaseError, with the file, also if it was edited."""
    with only_release_errors(path):
        file = Path(path)
        if file.is_dir():
            file = file / TEXTS_FILE
    with only_release_errors(file):
        text = read_file(file, MAX_FILE).decode("utf-8")
    return texts_in(text, file)


def texts_in(text: str, file: Path) -> TextsRelease:
    """Parse the text of a texts.json; raises as `read_texts` does."""
    try:
        data = parse_json(text)
        read_as(dict, data, "it")
        require_keys(data, "it", _TYPES, _TYPES)
        read = {key: read_as(kind, data[key], key) for key, kind in _TYPES.items()}
    except ValueError as error:
        why = f"invalid JSON ({error})" if isinstance(error, json.JSONDecodeError) else error
        raise ReleaseError(f"{file}: is not the {TEXTS_FILE} of a release: {why}; restore the released file") from None
    try:
        release = TextsRelease(**{key: value for key, value in read.items() if key != "version"})
    except ReleaseError as error:
        raise ReleaseError(f"{file}: {error}") from None
    if read["version"] != release.version:
        raise ReleaseError(
            f"{file}: was edited after release or truncated: content {release.version}, version "
            f"{read['version']!r:.60}; restore the released file"
        )
    return release


def kept_texts(folder: Path) -> str | None:
    """Return the file's text, for the ledger; None if it is damaged."""
    try:
        read_texts(folder)
        return (folder / TEXTS_FILE).read_text("utf-8")
    except (OSError, UnicodeDecodeError, ReleaseError):
        return None
