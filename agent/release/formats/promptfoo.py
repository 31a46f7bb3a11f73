"""A promptfoo folder: config, prompt, the dev rows as tests, and an assertion that reads replies as we do.

Knows what promptfoo does to texts: `---` cuts a .txt prompt, so the prompt is JSON; a variable that is a text is
trimmed, filled with others, or loaded when it begins with `file://`, so a row's values are one object, `row`. The texts
of the prompt are Nunjucks templates.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from agent.release.export import as_given, export_messages
from agent.release.formats import promptfoo_code
from agent.release.formats.escaping import jinja, yaml_quoted
from agent.release.formats.export_format import (
    Material,
    Render,
    Sent,
    Settings,
    compatible_parts,
    export_format,
    no_lone_surrogates,
    parts_of,
)
from agent.release.formats.promptfoo_run import FOLDER, Given, asked_rows, echo, find_library, rendered, require_valid
from agent.release.runtime import MESSAGES_FILE, PromptRelease

PROMPT = "prompt.json"
BASE_URL = "OPENAI_COMPATIBLE_BASE_URL"
LOCAL_SERVER = "http://127.0.0.1:8080/v1"
"""Where an exported config looks for the server of a `local/` model, unless BASE_URL says otherwise."""
_SERVED = ("openai-compatible", "local")
_CHECK = '''\
"""The assertion of every test: reads the reply as it was read when it was scored; each field must be the label.

Needs promptassay in the Python that promptfoo runs (PROMPTFOO_PYTHON). Exact equality of fields:
a task with softer metrics scores higher than this.
"""

from pathlib import Path

from promptassay import load_prompt

PROMPT = load_prompt(Path(__file__).with_name("messages.json"))


def get_assert(output, context):
    found = PROMPT.parse(output if isinstance(output, str) else str(output))
    expected = context["vars"]["expected"]
    wrong = [name for name, label in expected.items() if found.fields.get(name) != label]
    reason = found.error or (f"not the label: {', '.join(wrong)}" if wrong else "right")
    return {"pass": not wrong, "score": 1 - len(wrong) / len(expected), "reason": reason}
'''


def _provider(release: PromptRelease) -> list[str]:
    """The model that was scored. One behind a server of your own gets your key for such servers, never OpenAI's."""
    provider, _, name = release.model.partition("/")
    kinds = {"openai": "openai:chat:", "anthropic": "anthropic:messages:"} | dict.fromkeys(_SERVED, "openai:chat:")
    if provider not in kinds:
        return [f"# {' '.join(release.model.split())} is none of promptfoo", "providers:", "  - echo"]
    config = []
    if provider in _SERVED:
        name, base = compatible_parts(release.model) if provider == "openai-compatible" else (name, LOCAL_SERVER)
        address = f"'{base.replace(chr(39), '%27')}'" if base else "env.OPENAI_BASE_URL"
        config = [
            f"apiBaseUrl: {_from_environment(BASE_URL, address)}",
            f"apiKey: {_from_environment('OPENAI_COMPATIBLE_API_KEY', repr('none'))}",
        ]
    config += [
        f"{key}: {release.parameters[key]}" for key in ("max_tokens", "temperature") if key in release.parameters
    ]
    head = ["providers:", f"  - id: {yaml_quoted(kinds[provider] + name)}"]
    return [*head, "    config:", *(f"      {line}" for line in config)] if config else head


def _from_environment(name: str, otherwise: str) -> str:
    return yaml_quoted(f"{{{{ env.{name} | default({otherwise}) }}}}")


def _settings(folder: Path, release: PromptRelease) -> Settings:
    """The provider in the config, by our names. The server of a `local/` model is one that may serve any."""
    import yaml

    (provider,) = yaml.safe_load((folder / FOLDER / "promptfooconfig.yaml").read_bytes())["providers"]
    if provider == "echo":
        return {}
    settings = dict(provider.get("config", {}))
    settings.pop("apiKey", None)
    kind, _, name = provider["id"].split(":", 2)
    server = settings.pop("apiBaseUrl", "")
    address = server.partition("default('")[2].rpartition("')")[0].replace("%27", "'")
    if address == LOCAL_SERVER and release.model.startswith("local/"):
        return {**settings, "model": f"local/{name}"}
    if server and not address:
        return {**settings, "model": f"openai-compatible/{name}"}
    return {**settings, "model": f"openai-compatible/{name}@{address}" if address else f"{kind}/{name}"}


def _load(folder: Path, release: PromptRelease) -> Render:
    """Every row in one evaluation, since each start of promptfoo takes seconds."""

    def echoed(rows: Sequence[Given]) -> list[Sent]:
        return echo(folder, PROMPT, f"file://{PROMPT}", rows)

    require_valid(folder)
    rows = asked_rows(folder, release)
    return rendered(release, zip(rows, echoed(rows), strict=True), echoed)


def _code_files(material: Material) -> dict[str, str]:
    return _folder(
        material, promptfoo_code.FILE, promptfoo_code.REFERENCE, promptfoo_code.function_source(material.release)
    )


def _folder(material: Material, file: str, reference: str, prompt: str) -> dict[str, str]:
    """The whole folder around a file with the prompt."""
    release, task = material.release, material.rows
    tests = [
        {"description": row.id, "vars": {"row": as_given(release, row.inputs), "expected": dict(row.labels)}}
        for row in task.dev
    ]
    lines = [
        f"description: {yaml_quoted(f'{release.name} {release.version}')}",
        "prompts:",
        f"  - {reference}",
        *_provider(release),
        "defaultTest:",
        "  options:",
        "    disableVarExpansion: true",
        "  assert:",
        "    - type: python",
        "      value: file://check.py",
        "tests: file://tests.json",
    ]
    return {
        f"{FOLDER}/promptfooconfig.yaml": "\n".join(lines) + "\n",
        f"{FOLDER}/{file}": prompt,
        f"{FOLDER}/tests.json": json.dumps(tests, indent=1, ensure_ascii=False) + "\n",
        f"{FOLDER}/check.py": _CHECK,
        f"{FOLDER}/{MESSAGES_FILE}": export_messages(release),
    }


_TEMPLATE = export_format(
    "promptfoo",
    about="promptfoo/: config, prompt, the dev rows as tests with an assertion; cd promptfoo; promptfoo eval",
    load=_load,
    settings=_settings,
    library="promptfoo",
    install="npm install -g promptfoo",
    unfit=no_lone_surrogates,
    needs_task=True,
    find_library=find_library,
)
CODE = replace(
    _TEMPLATE,
    about="with a prompt function in Python",
    load=promptfoo_code.load,
    files=_code_files,
    carries_picks=True,
    carries_conversation=True,
)


@replace(_TEMPLATE, as_code=CODE)
def files(material: Material) -> dict[str, str]:
    template = [
        {"role": role, "content": jinja([(f"row.{part[0]}",) if isinstance(part, tuple) else part for part in parts])}
        for role, parts in parts_of(material.release)
    ]
    prompt = json.dumps(template, indent=2, ensure_ascii=False) + "\n"
    return _folder(material, PROMPT, f"file://{PROMPT}", prompt)
