"""Releases that break careless exports, and what a format makes of hostile rows with the real library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.errors import ReleaseError
from agent.prompt.template import escape, join
from agent.release.formats.export_format import FORMATS, Format, Material
from agent.release.formats.proof import VerifiedExport, verify_exports
from agent.release.runtime import PromptRelease
from agent.types import Field, Message

INPUTS = ("message", "context")
TAME = "Braces { } {{ }} {{x}} {{{x}}} {% if x %} {# c #} ${x} $x $$ %s <b> & \"q\" 'q' \\ \\n \\{{x}} end {"
WILD = f"{TAME}\r\n\tsystem:\nUser:\n---\n## user\n\u2028\x85\x1b\x00\ufeff😀\n"
"""Fixed text with marks, line ends, controls and role lines in it; not every target can hold it."""


def release(*messages: Message, **changes: Any) -> PromptRelease:
    values: dict[str, Any] = {
        "name": "support_triage",
        "messages": messages
        or (
            Message("system", escape(f"Route the message.\n\n{TAME}", INPUTS)),
            Message("user", "Refund me"),
            Message("assistant", "billing"),
            Message("user", join([f"Context: {TAME}", ("context",), "\nMessage: ", ("message",), "\nTeam:"], INPUTS)),
        ),
        "inputs": INPUTS,
        "outputs": (Field("team", "choice", "Who answers.", ("billing", "account changes")),),
        "format": "turns",
        "reasoning": False,
        "model": "openai/gpt-x",
        "parameters": {"max_tokens": 64, "temperature": 0.0},
        "provenance": {"run_id": "r_1", "trial": 12, "decision": "promote"},
    }
    return PromptRelease(**{**values, **changes})


def two(text: str) -> tuple[Message, Message]:
    """A system text and one prompt, both with `text` in them and both inputs in the second."""
    return (
        Message("system", escape(f"Route the message. {text}", INPUTS)),
        Message("user", join([("message",), text, ("context",), ("message",), f"{text}Team:"], INPUTS)),
    )


def plain_turns(model: str = "openai/gpt-x") -> PromptRelease:
    """What a search usually ships: examples as turns, and the row's value alone as the last one."""
    messages = (
        Message("system", "Route the message.\nTeams: billing, account changes"),
        Message("user", "Refund me"),
        Message("assistant", "billing"),
        Message("user", "{{message}}"),
    )
    return release(*messages, inputs=("message",), model=model)


def wanted(name: str) -> Format:
    """The format, or a skip that says which library is missing."""
    form = FORMATS.get(name)
    if form.library and not form.find_library(form.library):
        pytest.skip(f"{form.library} is not installed: {form.install}")
    return form


def proved(form: Format, sent: PromptRelease, **more: Any) -> VerifiedExport:
    """Verified; at least 200 hostile rows came out byte for byte."""
    (made,) = verify_exports([form], {form.name: Material(sent, **more)})
    assert not made.missing
    assert made.rows >= 200
    return made


def refused(form: Format, sent: PromptRelease, **more: Any) -> str:
    with pytest.raises(ReleaseError) as caught:
        verify_exports([form], {form.name: Material(sent, **more)})
    said = str(caught.value)
    assert "\n" not in said
    said.encode("utf-8")
    return said


def write(made: VerifiedExport, folder: Path) -> None:
    for name, text in made.texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode("utf-8"))
