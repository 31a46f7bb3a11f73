r"""Templates in files: Prompty, Dotprompt, the command `llm` and MLflow; texts written as Jinja2 and YAML.

Jinja2 (and Nunjucks, which reads it the same way) gets as string literals, `{{ "{" }}`: braces that would open a tag,
`#}` (Nunjucks stumbles over it), carriage returns (Jinja makes them line feeds) and a line feed at the very end (Jinja
may drop it).
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.errors import ReleaseError
from agent.extras import command
from agent.prompt.template import placeholder
from agent.release.formats.export_format import (
    Material,
    Opened,
    Parts,
    Sent,
    Settings,
    Values,
    as_sent,
    chosen,
    compatible_parts,
    export_format,
    hosted_name,
    json_text,
    no_lone_surrogates,
    parts_of,
    renamed,
    unfit_by,
    written,
    yaml_options,
)
from agent.release.formats.mlflow import MLFLOW_CODE, provenance_tags, registered_name
from agent.release.prompt_file import PromptRelease

OPENS = re.compile(r"\{(?=[{%#\r]|\n?\Z)|#(?=\})|\r")
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_OPTIONS = {"max_tokens": "maxOutputTokens", "temperature": "temperature"}
_WARMTH_FIRST = {"temperature": "temperature", "max_tokens": "max_tokens"}


def jinja(parts: Parts) -> str:
    """Write a message as a Jinja2 template that renders its fixed text literally.

    >>> jinja(["Use {{x}} for ", ("message",)])
    'Use {{ "{" }}{x}} for {{ message }}'
    """

    def literal(text: str) -> str:
        return OPENS.sub(lambda found: _literal(found[0]), text)

    text = written(parts, lambda name: f"{{{{ {name} }}}}", literal)
    return f"{text[:-1]}{_literal(chr(10))}" if text.endswith("\n") else text


def _literal(char: str) -> str:
    return '{{ "' + _SHORT.get(char, char) + '" }}'


def yaml_quoted(text: str) -> str:
    r"""Quote a text as one line of YAML; escape `---`, which ends front matter.

    >>> print(yaml_quoted('a "b"\n---'))
    "a \"b\"\n\x2D--"
    """
    escaped = "".join(_SHORT.get(char) or (char if char.isprintable() else f"\\U{ord(char):08X}") for char in text)
    return f'"{escaped}"'.replace("---", "\\x2D--")


def _yaml_scalar(text: str, indent: int) -> str:
    lines = text.split("\n")
    if len(lines) == 1 or text != text.strip() or not all(line.isprintable() for line in lines):
        return yaml_quoted(text)
    return "|-\n" + "\n".join(" " * indent + line if line else "" for line in lines)


def _require_carried(target: str, release: PromptRelease, unfit: Callable[[PromptRelease, Values], str]) -> None:
    if why := unfit(release, dict.fromkeys(release.inputs, "plain")):
        raise ReleaseError(f"{release.name!r}: {target} cannot hold {why}, which the prompt contains")


# -- llm: one system text and one prompt, `${name}` for an input, `$$` for a dollar ------------------------------------

_LLM = "llm.yaml"


def _load_llm(folder: Path, release: PromptRelease) -> Opened:
    from llm.cli import load_template

    template = load_template(str(folder / _LLM))

    def render(values: Values) -> Sent:
        alone = next(iter(values.values())) if len(release.inputs) == 1 else ""
        prompt, system = template.evaluate(alone, {} if len(release.inputs) == 1 else dict(values))
        top = [] if system is None else [{"role": "system", "content": system}]
        return [*top, {"role": "user", "content": prompt or ""}]

    model = {"model": f"openai/{template.model}"} if template.model else {}
    return Opened(render, {**model, **(template.options or {})})


@export_format(
    "llm",
    about="llm.yaml: a template for `llm -t llm.yaml`; one system text and one prompt only",
    load=_load_llm,
    library="llm",
    install=command("exports"),
)
def llm_files(material: Material) -> dict[str, str]:
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
        options = yaml_options(release, "  ", _WARMTH_FIRST)
        lines += ["options:", *options] if options else []
    alone = len(release.inputs) == 1
    for key, (_, parts) in zip(("system", "prompt")[-len(messages) :], messages, strict=True):
        text = written(parts, lambda name: f"${{{'input' if alone else name}}}", lambda text: text.replace("$", "$$"))
        lines.append(f"{key}: {_yaml_scalar(text, 2)}")
    return {_LLM: "\n".join(lines) + "\n"}


# -- Prompty v2: YAML front matter, then `role:` lines, Jinja2 inside --------------------------------------------------

_PROMPTY = "prompt.prompty"
_ROLE_LINE = re.compile(r"\s*(?:#\s*)?(?:system|user|assistant|developer)(?:\[.*\])?\s*:\s*", re.IGNORECASE)


@unfit_by
def _prompty_unfit(content: str) -> str:
    # the library splits the rendered text into messages: role lines, other line ends and empty edges get lost
    lines = content.splitlines()
    if any(_ROLE_LINE.fullmatch(line.strip()) for line in lines):
        return "a line that names a role, such as `user:`"
    is_kept = "\n".join(lines).strip("\n") == content
    return "" if is_kept else "line ends other than \\n, and empty lines at the edge of a message"


def _prompty_model(release: PromptRelease) -> list[str]:
    # Prompty resolves what begins with `${`, so such a name is left out. It sends no key of the environment to an
    # address from a file, and cannot load a file without a key.
    name, address = compatible_parts(release.model)
    name = name or release.model.partition("/")[2] or release.model
    if not name or any(text.startswith("${") for text in (release.model, name, address)):
        return []
    lines = ["model:", f"  id: {yaml_quoted(name)}"]
    if address:
        lines += ["  provider: openai", "  connection:", "    kind: key"]
        lines += [f"    endpoint: {yaml_quoted(address)}", "    apiKey: none"]
    options = yaml_options(release, "    ", _OPTIONS)
    return [*lines, "  options:", *options] if options else lines


def _prompty_settings(model: Any, release: PromptRelease) -> Settings:
    if model is None:
        return {}
    settings = {"model": f"{release.model.partition('/')[0]}/{model.id}" if "/" in release.model else model.id}
    if address := getattr(model.connection, "endpoint", None):
        settings = {"model": f"openai-compatible/{model.id}@{address}"}
    names = {"max_output_tokens": "max_tokens", "temperature": "temperature", "stop_sequences": "stop", "seed": "seed"}
    options = {ours: getattr(model.options, theirs, None) for theirs, ours in names.items()}
    return settings | {name: value for name, value in options.items() if value is not None}


def _load_prompty(folder: Path, release: PromptRelease) -> Opened:
    import prompty

    agent = prompty.load(folder / _PROMPTY)

    def render(values: Values) -> Sent:
        return [
            {"role": message.role, "content": "".join(part.value for part in message.parts)}
            for message in prompty.prepare(agent, inputs=dict(values))
        ]

    return Opened(render, _prompty_settings(agent.model, release))


@export_format(
    "prompty",
    about="prompt.prompty: Prompty v2; prompty.prepare(prompty.load(path), {...})",
    load=_load_prompty,
    library="prompty",
    install=command("exports"),
    unfit=_prompty_unfit,
)
def prompty_files(material: Material) -> dict[str, str]:
    release = material.release
    _require_carried("Prompty", release, _prompty_unfit)
    lines = ["---", f"name: {yaml_quoted(release.name)}", f"description: {yaml_quoted(f'release {release.version}')}"]
    lines += _prompty_model(release)
    if release.inputs:
        lines.append("inputs:")
    for name in release.inputs:
        lines += [f"  - name: {yaml_quoted(name)}", "    kind: string", "    required: true"]
    lines += ["template:", "  format:", "    kind: jinja2", "    strict: true", "  parser:", "    kind: prompty", "---"]
    body = "".join(f"{role}:\n{jinja(parts)}\n\n" for role, parts in parts_of(release))
    return {_PROMPTY: "\n".join(lines) + "\n" + body}


# -- Dotprompt: YAML front matter, then Handlebars with a role tag in the line -----------------------------------------
#
# Fixed text that Handlebars would read as its own (braces, backslashes before them) and white space at the very end,
# which the reader drops, become defaults of extra inputs.

_DOTPROMPT = "prompt.prompt"
_DOT_ROLES = {"system": "system", "user": "user", "assistant": "model"}
_AWKWARD = re.compile(r"(?<!\\)(?:\\*+\{\{+|\\+\s*\Z)|\{\s*\Z")
_HELPERS = {
    "each", "if", "ifEquals", "history", "json", "log", "lookup", "media", "role", "section", "unless", "unlessEquals",
    "with", "this", "true", "false", "null", "undefined", "else", "as",
}  # fmt: skip


@unfit_by
def _dotprompt_unfit(content: str) -> str:
    # the library finds messages by marks in the rendered text, and drops one that is only white space
    if "<<<dotprompt:" in content:
        return "the mark `<<<dotprompt:`"
    return "" if content.strip() else "a message that is empty or only white space"


def _load_dotprompt(folder: Path, release: PromptRelease) -> Opened:
    from dotpromptz.dotprompt import Dotprompt
    from dotpromptz.typing import DataArgument

    source = (folder / _DOTPROMPT).read_bytes().decode("utf-8")
    prompt: Any = Dotprompt().parse(source)
    settings = renamed(prompt.config or {}, _OPTIONS)
    compiled = asyncio.run(Dotprompt().compile(source))
    roles = {theirs: ours for ours, theirs in _DOT_ROLES.items()}

    def render(values: Values) -> Sent:
        done = asyncio.run(compiled(DataArgument(input=dict(values))))
        return [
            {"role": roles[message.role.value], "content": "".join(part.text for part in message.content)}
            for message in done.messages
        ]

    return Opened(render, settings | ({"model": prompt.model} if prompt.model else {}))


@export_format(
    "dotprompt",
    about="prompt.prompt: Dotprompt, as Genkit reads it; await (await Dotprompt().compile(text))(...)",
    load=_load_dotprompt,
    library="dotpromptz",
    install=command("exports"),
    unfit=_dotprompt_unfit,
)
def dotprompt_files(material: Material) -> dict[str, str]:
    release = material.release
    _require_carried("Dotprompt", release, _dotprompt_unfit)
    if bad := sorted(_HELPERS & set(release.inputs)):
        raise ReleaseError(f"{release.name!r}: the input {bad[0]!r} is a helper of Dotprompt; rename it")
    fixed: dict[str, str] = {}

    def named(found: re.Match[str]) -> str:
        free = (f"literal{number}" for number in range(1, len(fixed) + len(release.inputs) + 2))
        known = (name for name, text in fixed.items() if text == found[0])
        name = next(known, "") or next(one for one in free if one not in fixed and one not in release.inputs)
        fixed[name] = found[0]
        return f"{{{{{name}}}}}"

    body = ""
    for role, parts in parts_of(release):
        body += f'{{{{role "{_DOT_ROLES[role]}"}}}}'
        body += written(parts, placeholder, lambda text: _AWKWARD.sub(named, text))
    body = re.sub(r"(?<!\s)\s+\Z", named, body)
    lines = ["---"]
    if release.model:
        lines.append(f"model: {yaml_quoted(release.model)}")
    options = yaml_options(release, "  ", _OPTIONS)
    lines += ["config:", *options] if options else []
    if release.inputs or fixed:
        lines.append("input:")
    if release.inputs:
        lines += ["  schema:", *(f"    {name}: string" for name in release.inputs)]
    if fixed:
        lines += ["  default:", *(f"    {name}: {yaml_quoted(text)}" for name, text in fixed.items())]
    return {_DOTPROMPT: "\n".join([*lines, "---", body]) + "\n"}


# -- MLflow: a prompt for its registry, and a script that registers it -------------------------------------------------
#
# MLflow fills `{{ name }}` one input after the other, so a value that holds another input's mark would be filled again,
# and no mark can be written literally. Where a template holds a Jinja tag it uses Jinja2 instead, in one pass. So a
# prompt with one input and no braces in its text stays plain; any other begins with an empty Jinja tag.

_MLFLOW = "mlflow_prompt.json"
_SCRIPT = "register_mlflow.py"
_TAG = "{% if true %}{% endif %}"
_REGISTER = '''"""Register mlflow_prompt.json, next to this file, and point the alias `production` at it.

    MLFLOW_TRACKING_URI=... python register_mlflow.py

In production: mlflow.genai.load_prompt("prompts:/NAME@production").format(INPUT="...") returns the messages.
"""

import json
from pathlib import Path

import mlflow


def register(alias="production"):
    data = json.loads(Path(__file__).with_name("mlflow_prompt.json").read_bytes())
    prompt = mlflow.genai.register_prompt(**data)
    if alias:
        mlflow.genai.set_prompt_alias(data["name"], alias, prompt.version)
    return prompt


if __name__ == "__main__":
    print(register().uri)
'''


def _load_mlflow(folder: Path, release: PromptRelease) -> Opened:
    from mlflow.entities.model_registry import PromptVersion

    data = json.loads((folder / _MLFLOW).read_bytes())
    prompt = PromptVersion(data["name"], 1, data["template"], model_config=data.get("model_config"))
    settings = renamed(prompt.model_config or {}, {"model": "model_name"})
    return Opened(lambda values: as_sent(prompt.format(**values)), settings)


@export_format(
    "mlflow",
    about="mlflow_prompt.json and register_mlflow.py: for MLflow's prompt registry (MLflow 3)",
    as_code=MLFLOW_CODE,
    load=_load_mlflow,
    library="mlflow-skinny",
    install=command("exports"),
    unfit=no_lone_surrogates,
)
def mlflow_files(material: Material) -> dict[str, str]:
    release = material.release
    messages = parts_of(release)
    plain = len(release.inputs) <= 1 and not any(
        re.search(r"\{\{|\{%|\{#|\{\Z", part) for _, parts in messages for part in parts if isinstance(part, str)
    )
    template = [
        {"role": role, "content": written(parts, placeholder) if plain else jinja(parts)} for role, parts in messages
    ]
    if not plain:
        template[0]["content"] = _TAG + template[0]["content"]
    data = {
        "name": registered_name(release),
        "template": template,
        "commit_message": f"release {release.version}",
        "tags": {"release": release.version, **provenance_tags(release)},
    }
    if config := ({"model_name": release.model} if release.model else {}) | chosen(release, _WARMTH_FIRST):
        data["model_config"] = config
    return {_MLFLOW: json_text(data), _SCRIPT: _REGISTER}
