"""A template of the command `llm` as YAML: one system text and one prompt, `${name}` for an input, `$$` for a dollar.

A prompt with a single input takes it as `${input}`, what llm reads from its argument or stdin.
"""

from __future__ import annotations

from pathlib import Path

from agent.errors import ReleaseError
from agent.extras import command
from agent.release.formats.escaping import yaml_quoted, yaml_scalar
from agent.release.formats.export_format import (
    Material,
    Parts,
    Render,
    Sent,
    Settings,
    Values,
    export_format,
    hosted_name,
    parts_of,
)
from agent.release.runtime import PromptRelease

FILE = "llm.yaml"


def _options(release: PromptRelease) -> list[str]:
    return [f"  {key}: {release.parameters[key]}" for key in ("temperature", "max_tokens") if key in release.parameters]


def _template(parts: Parts, release: PromptRelease) -> str:
    def mark(name: str) -> str:
        return "${input}" if len(release.inputs) == 1 else "${" + name + "}"

    return "".join(mark(part[0]) if isinstance(part, tuple) else part.replace("$", "$$") for part in parts)


def _load(folder: Path, release: PromptRelease) -> Render:
    from llm.cli import load_template

    template = load_template(str(folder / FILE))

    def render(values: Values) -> Sent:
        alone = next(iter(values.values())) if len(release.inputs) == 1 else ""
        prompt, system = template.evaluate(alone, {} if len(release.inputs) == 1 else dict(values))
        top = [] if system is None else [{"role": "system", "content": system}]
        return [*top, {"role": "user", "content": prompt or ""}]

    return render


def _settings(folder: Path, release: PromptRelease) -> Settings:
    from llm.cli import load_template

    template = load_template(str(folder / FILE))
    return {**({"model": f"openai/{template.model}"} if template.model else {}), **(template.options or {})}


@export_format(
    "llm",
    about="llm.yaml: a template for `llm -t llm.yaml`; one system text and one prompt only",
    load=_load,
    settings=_settings,
    library="llm",
    install=command("exports"),
)
def files(material: Material) -> dict[str, str]:
    release = material.release
    messages = parts_of(release)
    roles = [role for role, _ in messages]
    if roles not in (["system", "user"], ["user"]):
        raise ReleaseError(
            f"{release.name!r}: an llm template holds one system text and one prompt, not the {len(roles)} messages "
            f"({', '.join(roles[:8])}) of this release; use another format, or optimize with the layout inline"
        )
    lines = [f"# {' '.join(release.name.split())}, {release.version}"]
    if model := hosted_name(release.model, "openai"):
        lines.append(f"model: {yaml_quoted(model)}")
        lines += ["options:", *_options(release)] if _options(release) else []
    for key, (_, parts) in zip(("system", "prompt")[-len(messages) :], messages, strict=True):
        lines.append(f"{key}: {yaml_scalar(_template(parts, release), 2)}")
    return {FILE: "\n".join(lines) + "\n"}
