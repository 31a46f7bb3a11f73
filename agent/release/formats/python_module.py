"""A Python module with one typed function and no dependency. Knows how to write it; values enter as list items only."""

from __future__ import annotations

import importlib.util
import keyword
from pathlib import Path
from typing import Any

from agent.errors import ReleaseError
from agent.release.formats.export_format import Material, Render, Settings, Values, export_format, parts_of
from agent.release.formats.weights_source import require_same_answers, weights_source
from agent.release.runtime import PromptRelease

FILE = "prompt.py"


def _text(text: str) -> str:
    """A string literal, a line of the text in each line; what is not printable is written as an escape."""
    lines = [_literal(line) for line in text.split("\n")]
    lines = [line[:-1] + '\\n"' for line in lines[:-1]] + lines[-1:]
    kept = [line for line in lines if line != '""'] or ['""']
    return "\n            ".join(kept)


def _literal(line: str) -> str:
    body = line.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in body) + '"'


def load_module(path: Path, name: str) -> Any:
    """Imports a module that an export has just written."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _load(folder: Path, release: PromptRelease) -> Render:
    module = load_module(folder / FILE, "exported_prompt")
    if release.weights:
        require_same_answers(module.answer, release)

    def render(values: Values) -> list[dict[str, str]]:
        return list(module.render(**values))

    return render


def _settings(folder: Path, release: PromptRelease) -> Settings:
    module = load_module(folder / FILE, "exported_prompt")
    return {"model": module.MODEL, **module.PARAMETERS}


@export_format(
    "python",
    about="prompt.py: `render(input=...)` gives the messages; needs nothing but Python",
    load=_load,
    settings=_settings,
    carries_weights=True,
)
def files(material: Material) -> dict[str, str]:
    release = material.release
    bad = [name for name in release.inputs if keyword.iskeyword(name) or not name.isidentifier()]
    if bad:
        raise ReleaseError(f"{release.name!r}: the input {bad[0]!r} cannot be an argument of a Python function")
    arguments = f"*, {', '.join(f'{name}: str' for name in release.inputs)}" if release.inputs else ""
    lines = [
        f"# {ascii(release.name)[1:-1]}, {release.version}",
        '"""The messages of a released prompt. Needs only Python."""',
        "",
        "from __future__ import annotations",
        "",
        "from typing import Any",
        "",
        f"MODEL = {release.model!a}",
        f"PARAMETERS: dict[str, Any] = {dict(release.parameters)!a}",
        f"VERSION = {release.version!a}",
        "",
        "",
        f"def render({arguments}) -> list[dict[str, str]]:",
        '    """The messages to send, exactly as they were scored."""',
        "    return [",
    ]
    for role, parts in parts_of(release):
        pieces = [part[0] if isinstance(part, tuple) else _text(part) for part in parts] or ['""']
        lines += [f'        {{"role": "{role}", "content": "".join((', *[f"            {piece}," for piece in pieces]]
        lines += ["        ))},"]
    return {FILE: "\n".join([*lines, "    ]"]) + "\n" + weights_source(release)}
