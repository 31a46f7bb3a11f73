"""A Dotprompt file: YAML front matter, then Handlebars with a role tag in the line. Knows what its reader does.

Fixed text that Handlebars would read as its own (braces, backslashes before them) and white space at the very end,
which the reader drops, stand as defaults of inputs of their own. The library finds its messages by `<<<dotprompt:`
marks in the rendered text and leaves out a message that is only white space: such values it cannot carry.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

from agent.errors import ReleaseError
from agent.extras import command
from agent.prompt.template import fill_messages
from agent.release.formats.escaping import yaml_quoted
from agent.release.formats.export_format import (
    Material,
    Render,
    Sent,
    Settings,
    Values,
    export_format,
    no_lone_surrogates,
    parts_of,
)
from agent.release.runtime import PromptRelease

FILE = "prompt.prompt"
_ROLES = {"system": "system", "user": "user", "assistant": "model"}
_OPTIONS = {"maxOutputTokens": "max_tokens", "temperature": "temperature"}
_AWKWARD = re.compile(r"(?<!\\)(?:\\*+\{\{+|\\+\s*\Z)|\{\s*\Z")
_HELPERS = {
    "each", "if", "ifEquals", "history", "json", "log", "lookup", "media", "role", "section", "unless", "unlessEquals",
    "with", "this", "true", "false", "null", "undefined", "else", "as",
}  # fmt: skip


def _unfit(release: PromptRelease, values: Values) -> str:
    if half := no_lone_surrogates(release, values):
        return half
    for message in fill_messages(release.messages, values):
        if "<<<dotprompt:" in message.content:
            return "the mark `<<<dotprompt:`"
        if not message.content.strip():
            return "a message that is empty or only white space"
    return ""


def _source(folder: Path) -> str:
    with open(folder / FILE, encoding="utf-8", newline="") as file:
        return file.read()


def _settings(folder: Path, release: PromptRelease) -> Settings:
    from dotpromptz.dotprompt import Dotprompt

    prompt: Any = Dotprompt().parse(_source(folder))
    settings = {_OPTIONS.get(key, key): value for key, value in (prompt.config or {}).items()}
    return {**settings, "model": prompt.model} if prompt.model else settings


def _load(folder: Path, release: PromptRelease) -> Render:
    from dotpromptz.dotprompt import Dotprompt
    from dotpromptz.typing import DataArgument

    compiled = asyncio.run(Dotprompt().compile(_source(folder)))
    roles = {theirs: ours for ours, theirs in _ROLES.items()}

    def render(values: Values) -> Sent:
        done = asyncio.run(compiled(DataArgument(input=dict(values))))
        return [
            {"role": roles[message.role.value], "content": "".join(part.text for part in message.content)}
            for message in done.messages
        ]

    return render


@export_format(
    "dotprompt",
    about="prompt.prompt: Dotprompt, as Genkit reads it; await (await Dotprompt().compile(text))(...)",
    load=_load,
    settings=_settings,
    library="dotpromptz",
    install=command("exports"),
    unfit=_unfit,
)
def files(material: Material) -> dict[str, str]:
    release = material.release
    if reason := _unfit(release, dict.fromkeys(release.inputs, "plain")):
        raise ReleaseError(f"{release.name!r}: Dotprompt cannot carry {reason}, which the prompt itself holds")
    if bad := sorted(_HELPERS & set(release.inputs)):
        raise ReleaseError(f"{release.name!r}: Dotprompt takes the input {bad[0]!r} for a helper of its own; rename it")
    fixed: dict[str, str] = {}

    def named(found: re.Match[str]) -> str:
        free = (f"literal{number}" for number in range(1, len(fixed) + len(release.inputs) + 2))
        known = (name for name, text in fixed.items() if text == found[0])
        name = next(known, "") or next(one for one in free if one not in fixed and one not in release.inputs)
        fixed[name] = found[0]
        return f"{{{{{name}}}}}"

    body = ""
    for role, parts in parts_of(release):
        body += f'{{{{role "{_ROLES[role]}"}}}}'
        for part in parts:
            body += f"{{{{{part[0]}}}}}" if isinstance(part, tuple) else _AWKWARD.sub(named, part)
    body = re.sub(r"(?<!\s)\s+\Z", named, body)
    lines = ["---"]
    if release.model:
        lines.append(f"model: {yaml_quoted(release.model)}")
    known = [f"  {key}: {release.parameters[ours]}" for key, ours in _OPTIONS.items() if ours in release.parameters]
    lines += ["config:", *known] if known else []
    if release.inputs or fixed:
        lines.append("input:")
    if release.inputs:
        lines += ["  schema:", *(f"    {name}: string" for name in release.inputs)]
    if fixed:
        lines += ["  default:", *(f"    {name}: {yaml_quoted(text)}" for name, text in fixed.items())]
    return {FILE: "\n".join([*lines, "---", body]) + "\n"}
