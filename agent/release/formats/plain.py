"""Our own two files: prompt.md for people and diffs, messages.json for programs. `load_prompt` reads both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from agent.release.export import export_markdown, export_messages, verify_file
from agent.release.formats.base import Format, Render, Told, told_by
from agent.release.runtime import MESSAGES_FILE, PROMPT_FILE, PromptRelease, load_prompt


def _opened(name: str) -> Callable[[Path, PromptRelease], Render]:
    def opened(folder: Path, release: PromptRelease) -> Render:
        verify_file(folder / name, release)
        prompt = load_prompt(folder / name)
        return lambda values: prompt.render(**values)

    return opened


def _told(name: str) -> Callable[[Path, PromptRelease], Told]:
    return lambda folder, release: told_by(load_prompt(folder / name).release)


MARKDOWN = Format(
    name="md",
    about="prompt.md: for people and diffs; load_prompt reads it",
    files=lambda material: {PROMPT_FILE: export_markdown(material.release)},
    opened=_opened(PROMPT_FILE),
    told=_told(PROMPT_FILE),
)
MESSAGES = Format(
    name="messages",
    about="messages.json: roles and contents for any program; load_prompt reads it",
    files=lambda material: {MESSAGES_FILE: export_messages(material.release)},
    opened=_opened(MESSAGES_FILE),
    told=_told(MESSAGES_FILE),
)
