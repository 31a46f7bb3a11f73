"""A released prompt where it is used: the wheel alone, in an environment that holds nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.release.export import write_release
from agent.release.promotion import ReleaseRegistry
from agent.release.runtime import MESSAGES_FILE, PROMPT_FILE, load_prompt
from agent.types import Field, Message
from tests import installs
from tests.release.formats.sample import release

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.dumps({"type": "object", "properties": {"due": {"type": "number"}}})
RELEASE = release(
    Message("system", "Read it.\n"),
    Message("user", "From {{sender}}: {{message}}"),
    name="letters",
    inputs=("sender", "message"),
    outputs=(
        Field("team", "choice", choices=("billing", "account")),
        Field("amount", "number"),
        Field("bill", "json", schema=SCHEMA),
        Field("answer", "text", max_words=3),
    ),
    reasoning=True,
)
VALUES = {"sender": "Zoë", "message": "{{sender}} owes\n\\{{message}} 12"}
REPLIES = (
    'It is a bill.\nteam: billing\namount: 12.5\nbill: {"due": 3}\nanswer: it is late',
    "I cannot say",
    "team: billing\namount: many\nbill: {}\nanswer: one two three four",
)
CODE = """
import json, sys
before = set(sys.modules)
from agent import load_prompt
asked = json.loads(sys.stdin.read())
prompt = load_prompt(asked["where"], root=asked["root"])
answers = [prompt.parse(reply) for reply in asked["replies"]]
paths = {getattr(sys.modules[name], "__file__", None) or "" for name in set(sys.modules) - before}
print(json.dumps({
    "messages": prompt.render(**asked["values"]),
    "answers": [[answer.fields, answer.error] for answer in answers],
    "version": prompt.version,
    "parameters": dict(prompt.parameters),
    "from": sorted(path for path in paths if "site-packages" in path),
}))
"""


def run(*command: str | Path, **more: Any) -> str:
    """A command that must end well, without the folders of this project and without a package index."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_", "VIRTUAL"))}
    done = subprocess.run(
        [str(word) for word in command], env=clean, capture_output=True, text=True, timeout=300, check=False, **more
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as it is published, built from a copy of its sources."""
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for package in (path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests"):
        shutil.copytree(package, source / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index")
    run(*pip, "--no-deps", "--no-build-isolation", "-w", made, source, cwd=made)
    (found,) = made.glob("promptassay-*.whl")
    return found


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel and nothing else, not even pip."""
    folder = tmp_path_factory.mktemp("bare")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps", wheel)
    (site,) = folder.glob("lib/python*/site-packages")
    assert {path.name.partition("-")[0] for path in site.iterdir()} <= {"agent", "promptassay"}
    return python


def asked(python: Path, folder: Path, where: str | Path, replies: Sequence[str] = REPLIES) -> dict[str, Any]:
    words = {"where": str(where), "root": str(folder / "releases"), "values": VALUES, "replies": list(replies)}
    found: dict[str, Any] = json.loads(run(python, "-c", CODE, input=json.dumps(words), cwd=folder))
    return found


def test_the_wheel_alone_loads_renders_and_parses_a_release_and_follows_an_alias(bare: Path, tmp_path: Path) -> None:
    write_release(RELEASE, tmp_path)
    ReleaseRegistry(tmp_path / "releases").promote(RELEASE, "production", None, evidence={"run_id": "r_1"})
    prompt = load_prompt(tmp_path)
    for where in (tmp_path / PROMPT_FILE, tmp_path / MESSAGES_FILE, "letters@production"):
        found = asked(bare, tmp_path, where)
        assert found["messages"] == prompt.render(**VALUES)
        assert found["messages"][1]["content"] == f"From Zoë: {VALUES['message']}"
        assert found["answers"] == [[dict(answer.fields), answer.error] for answer in map(prompt.parse, REPLIES)]
        good, silent, wrong = found["answers"]
        assert good == [{"team": "billing", "amount": 12.5, "bill": {"due": 3}, "answer": "it is late"}, ""]
        assert silent[1]
        assert wrong[1]
        assert (found["version"], found["parameters"]) == (RELEASE.version, dict(RELEASE.parameters))
        assert found["from"]
        assert all(path.startswith(str(bare.parents[1])) for path in found["from"])  # it is this install that answered
    code = (
        "import os; from agent import AgentError, load_prompt; os.environ['OPENAI_API_KEY'] = 'none'\n"
        "try: load_prompt('prompt.md').complete(sender='Zoë', message='hello')\n"
        "except AgentError as error: print(error)"
    )
    (line,) = run(bare, "-c", code, cwd=tmp_path).splitlines()
    assert line == "openai/gpt-x: cannot start (ModuleNotFoundError: No module named 'openai'); install that package"


def test_a_sample_is_planned_from_the_wheel_in_an_empty_folder(bare: Path, tmp_path: Path) -> None:
    """With links to what an install would bring in addition to the wheel, and without a network or this project."""
    needed, folder = installs.site_of(tmp_path / "needed"), tmp_path / "empty"
    folder.mkdir()
    command = ("env", f"PYTHONPATH={needed}", bare.parent / "optimize")
    said = run(*command, "init", "--sample", "support_triage", cwd=folder)
    assert "then: optimize run support_triage" in said
    assert [path.name for path in folder.iterdir()] == ["tasks"]
    planned = run(*command, "run", "support_triage", "--dry-run", cwd=folder)
    assert "support_triage" in planned
    assert "test" in planned
