r"""A Prompty v2 file: YAML front matter, then `role:` lines, Jinja2 inside. Knows what its parser does to texts.

The library renders the whole file to one text and cuts that into messages afterwards. So it takes no message, fixed or
filled, that holds a line such as `user:` (with `strict`, which is on, it raises), any line end but \n, or empty lines
at its edges.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from agent.errors import ReleaseError
from agent.extras import command
from agent.prompt.template import fill_messages
from agent.release.formats.escaping import jinja, yaml_quoted
from agent.release.formats.export_format import (
    Material,
    Render,
    Sent,
    Settings,
    Values,
    compatible_parts,
    export_format,
    no_lone_surrogates,
    parts_of,
)
from agent.release.runtime import PromptRelease

FILE = "prompt.prompty"
_ROLE_LINE = re.compile(r"\s*(?:#\s*)?(?:system|user|assistant|developer)(?:\[.*\])?\s*:\s*", re.IGNORECASE)


def _unfit(release: PromptRelease, values: Values) -> str:
    if half := no_lone_surrogates(release, values):
        return half
    for message in fill_messages(release.messages, values):
        lines = message.content.splitlines()
        if any(_ROLE_LINE.fullmatch(line.strip()) for line in lines):
            return "a line that names a role, such as `user:`"
        if "\n".join(lines).strip("\n") != message.content:
            return "line ends other than \\n, and empty lines at the edge of a message"
    return ""


def _model(release: PromptRelease) -> list[str]:
    """The model that was scored. Prompty would resolve what begins with `${`, so such a name is left out.

    It sends no key of the environment to an address that a file names; without a key in it the file cannot be loaded.
    """
    name, address = compatible_parts(release.model)
    name = name or release.model.partition("/")[2] or release.model
    if not name or any(text.startswith("${") for text in (release.model, name, address)):
        return []
    lines = ["model:", f"  id: {yaml_quoted(name)}"]
    if address:
        lines += ["  provider: openai", "  connection:", "    kind: key"]
        lines += [f"    endpoint: {yaml_quoted(address)}", "    apiKey: none"]
    options = {"maxOutputTokens": "max_tokens", "temperature": "temperature"}
    known = [f"    {key}: {release.parameters[ours]}" for key, ours in options.items() if ours in release.parameters]
    return [*lines, "  options:", *known] if known else lines


def _settings(folder: Path, release: PromptRelease) -> Settings:
    """The file has the model's own name, and no provider but for a server with an address."""
    import prompty

    model: Any = prompty.load(folder / FILE).model
    if model is None:
        return {}
    settings = {"model": f"{release.model.partition('/')[0]}/{model.id}" if "/" in release.model else model.id}
    if address := getattr(model.connection, "endpoint", None):
        settings = {"model": f"openai-compatible/{model.id}@{address}"}
    names = {"max_output_tokens": "max_tokens", "temperature": "temperature", "stop_sequences": "stop", "seed": "seed"}
    options = {ours: getattr(model.options, theirs, None) for theirs, ours in names.items()}
    return settings | {name: value for name, value in options.items() if value is not None}


def _load(folder: Path, release: PromptRelease) -> Render:
    import prompty

    agent = prompty.load(folder / FILE)

    def render(values: Values) -> Sent:
        return [
            {"role": message.role, "content": "".join(part.value for part in message.parts)}
            for message in prompty.prepare(agent, inputs=dict(values))
        ]

    return render


@export_format(
    "prompty",
    about="prompt.prompty: Prompty v2; prompty.prepare(prompty.load(path), {...})",
    load=_load,
    settings=_settings,
    library="prompty",
    install=command("exports"),
    unfit=_unfit,
)
def files(material: Material) -> dict[str, str]:
    release = material.release
    if reason := _unfit(release, dict.fromkeys(release.inputs, "plain")):
        raise ReleaseError(f"{release.name!r}: Prompty cannot carry {reason}, which the prompt itself holds")
    lines = ["---", f"name: {yaml_quoted(release.name)}", f"description: {yaml_quoted(f'release {release.version}')}"]
    lines += _model(release)
    if release.inputs:
        lines.append("inputs:")
    for name in release.inputs:
        lines += [f"  - name: {yaml_quoted(name)}", "    kind: string", "    required: true"]
    lines += ["template:", "  format:", "    kind: jinja2", "    strict: true", "  parser:", "    kind: prompty", "---"]
    body = "".join(f"{role}:\n{jinja(parts)}\n\n" for role, parts in parts_of(release))
    return {FILE: "\n".join(lines) + "\n" + body}
