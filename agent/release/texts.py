"""The released texts of a user's own program as data: one file, and the part that loads it in that program.

    RUN/texts.json, ROOT/NAME/VERSION/texts.json

Any language can read it: `texts` is an object of texts by name. The version is a hash of all but name and provenance.
`load_texts("home_agent@production")["planner"]` is the current text of the alias. A file is data: nothing in it is run.
Imports what loading a prompt imports. Knows no model, no ledger, no program.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeAlias

from agent.errors import ReleaseError
from agent.prompt.template import label_text
from agent.release.prompt_file import FEW, MAX_FILE, only_release_errors, outputs_data, require_version, storable
from agent.release.runtime import LoadedRelease, Prompt, load_prompt, located
from agent.safe_data import Rule, parse_json, read_as
from agent.safe_file import disk_errors, new_files, read_file
from agent.safe_text import SURROGATE
from agent.shipped import Field, Prediction, content_id

TEXTS_FILE = "texts.json"
MOST_TEXTS = 1_000


def _are_texts(value: Any) -> bool:
    return isinstance(value, Mapping) and 0 < len(value) <= MOST_TEXTS and all(name.isprintable() for name in value)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextsRelease:
    """Released texts by name. `program`: as in task.toml; `inputs` and `outputs`: of its rows and answers.

    `parameters` and `provenance` become plain JSON data, as those of a prompt.
    """

    name: str
    texts: Annotated[Mapping[str, str], Rule(f"1 to {MOST_TEXTS:,} texts with printable names", _are_texts)]
    program: str
    inputs: Annotated[tuple[str, ...], FEW]
    outputs: Annotated[tuple[Field, ...], FEW]
    model: str
    parameters: Mapping[str, Any]
    provenance: Mapping[str, Any]
    version: str = field(init=False)

    what: ClassVar = "a set of texts"
    loader: ClassVar = "load_texts"
    reads_tokens: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name in ("parameters", "provenance"):
            object.__setattr__(self, name, storable(getattr(self, name), name))
        object.__setattr__(self, "version", content_id("t", self._content()))

    def _content(self) -> dict[str, Any]:
        told = {"texts": dict(self.texts), "program": self.program, "inputs": list(self.inputs)}
        return {**told, "outputs": outputs_data(self.outputs), "model": self.model, "parameters": self.parameters}

    @property
    def target(self) -> str:
        return self.model

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
        data = dict(read_as(dict, parse_json(text), "it"))
        version = read_as(str, data.pop("version", None), "version")
        release: TextsRelease = read_as(TextsRelease, data, "release")
    except ReleaseError as error:
        raise ReleaseError(f"{file}: {error}") from None
    except ValueError as error:
        why = f"invalid JSON ({error})" if isinstance(error, json.JSONDecodeError) else error
        raise ReleaseError(f"{file}: is not the {TEXTS_FILE} of a release: {why}; restore the released file") from None
    require_version(file, release.version, version)
    return release


def kept_texts(folder: Path) -> str | None:
    """Return the file's text, for the ledger; None if it is damaged."""
    try:
        read_texts(folder)
        return (folder / TEXTS_FILE).read_text("utf-8")
    except (OSError, UnicodeDecodeError, ReleaseError):
        return None


# -- loading -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Texts(LoadedRelease, Mapping[str, str]):
    """Released texts by name, read-only."""

    release: TextsRelease

    def __getitem__(self, name: str) -> str:
        return self.release.texts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.release.texts)

    def __len__(self) -> int:
        return len(self.release.texts)

    def parse(self, reply: str) -> Prediction:
        """Read an answer of the program that was kept as text.

        It is a text like a model's reply, or a JSON object of the outputs, whose other keys are left out. Never raises.
        """
        from agent.prompt.reply_parser import parse_reply  # takes time, and who only loads texts does without

        outputs = self.release.outputs
        with suppress(ValueError):
            found = parse_json(reply)
            if isinstance(found, dict) and all(field.name in found for field in outputs):
                read = {field.name: parse_reply(label_text(found[field.name]), (field,)) for field in outputs}
                fields = {name: value for each in read.values() for name, value in each.fields.items()}
                wrong = [f"{name}: {each.error}" for name, each in read.items() if each.error]
                return Prediction(fields, reply, " ".join(wrong))
        return parse_reply(reply, outputs)


def load_texts(
    path: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    fallback: str | os.PathLike[str] | None = None,
    unit: str | None = None,
) -> Texts:
    """Load the released texts of your own program.

    Args:
        path: "NAME@ALIAS", "NAME@VERSION", or the path of a texts.json or of its folder.
        root: The folder of the releases; default: PROMPTASSAY_RELEASES, else runs/releases.
        fallback: Path of a texts.json that ships with your program, loaded if the other cannot be; this is logged and
            kept as `fallback_reason`.
        unit: A text that assigns an arm of an A/B alias. A wrong type, or none for an A/B alias, is a bug in the
            program and raises even with a fallback.

    Returns:
        A read-only mapping of texts by name, with `name`, `version`, `model`, `parameters` and `provenance`.

    Raises:
        ReleaseError: One line with the file: it cannot be read, was edited, or holds no texts.

    Example:
        >>> pa.load_texts("home_agent@production")["planner"]  # doctest: +SKIP
    """
    release, _, how = located(path, read_texts, ("t", TEXTS_FILE), root=root, fallback=fallback, unit=unit)
    return Texts(release, **how)


Loaded: TypeAlias = Prompt | Texts
"""What checks and monitors take: a release whose answers can be read."""


def load_released(file: Path) -> Loaded:
    """Load a texts.json, or any other file as a prompt. Raises ReleaseError."""
    return load_texts(file) if file.name == TEXTS_FILE else load_prompt(file)
