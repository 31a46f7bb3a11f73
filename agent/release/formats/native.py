"""Our own two files: prompt.md for people and diffs, messages.json for programs. `load_prompt` reads both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from agent.release.export import export_markdown, export_messages, rendered, verify_file
from agent.release.formats.export_format import Material, Render, Settings, export_format, settings_of
from agent.release.runtime import MESSAGES_FILE, PROMPT_FILE, PromptRelease, load_prompt


def _load(name: str) -> Callable[[Path, PromptRelease], Render]:
    def opened(folder: Path, release: PromptRelease) -> Render:
        verify_file(folder / name, release)
        prompt = load_prompt(folder / name)
        return lambda values: rendered(prompt, values)

    return opened


def _settings(name: str) -> Callable[[Path, PromptRelease], Settings]:
    return lambda folder, release: settings_of(load_prompt(folder / name).release)


@export_format(
    "md",
    about="prompt.md: for people and diffs; load_prompt reads it",
    load=_load(PROMPT_FILE),
    settings=_settings(PROMPT_FILE),
    carries_weights=True,
    carries_picks=True,
    carries_conversation=True,
    carries_tools=True,
)
def markdown(material: Material) -> dict[str, str]:
    return {PROMPT_FILE: export_markdown(material.release)}


@export_format(
    "messages",
    about="messages.json: roles and contents for any program; load_prompt reads it",
    load=_load(MESSAGES_FILE),
    settings=_settings(MESSAGES_FILE),
    carries_weights=True,
    carries_picks=True,
    carries_conversation=True,
    carries_tools=True,
)
def messages(material: Material) -> dict[str, str]:
    return {MESSAGES_FILE: export_messages(material.release)}
