"""promptfoo as it is run for a proof: with its echo provider, which gives back what it would send. Asks no model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.errors import ReleaseError
from agent.release.export import as_given, probe_rows, tried_rows
from agent.release.formats.export_format import Render, Sent, Values, no_lone_surrogates
from agent.release.prompt_file import PromptRelease
from agent.shipped import canonical

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


Given = Mapping[str, Any]
"""Inputs as a program gives them."""


def asked_rows(folder: Path, release: PromptRelease) -> list[Given]:
    """The rows of the exported tests, and the hostile ones that promptfoo can carry."""
    rows: list[Given] = [test["vars"]["row"] for test in json.loads((folder / FOLDER / "tests.json").read_bytes())]
    probes = (values for values in probe_rows(release.inputs) if not no_lone_surrogates(release, values))
    return rows + [as_given(release, values) for values in tried_rows(release, probes)]


def rendered(
    release: PromptRelease, known: Iterable[tuple[Given, Sent]], echoed: Callable[[Sequence[Given]], list[Sent]]
) -> Render:
    """Renders a row by what is known, and by another evaluation where it is not."""
    by_values = {canonical(given): sent for given, sent in known}

    def render(values: Values) -> Sent:
        given = as_given(release, values)
        return by_values.get(canonical(given)) or echoed([given])[0]

    return render


def require_valid(folder: Path) -> None:
    """Raises a ReleaseError where promptfoo does not take the exported config."""
    with tempfile.TemporaryDirectory(prefix="promptfoo-") as aside:
        place, config = Path(aside), folder / FOLDER / "promptfooconfig.yaml"
        _run(["promptfoo", "validate", "config", "-c", str(config)], place, place)


def find_library(library: str) -> str:
    """Name and version of the installed promptfoo, or ""."""
    if not shutil.which("promptfoo"):
        return ""
    with tempfile.TemporaryDirectory(prefix="promptfoo-") as home:
        said = _run(["promptfoo", "--version"], Path(home), Path(home)).splitlines()
    return f"{library} {said[-1].strip()}" if said else library


def echo(folder: Path, file: str, reference: str, rows: Sequence[Given]) -> list[Sent]:
    """What promptfoo would send for each row.

    Args:
        folder: Where the export lies.
        file: Name of the prompt's file in it.
        reference: The prompt as a config names it.
        rows: The inputs.
    """
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
    # what the provider got; in `prompt` it is tidied up for reports (JSON laid out anew, keys taken out)
    sent = {result["testIdx"]: json.loads(result["response"]["output"]) for result in results}
    return [[{"role": m["role"], "content": m["content"]} for m in sent[number]] for number in range(len(rows))]


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
