"""A promptfoo folder: config, prompt, the dev rows as tests, and an assertion that reads replies as we do.

What promptfoo does to texts: `---` cuts a .txt prompt, so the prompt is JSON; a variable that is a text is trimmed,
filled with others, or loaded when it begins with `file://`, so a row's values are one object, `row`. The texts of the
prompt are Nunjucks templates. A prompt that its JSON cannot hold becomes Python: the exported module and a prompt
function, which returns its messages as templates of themselves, since promptfoo fills what it gets again.

For a proof promptfoo runs with its echo provider, which gives back what it would send. No model is asked.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from agent.errors import ReleaseError
from agent.release.export import as_given, export_messages, hostile_rows, probe_rows, tried_rows
from agent.release.formats.export_format import (
    Material,
    Opened,
    Render,
    Sent,
    Settings,
    Values,
    as_sent,
    compatible_parts,
    export_format,
    json_text,
    no_lone_surrogates,
    parts_of,
    yaml_options,
)
from agent.release.formats.module_proof import load_module
from agent.release.formats.python_module import module_source
from agent.release.formats.templates import OPENS, jinja, yaml_quoted
from agent.release.runtime import MESSAGES_FILE, PromptRelease
from agent.shipped import canonical

Given = Mapping[str, Any]
"""Inputs as a program passes them."""
FOLDER = "promptfoo"
SECONDS = 120
QUIET = {
    "PROMPTFOO_DISABLE_TELEMETRY": "1",
    "PROMPTFOO_DISABLE_UPDATE": "1",
    "PROMPTFOO_DISABLE_REMOTE_GENERATION": "1",
    "PROMPTFOO_DISABLE_TEMPLATE_ENV_VARS": "1",
    "PROMPTFOO_DISABLE_DEBUG_LOG": "1",
    "PROMPTFOO_DISABLE_ERROR_LOG": "1",
    "NODE_NO_WARNINGS": "1",
}


def _asked_rows(folder: Path, release: PromptRelease) -> list[Given]:
    rows: list[Given] = [test["vars"]["row"] for test in json.loads((folder / FOLDER / "tests.json").read_bytes())]
    probes = (values for values in probe_rows(release.inputs) if not no_lone_surrogates(release, values))
    return rows + [as_given(release, values) for values in tried_rows(release, probes)]


def _rendered(
    release: PromptRelease, known: Iterable[tuple[Given, Sent]], echoed: Callable[[Sequence[Given]], list[Sent]]
) -> Render:
    by_values = {canonical(given): sent for given, sent in known}

    def render(values: Values) -> Sent:
        given = as_given(release, values)
        return by_values.get(canonical(given)) or echoed([given])[0]

    return render


def _require_valid(folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="promptfoo-") as aside:
        place, config = Path(aside), folder / FOLDER / "promptfooconfig.yaml"
        _run(["promptfoo", "validate", "config", "-c", str(config)], place, place)


def _find_library(library: str) -> str:
    if not shutil.which("promptfoo"):
        return ""
    with tempfile.TemporaryDirectory(prefix="promptfoo-") as home:
        said = _run(["promptfoo", "--version"], Path(home), Path(home)).splitlines()
    return f"{library} {said[-1].strip()}" if said else library


def _file_of(reference: str) -> str:
    return reference.removeprefix("file://").partition(":")[0]


def _echo(folder: Path, reference: str, rows: Sequence[Given]) -> list[Sent]:
    file = _file_of(reference)
    with tempfile.TemporaryDirectory(prefix="promptfoo-") as aside:
        place = Path(aside)
        tests = [{"vars": {"row": dict(values)}, "options": {"disableVarExpansion": True}} for values in rows]
        (place / "tests.json").write_bytes(json.dumps(tests).encode("utf-8"))
        shutil.copy(folder / FOLDER / file, place / file)
        config = {"prompts": [reference], "providers": ["echo"], "tests": "file://tests.json"}
        (place / "config.json").write_text(json.dumps(config), "utf-8")
        quiet = ["--no-cache", "--no-write", "--no-table", "--no-progress-bar"]
        _run(["promptfoo", "eval", "-c", "config.json", "-o", "out.json", *quiet], place, place)
        results: list[dict[str, Any]] = json.loads((place / "out.json").read_bytes())["results"]["results"]
    # `response.output` is what the provider got; `prompt` is reformatted for reports
    sent = {result["testIdx"]: as_sent(json.loads(result["response"]["output"])) for result in results}
    return [sent[number] for number in range(len(rows))]


def _run(command: list[str], folder: Path, home: Path) -> str:
    environment = {"PROMPTFOO_PYTHON": sys.executable, **os.environ, **QUIET}
    environment["PROMPTFOO_CONFIG_DIR"] = str(home / "home")
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


# -- the prompt in Python ----------------------------------------------------------------------------------------------

CODE_FILE = "prompt.py"
_RETURNED = "returned.cjs"
"""For the proof only: a prompt that is the function's return value."""
REFERENCE = f"file://{CODE_FILE}:promptfoo_prompt"
_FUNCTION = '''

# promptfoo: `prompts: [file://prompt.py:promptfoo_prompt]`.
import json

INPUTS = @inputs@
OPENS = re.compile(@opens@)


def promptfoo_prompt(context: dict[str, Any]) -> str:
    """The messages for `vars.row` as JSON, each a Nunjucks template of itself: promptfoo fills what this returns."""
    row = context["vars"]["row"]
    messages = render(**{name: row[name] for name in INPUTS})
    return json.dumps([{**message, "content": _template(message["content"])} for message in messages])


def _template(text: str) -> str:
    text = OPENS.sub(lambda found: _quoted(found[0]), text)
    return text[:-1] + _quoted("\\n") if text.endswith("\\n") else text


def _quoted(char: str) -> str:
    return '{{ "' + {"\\n": "\\\\n", "\\r": "\\\\r"}.get(char, char) + '" }}'
'''


def _load_code(folder: Path, release: PromptRelease) -> Opened:
    _require_valid(folder)
    module = load_module(folder / FOLDER / CODE_FILE, "exported_promptfoo_prompt")

    echoed = partial(_echo, folder, REFERENCE)
    rows = _asked_rows(folder, release)
    (folder / FOLDER / _RETURNED).write_text("module.exports = ({ vars }) => vars.row.returned;\n", "utf-8")
    returned = [{"returned": module.promptfoo_prompt({"vars": {"row": dict(values)}})} for values in rows]
    filled = _echo(folder, f"file://{_RETURNED}", returned)
    each = list(hostile_rows(release.inputs))[:: max(1, len(release.inputs))]  # every hostile value is in one of them
    sent = [values for values in each if not no_lone_surrogates(release, values)]
    hostile = [as_given(release, values) for values in tried_rows(release, sent)]
    known = [*zip(rows, filled, strict=True), *zip(hostile, echoed(hostile), strict=True)]
    return Opened(_rendered(release, known, echoed), provider_settings(folder, release))


# -- the folder --------------------------------------------------------------------------------------------------------

PROMPT = "prompt.json"
BASE_URL = "OPENAI_COMPATIBLE_BASE_URL"
LOCAL_SERVER = "http://127.0.0.1:8080/v1"
"""The default server of a `local/` model in an exported config; BASE_URL replaces it."""
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
    provider, _, name = release.model.partition("/")
    kinds = {"openai": "openai:chat:", "anthropic": "anthropic:messages:"} | dict.fromkeys(_SERVED, "openai:chat:")
    if provider not in kinds:
        return [f"# {' '.join(release.model.split())} has no provider in promptfoo", "providers:", "  - echo"]
    config = []
    if provider in _SERVED:
        name, base = compatible_parts(release.model) if provider == "openai-compatible" else (name, LOCAL_SERVER)
        address = f"'{base.replace(chr(39), '%27')}'" if base else "env.OPENAI_BASE_URL"
        config = [
            f"apiBaseUrl: {_from_environment(BASE_URL, address)}",
            f"apiKey: {_from_environment('OPENAI_COMPATIBLE_API_KEY', repr('none'))}",
        ]
    config += yaml_options(release, "")
    head = ["providers:", f"  - id: {yaml_quoted(kinds[provider] + name)}"]
    return [*head, "    config:", *(f"      {line}" for line in config)] if config else head


def _from_environment(name: str, otherwise: str) -> str:
    return yaml_quoted(f"{{{{ env.{name} | default({otherwise}) }}}}")


def provider_settings(folder: Path, release: PromptRelease) -> Settings:
    """Return the provider of the config by our names. A local server may serve any `local/` model."""
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


def _load(folder: Path, release: PromptRelease) -> Opened:
    _require_valid(folder)
    echoed, rows = partial(_echo, folder, f"file://{PROMPT}"), _asked_rows(folder, release)
    known = zip(rows, echoed(rows), strict=True)
    return Opened(_rendered(release, known, echoed), provider_settings(folder, release))


def _code_files(material: Material) -> dict[str, str]:
    release = material.release
    source = module_source(release, _FUNCTION, inputs=ascii(release.inputs), opens=f"{OPENS.pattern!r}")
    return _folder(material, REFERENCE, source)


def _folder(material: Material, reference: str, prompt: str) -> dict[str, str]:
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
        f"{FOLDER}/{_file_of(reference)}": prompt,
        f"{FOLDER}/tests.json": json.dumps(tests, indent=1, ensure_ascii=False) + "\n",
        f"{FOLDER}/check.py": _CHECK,
        f"{FOLDER}/{MESSAGES_FILE}": export_messages(release),
    }


_TEMPLATE = export_format(
    "promptfoo",
    about="promptfoo/: config, prompt, the dev rows as tests with an assertion; cd promptfoo; promptfoo eval",
    load=_load,
    library="promptfoo",
    install="npm install -g promptfoo",
    unfit=no_lone_surrogates,
    needs_task=True,
    find_library=_find_library,
)
CODE = replace(
    _TEMPLATE,
    about="with a prompt function in Python",
    load=_load_code,
    files=_code_files,
    carries=("picks", "conversation"),
)


@replace(_TEMPLATE, as_code=CODE)
def files(material: Material) -> dict[str, str]:
    template = [
        {"role": role, "content": jinja([(f"row.{part[0]}",) if isinstance(part, tuple) else part for part in parts])}
        for role, parts in parts_of(material.release)
    ]
    return _folder(material, f"file://{PROMPT}", json_text(template))
