"""Our own two files: prompt.md for people and diffs, messages.json for programs. `load_prompt` reads both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from agent.release.export import export_markdown, export_messages, verify_file
from agent.release.formats.base import Material, Render, Told, export_format, told_by
from agent.release.runtime import MESSAGES_FILE, PROMPT_FILE, PromptRelease, load_prompt


def _opened(name: str) -> Callable[[Path, PromptRelease], Render]:
    def opened(folder: Path, release: PromptRelease) -> Render:
        verify_file(folder / name, release)
        prompt = load_prompt(folder / name)
        return lambda values: prompt.render(**values)

    return opened


def _told(name: str) -> Callable[[Path, PromptRelease], Told]:
    return lambda folder, release: told_by(load_prompt(folder / name).release)


@export_format(
    "md",
    about="prompt.md: for people and diffs; load_prompt reads it",
    opened=_opened(PROMPT_FILE),
    told=_told(PROMPT_FILE),
)
def markdown(material: Material) -> dict[str, str]:
    return {PROMPT_FILE: export_markdown(material.release)}


@export_format(
    "messages",
    about="messages.json: roles and contents for any program; load_prompt reads it",
    opened=_opened(MESSAGES_FILE),
    told=_told(MESSAGES_FILE),
)
def messages(material: Material) -> dict[str, str]:
    return {MESSAGES_FILE: export_messages(material.release)}
