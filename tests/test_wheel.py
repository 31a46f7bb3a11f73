"""The first steps of somebody who installs the wheel: in a separate environment, in an empty folder.

The wheel is built from a copy of the source and installed by pip without an index; what it depends on is linked from
what is installed here. Nothing of the source can be imported.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from agent.release.export import write_release
from agent.release.promotion import ReleaseRegistry
from agent.release.runtime import MESSAGES_FILE, PROMPT_FILE, load_prompt
from agent.types import Field, Message
from tests import installs
from tests.release.formats.sample import release

ROOT = installs.ROOT
PARTS = ("agent", "promptassay", "tasks", "pyproject.toml", "README.md", "LICENSE")
"""What a wheel is built from."""
CHOICES = "exactly one of the listed labels"
"""Words of an instruction that a search tries and that the task's own prompt lacks."""
RELEASE = release(
    Message("system", "Read it.\n"),
    Message("user", "From {{sender}}: {{message}}"),
    name="letters",
    inputs=("sender", "message"),
    outputs=(
        Field("team", "choice", choices=("billing", "account")),
        Field("amount", "number"),
        Field("bill", "json", schema=json.dumps({"type": "object", "properties": {"due": {"type": "number"}}})),
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
ALONE = """
import json, os, sys
site, root, places, values, replies = json.loads(sys.argv[1])
sys.path.insert(0, site)
from agent import AgentError, load_prompt
found = []
for place in places:
    prompt = load_prompt(place, root=root)
    answers = [[answer.fields, answer.error] for answer in map(prompt.parse, replies)]
    found.append([prompt.render(**values), answers, prompt.version, dict(prompt.parameters)])
os.environ["OPENAI_API_KEY"] = "none"
try: prompt.complete(**values)
except AgentError as error: said = str(error)
files = {getattr(module, "__file__", None) or "" for module in sys.modules.values()}
print(json.dumps([found, said, [file for file in files if "site-packages" in file and not file.startswith(site)]]))
"""
LOAD = """
import agent, promptassay
from promptassay import load_prompt

prompt = load_prompt("support_triage@production")
assert "{{" not in prompt.render(message="Hello")[-1]["content"]
print(prompt.parse("buying_price").fields["team"])
print(agent.__file__, promptassay.__file__)
"""


def run(*command: str | Path, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """A process that knows nothing of this one's packages; it must end with `code`."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    words = [os.fspath(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == code, (words, done.stdout[-2000:], done.stderr[-2000:])
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, source / part, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, source / part)
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "-w", built]
    run(sys.executable, "-m", "pip", "wheel", *options, source, cwd=source)
    (made,) = built.iterdir()
    return made


@pytest.fixture(scope="module")
def bin_folder(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands of an environment are that holds the wheel and what it depends on."""
    home = tmp_path_factory.mktemp("fresh")
    venv.create(home, with_pip=False)
    bin_folder = home / "bin"
    options = ["--quiet", "--no-deps", "--no-index", "--no-compile"]
    pip = [sys.executable, "-m", "pip", "--python", bin_folder / "python"]
    run(*pip, "install", *options, wheel, cwd=home)
    (site,) = home.glob("lib/python*/site-packages/promptassay")
    (site.parent / "needed.pth").write_text(f"{installs.site_of(home / 'needed')}\n", "utf-8")
    assert "No broken requirements" in run(*pip, "check", cwd=home).stdout
    return bin_folder


def test_the_wheel_holds_the_program_and_the_samples_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"agent", "promptassay"}
    assert {"promptassay/py.typed", "agent/py.typed", "agent/samples/support_triage/task.toml"} <= names
    assert {name for name in names if name.startswith("agent/demo/")} == {
        f"agent/demo/{path.relative_to(ROOT / 'agent/demo').as_posix()}"
        for path in (ROOT / "agent/demo").rglob("*")
        if path.is_file()
    }
    assert {name for name in names if name.startswith("agent/samples/")} == {
        f"agent/samples/{path.relative_to(ROOT / 'tasks').as_posix()}"
        for path in (ROOT / "tasks").glob("*/**/*")
        if path.is_file() and path.parent.name != "__pycache__"  # of a sample whose code was run
    }
    assert not [name for name in names if name.endswith((".pyc", ".db"))]
    assert all("/docs/" in name for name in names if name.endswith(".csv"))  # price lists of bank_answers


def test_the_package_alone_loads_renders_and_parses_a_release_and_follows_an_alias(
    bin_folder: Path, tmp_path: Path
) -> None:
    (site,) = bin_folder.parent.glob("lib/python*/site-packages")
    write_release(RELEASE, tmp_path)
    ReleaseRegistry(tmp_path / "releases").promote(RELEASE, "production", None, evidence={"run_id": "r_1"})
    places = [str(tmp_path / PROMPT_FILE), str(tmp_path / MESSAGES_FILE), "letters@production"]
    asked = json.dumps([str(site), str(tmp_path / "releases"), places, VALUES, REPLIES])
    alone = (bin_folder / "python", "-I", "-S", "-c", ALONE, asked)  # without what is linked next to it
    found, said, others = json.loads(run(*alone, cwd=tmp_path).stdout)
    prompt = load_prompt(tmp_path)
    answers = [[dict(answer.fields), answer.error] for answer in map(prompt.parse, REPLIES)]
    assert found == [[prompt.render(**VALUES), answers, RELEASE.version, dict(RELEASE.parameters)]] * 3
    assert found[0][0][1]["content"] == f"From Zoë: {VALUES['message']}"
    good, silent, wrong = answers
    assert good == [{"team": "billing", "amount": 12.5, "bill": {"due": 3}, "answer": "it is late"}, ""]
    assert all((silent[1], wrong[1]))
    assert said == "openai/gpt-x: cannot start (ModuleNotFoundError: No module named 'openai'); install that package"
    assert others == []


def test_the_demo_runs_where_nothing_else_is(bin_folder: Path, tmp_path: Path) -> None:
    result = json.loads(run(bin_folder / "optimize", "demo", "--json", "-q", cwd=tmp_path).stdout)
    assert (result["decision"], result["model"].partition("/")[0]) == ("promote", "recorded")
    run(bin_folder / "optimize", "audit", "verify", cwd=tmp_path)


def test_the_first_steps_end_with_a_release(bin_folder: Path, tmp_path: Path) -> None:
    optimize, python = bin_folder / "optimize", bin_folder / "python"
    assert (
        "then: optimize run support_triage" in run(optimize, "init", "--sample", "support_triage", cwd=tmp_path).stdout
    )
    assert [path.name for path in tmp_path.iterdir()] == ["tasks"]
    dry = run(optimize, "run", "support_triage", "--dry-run", cwd=tmp_path)
    assert "nothing was called" in dry.stdout
    assert not (tmp_path / "runs").exists()

    rows = [
        json.loads(line)
        for split in ("train", "dev", "test")
        for line in (tmp_path / f"tasks/support_triage/{split}.jsonl").read_text("utf-8").splitlines()
    ]
    script = [{"match": row["message"], "contains": CHOICES, "reply": row["team"]} for row in rows]
    lines = [json.dumps(line) for line in [*script, {"reply": "I am not sure"}]]
    (tmp_path / "replies.jsonl").write_text("\n".join(lines), "utf-8")
    words = ["-m", "scripted/replies.jsonl", "--max-calls", "600", "--json", "-q"]
    result = json.loads(run(optimize, "run", "support_triage", *words, cwd=tmp_path).stdout)
    assert (result["decision"], result["baseline"]["test"]) == ("promote", 0)
    assert result["winner"]["test"] == 1
    assert (tmp_path / result["release"]).is_file()
    run(optimize, "report", cwd=tmp_path)
    run(optimize, "promote", cwd=tmp_path)
    parsed, home = run(python, "-c", LOAD, cwd=tmp_path).stdout.splitlines()
    assert (parsed, str(ROOT) in home) == ("buying_price", False)
