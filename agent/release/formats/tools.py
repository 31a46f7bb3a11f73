"""The tools of a released prompt as each provider takes them, for a program that sends the prompt by itself."""

from __future__ import annotations

import json
from pathlib import Path

from agent.errors import ReleaseError
from agent.models.tool_calling import anthropic_tools, openai_tools
from agent.release.formats.export_format import Material, Render, export_format
from agent.release.prompt_file import PromptRelease
from agent.task.tools import read_tools

OPENAI_FILE, ANTHROPIC_FILE = "tools.openai.json", "tools.anthropic.json"


def _load(folder: Path, release: PromptRelease) -> Render | None:
    """Reads both back. Raises a ReleaseError where they are not the tools of the release."""
    wanted = [(tool.name, tool.description.strip(), json.loads(tool.parameters)) for tool in release.tools]
    for name in (OPENAI_FILE, ANTHROPIC_FILE):
        tools, wrong = read_tools(json.loads((folder / name).read_bytes()))
        if wrong or [(tool.name, tool.description, json.loads(tool.parameters)) for tool in tools] != wanted:
            raise ReleaseError(f"{name}: does not hold the tools of the release ({'; '.join(wrong) or 'other texts'})")
    return None


@export_format(
    "tools",
    about="tools.openai.json and tools.anthropic.json: the tools of the prompt as each provider takes them",
    load=_load,
    carries_weights=True,
    carries_picks=True,
    carries_tools=True,
    proof="both files were read back: the tools of the release",
)
def files(material: Material) -> dict[str, str]:
    tools = material.release.tools
    if not tools:
        raise ReleaseError(f"{material.release.name!r}: calls no tools; leave --format tools out")
    forms = {OPENAI_FILE: openai_tools(tools), ANTHROPIC_FILE: anthropic_tools(tools)}
    return {name: json.dumps(form, indent=2, ensure_ascii=False) + "\n" for name, form in forms.items()}
