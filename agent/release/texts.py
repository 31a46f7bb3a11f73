"""Load released texts: the part that a user's own program ships with. Imports what loading a prompt imports.

`load_texts("home_agent@production")["planner"]` is the current text of the alias.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from agent.prompt.template import label_text
from agent.release.runtime import LoadedRelease, Prompt, load_prompt, located
from agent.release.texts_file import TEXTS_FILE, TextsRelease, read_texts
from agent.safe_data import parse_json
from agent.shipped import Prediction


@dataclass(frozen=True, slots=True, eq=False)
class Texts(LoadedRelease, Mapping[str, str]):
    """Released texts by name, read-only. `alias`, `arm` and `fallback_reason` are as of a loaded prompt."""

    release: TextsRelease
    alias: str = ""
    arm: str = ""
    fallback_reason: str = ""

    def __getitem__(self, name: str) -> str:
        return self.release.texts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.release.texts)

    def __len__(self) -> int:
        return len(self.release.texts)

    @property
    def model(self) -> str:
        """The name of the model that answered the program's calls."""
        return self.release.model

    @property
    def abstain_below(self) -> None:
        """Answers have no confidence."""
        return None

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
