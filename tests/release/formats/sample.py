"""A small release, and what a format makes of hostile rows with the real library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.errors import ReleaseError
from agent.release.formats.export_format import FORMATS, Format, Material
from agent.release.formats.proof import VerifiedExport, verify_exports
from agent.release.runtime import PromptRelease
from agent.types import Field, Message


def release(*messages: Message, **changes: Any) -> PromptRelease:
    """Examples as turns, and the value of the row alone as the last one, as a search usually ships."""
    system = Message("system", "Route the message.\nTeams: billing, account changes")
    shown = (Message("user", "Refund me"), Message("assistant", "billing"))
    values: dict[str, Any] = {
        "name": "support_triage",
        "messages": messages or (system, *shown, Message("user", "{{message}}")),
        "inputs": ("message",),
        "outputs": (Field("team", "choice", "Who answers.", ("billing", "account changes")),),
        "format": "turns",
        "reasoning": False,
        "model": "openai/gpt-x",
        "parameters": {"max_tokens": 64, "temperature": 0.0},
        "provenance": {"run_id": "r_1", "trial": 12, "decision": "promote"},
    }
    return PromptRelease(**{**values, **changes})


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
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
