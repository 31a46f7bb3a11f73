"""The texts of an agent and how it runs, in a task file: the keys `program` and `texts`, and the folder texts/."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.safe_text import listed
from agent.types import Rollouts

if TYPE_CHECKING:
    from agent.task.schema import TaskFile

KIND = "agent"
TEXTS_FOLDER = "texts"
SUFFIXES = (".txt", ".md")
TEXT_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_:. -]{0,79}$"
TEXT_FORM = "letters, digits and _ : . - and blanks, at most 80"


def rollouts_of(file: TaskFile) -> Rollouts | None:
    """Return how the file's agent runs; None for other programs, or without one."""
    program = file.program
    if isinstance(program, str):
        return Rollouts(program, kind=KIND) if ".py:" in program else None
    command = program.command or ()
    words = tuple(shlex.split(command)) if isinstance(command, str) else tuple(command)
    limits = program.seconds, program.most_calls, program.at_once
    return Rollouts(program.run or "", "", words, *limits, kind=KIND)


def text_files(folder: Path) -> dict[str, Path]:
    """Return the files of a folder of texts, if there is one, by text name."""
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return {path.stem: path for path in found if path.suffix in SUFFIXES}


def text_faults(texts: Any) -> list[str]:
    """Return what is wrong with texts by name."""
    if not isinstance(texts, Mapping) or not texts:
        return ["has no texts; write an object of names and texts"]
    wrong = [name for name in texts if not isinstance(name, str) or re.fullmatch(TEXT_NAME, name) is None]
    empty = [name for name, text in texts.items() if not isinstance(text, str) or not text.strip()]
    named = [f"{name!r:.90} is no name of a text; write {TEXT_FORM}" for name in wrong]
    return [*named, *(f"{name}: is no text; write one" for name in empty)]


def how_to_write(function: str) -> str:
    """Say what the function of an agent looks like."""
    return f"write def {function}(texts, row, model), sync or async"


def program_faults(file: TaskFile, texts: Mapping[str, str], has_folder: bool) -> Iterator[tuple[str, str]]:
    """Yield what is wrong between the keys, as dotted key and problem."""
    agent, program = rollouts_of(file), file.program
    if has_folder and file.texts:
        yield "texts", f"[texts] and the folder {TEXTS_FOLDER}/ are both there; keep one of them"
    if agent is None:
        if texts:
            yield "texts", 'texts are those of an agent; name it, as program = "agent.py:run", or take them out'
        elif not file.instruction:
            yield "instruction", "the key 'instruction' is missing; write it"
        return
    if not isinstance(program, str) and bool(program.run) == bool(program.command):
        yield "program", 'write either run = "agent.py:run" or command = "..."'
    if not texts:
        yield "texts", f"the texts of the agent are missing; write them below [texts], or as files in {TEXTS_FOLDER}/"
    if file.instruction:
        yield "instruction", "an agent's instructions are its [texts]; move it there, and take instruction out"
    if "techniques" in file.search.model_fields_set or "formats" in file.search.model_fields_set:
        keys = [key for key in ("techniques", "formats") if key in file.search.model_fields_set]
        yield f"search.{keys[0]}", f"an agent lays out its own prompts; take {listed(keys)} out"
