"""What an export format is: a name, the files it makes of a release, and the way back from them. Knows no library.

`files` may raise a ReleaseError where the target cannot hold the prompt. `opened` loads the written files with the
target's own library and gives a function from the inputs of a row to the messages that the target sends. `told` gives
what the files say of the model and the parameters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from agent.errors import ReleaseError
from agent.prompt.template import split
from agent.release.formats.catalog import FORMATS
from agent.release.runtime import PromptRelease
from agent.types import Prediction, Task

Values = Mapping[str, str]
Sent = list[dict[str, str]]
Render = Callable[[Values], Sent]
Read = Callable[[Values, str], Prediction]
"""From a row and a reply to it to what the target makes of the reply."""
Told = dict[str, Any]
"""What stands in the files of an export beside the messages, by our names: `model`, `max_tokens`, `temperature`, ..."""
Parts = list[str | tuple[str]]


Files = TypeVar("Files", bound=Callable[["Material"], dict[str, str]])


@dataclass(frozen=True, slots=True)
class Material:
    """What an export is made of. `task` is there for the formats that write rows (`needs_task`)."""

    release: PromptRelease
    task: Task | None = None

    @property
    def rows(self) -> Task:
        if self.task is None:
            raise ReleaseError(f"{self.release.name!r}: this format writes rows of the task; the task is needed")
        return self.task


def carried(release: PromptRelease, values: Values) -> str:
    """The `unfit` of a target that carries any text."""
    return ""


def found(library: str) -> str:
    """`name version` of an installed distribution, or ""."""
    try:
        return f"{library} {version(library)}"
    except PackageNotFoundError:
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One target. `library`: its distribution name, "" for none; `install`: how to get it.

    `unfit` says why the target cannot carry certain values whatever is written, "" where it can. What it names is told
    to the user; everything else must come out byte for byte.
    """

    name: str
    about: str
    files: Callable[[Material], dict[str, str]]
    opened: Callable[[Path, PromptRelease], Render | None]
    library: str = ""
    install: str = ""
    unfit: Callable[[PromptRelease, Values], str] = carried
    reads: Callable[[Path, PromptRelease], Read] | None = None
    """Of a target that reads replies itself; the others leave that to the program."""
    told: Callable[[Path, PromptRelease], Told] | None = None
    """Of a target whose files hold the model or parameters: read back from them, as `opened` reads the messages."""
    needs_task: bool = False
    finder: Callable[[str], str] = found
    """Name and version of the installed library, "" where it is missing."""
    unsent: str = ""
    """Where the target sends messages only: how its user gives the parameters to the model."""
    proof: str = ""
    """Of a format that is no template, whose `opened` is None: what `files` proved by itself."""


def export_format(
    name: str,
    *,
    about: str,
    opened: Callable[[Path, PromptRelease], Render | None],
    library: str = "",
    install: str = "",
    unfit: Callable[[PromptRelease, Values], str] = carried,
    reads: Callable[[Path, PromptRelease], Read] | None = None,
    told: Callable[[Path, PromptRelease], Told] | None = None,
    needs_task: bool = False,
    finder: Callable[[str], str] = found,
    unsent: str = "",
    proof: str = "",
) -> Callable[[Files], Files]:
    """Registers the function below, which makes the files, as the format `name`; see `Format`."""

    def register(files: Files) -> Files:
        made = Format(
            name=name,
            about=about,
            files=files,
            opened=opened,
            library=library,
            install=install,
            unfit=unfit,
            reads=reads,
            told=told,
            needs_task=needs_task,
            finder=finder,
            unsent=unsent,
            proof=proof,
        )
        FORMATS.add(name, made, files.__module__)
        return files

    return register


def parts_of(release: PromptRelease) -> list[tuple[str, Parts]]:
    """Each message as its role and its parts: a str is fixed text, a 1-tuple the name of an input."""
    return [(message.role, split(message.content, release.inputs)) for message in release.messages]


def no_half_characters(release: PromptRelease, values: Values) -> str:
    """The `unfit` of a target that keeps text as UTF-8."""
    return "half a character (a lone surrogate)" if any(map(_HALF.search, values.values())) else ""


_HALF = re.compile("[\ud800-\udfff]")


def told_by(release: PromptRelease) -> Told:
    """What a release says itself."""
    return {"model": release.model, **release.parameters}


def hosted_name(model: str, provider: str) -> str:
    """The model's own name where it belongs to `provider`, else ""."""
    found, _, name = model.partition("/")
    return name if found == provider else ""


def compatible_parts(model: str) -> tuple[str, str]:
    """Name and address of `openai-compatible/NAME@ADDRESS`; two empty texts for any other model."""
    name, _, address = hosted_name(model, "openai-compatible").rpartition("@")
    return name, address
