"""A promptfoo folder: config, prompt, the dev rows as tests, and an assertion that reads replies as we do.

Knows what promptfoo does to texts: `---` cuts a .txt prompt, so the prompt is JSON; a variable that is a text is
trimmed, filled with others, or loaded when it begins with `file://`, so a row's values are one object, `row`. The texts
of the prompt are Nunjucks templates.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.errors import ReleaseError
from agent.release.export import export_messages, probe_rows
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
from agent.release.runtime import MESSAGES_FILE, PromptRelease

FOLDER = "promptfoo"
PROMPT = f"{FOLDER}/prompt.json"
SECONDS = 120
BASE_URL = "OPENAI_COMPATIBLE_BASE_URL"
LOCAL_SERVER = "http://127.0.0.1:8080/v1"
"""Where an exported config looks for the server of a `local/` model, unless BASE_URL says otherwise."""
_SERVED = ("openai-compatible", "local")
QUIET = {
    "PROMPTFOO_DISABLE_TELEMETRY": "1",
    "PROMPTFOO_DISABLE_UPDATE": "1",
    "PROMPTFOO_DISABLE_REMOTE_GENERATION": "1",
    "PROMPTFOO_DISABLE_TEMPLATE_ENV_VARS": "1",
    "PROMPTFOO_DISABLE_DEBUG_LOG": "1",
    "PROMPTFOO_DISABLE_ERROR_LOG": "1",
    "NODE_NO_WARNINGS": "1",
}
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
        address = base.replace("'", "%27")
        config = [
            f"apiBaseUrl: {_from_environment(BASE_URL, address)}",
            f"apiKey: {_from_environment('OPENAI_COMPATIBLE_API_KEY', 'none')}",
        ]
    config += [
        f"{key}: {release.parameters[key]}" for key in ("max_tokens", "temperature") if key in release.parameters
    ]
    head = ["providers:", f"  - id: {yaml_quoted(kinds[provider] + name)}"]
    return [*head, "    config:", *(f"      {line}" for line in config)] if config else head


def _from_environment(name: str, otherwise: str) -> str:
    return yaml_quoted(f"{{{{ env.{name} | default('{otherwise}') }}}}")


def _settings(folder: Path, release: PromptRelease) -> Settings:
    """The provider in the config, by our names. The server of a `local/` model is one that may serve any."""
    import yaml

    (provider,) = yaml.safe_load((folder / FOLDER / "promptfooconfig.yaml").read_bytes())["providers"]
    if provider == "echo":
        return {}
    settings = dict(provider.get("config", {}))
    settings.pop("apiKey", None)
    kind, _, name = provider["id"].split(":", 2)
    address = settings.pop("apiBaseUrl", "").partition("default('")[2].rpartition("')")[0].replace("%27", "'")
    if address == LOCAL_SERVER and release.model.startswith("local/"):
        return {**settings, "model": f"local/{name}"}
    return {**settings, "model": f"openai-compatible/{name}@{address}" if address else f"{kind}/{name}"}


def _find_library(library: str) -> str:
    command = shutil.which("promptfoo")
    if not command:
        return ""
    with tempfile.TemporaryDirectory(prefix="promptfoo-") as home:
        said = _run([command, "--version"], Path(home), Path(home)).splitlines()
    return f"{library} {said[-1].strip()}" if said else library


def _load(folder: Path, release: PromptRelease) -> Render:
    """Every row in one evaluation with promptfoo's echo provider, since each start of it takes seconds."""
    rows: list[Values] = [test["vars"]["row"] for test in json.loads((folder / FOLDER / "tests.json").read_bytes())]
    rows += [values for values in probe_rows(release.inputs) if not no_lone_surrogates(release, values)]
    known = {tuple(values.items()): sent for values, sent in zip(rows, _echoed(folder, rows), strict=True)}

    def render(values: Values) -> Sent:
        return known.get(tuple(values.items())) or _echoed(folder, [values])[0]

    return render


def _echoed(folder: Path, rows: Sequence[Values]) -> list[Sent]:
    """What promptfoo would send for each row, with the exported prompt as it lies there. Its config is checked, too."""
    command = shutil.which("promptfoo") or "promptfoo"
    with tempfile.TemporaryDirectory(prefix="promptfoo-") as aside:
        place = Path(aside)
        tests = [{"vars": {"row": dict(values)}, "options": {"disableVarExpansion": True}} for values in rows]
        (place / "tests.json").write_bytes(json.dumps(tests).encode("utf-8"))
        shutil.copy(folder / PROMPT, place / "prompt.json")
        config = {"prompts": ["file://prompt.json"], "providers": ["echo"], "tests": "file://tests.json"}
        (place / "config.json").write_text(json.dumps(config), "utf-8")
        _run([command, "validate", "config", "-c", str(folder / FOLDER / "promptfooconfig.yaml")], place, place)
        quiet = ["--no-cache", "--no-write", "--no-table", "--no-progress-bar"]
        _run([command, "eval", "-c", "config.json", "-o", "out.json", *quiet], place, place)
        results: list[dict[str, Any]] = json.loads((place / "out.json").read_bytes())["results"]["results"]
    # what the provider got; in `prompt` it is tidied up for reports (JSON laid out anew, keys taken out)
    sent = {result["testIdx"]: json.loads(result["response"]["output"]) for result in results}
    return [[{"role": m["role"], "content": m["content"]} for m in sent[number]] for number in range(len(rows))]


def _run(command: list[str], folder: Path, home: Path) -> str:
    environment = {**os.environ, **QUIET, "PROMPTFOO_CONFIG_DIR": str(home / "home")}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ReleaseError(f"promptfoo: {command[1]} did not run ({error})") from error
    if done.returncode not in (0, 100):
        said = " / ".join((done.stderr.strip() or done.stdout.strip()).splitlines())
        raise ReleaseError(f"promptfoo: {command[1]} ended with {done.returncode}: {said:.300}")
    return done.stdout


@export_format(
    "promptfoo",
    about="promptfoo/: config, prompt, the dev rows as tests with an assertion; cd promptfoo; promptfoo eval",
    load=_load,
    settings=_settings,
    library="promptfoo",
    install="npm install -g promptfoo",
    unfit=no_lone_surrogates,
    needs_task=True,
    find_library=_find_library,
)
def files(material: Material) -> dict[str, str]:
    release, task = material.release, material.rows
    template = [
        {"role": role, "content": jinja([(f"row.{part[0]}",) if isinstance(part, tuple) else part for part in parts])}
        for role, parts in parts_of(release)
    ]
    tests = [
        {"description": row.id, "vars": {"row": dict(row.inputs), "expected": dict(row.labels)}} for row in task.dev
    ]
    lines = [
        f"description: {yaml_quoted(f'{release.name} {release.version}')}",
        "prompts:",
        "  - file://prompt.json",
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
        PROMPT: json.dumps(template, indent=2, ensure_ascii=False) + "\n",
        f"{FOLDER}/tests.json": json.dumps(tests, indent=1, ensure_ascii=False) + "\n",
        f"{FOLDER}/check.py": _CHECK,
        f"{FOLDER}/{MESSAGES_FILE}": export_messages(release),
    }
