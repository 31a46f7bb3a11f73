"""The Dockerfile, as far as it can be read without Docker: what it copies is there, what it runs exists, and nothing
of it is root's or names a host."""

from __future__ import annotations

import json
import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
IGNORED = (ROOT / ".dockerignore").read_text("utf-8").split()


def steps() -> list[tuple[str, str]]:
    """The instructions in order: the word, and the rest in one line."""
    text = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, " ".join(rest.split())) for word, _, rest in (line.partition(" ") for line in lines)]


def sources(rest: str) -> list[str]:
    """What a COPY takes, without its options and its place."""
    return [word for word in rest.split() if not word.startswith("--")][:-1]


def position(word: str, start: str) -> int:
    return next(at for at, (each, rest) in enumerate(steps()) if each == word and rest.startswith(start))


def test_it_is_a_python_that_the_project_takes() -> None:
    (image,) = [rest for word, rest in steps() if word == "FROM"]
    version = re.fullmatch(r"python:3\.(\d+)-slim", image)
    assert version
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["requires-python"] == ">=3.11"
    assert int(version[1]) >= 11


def test_every_source_of_a_copy_is_there_and_is_sent() -> None:
    copied = [source for word, rest in steps() if word == "COPY" for source in sources(rest)]
    assert "agent" in copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert not [rule for rule in IGNORED if fnmatch(source, rule)], f".dockerignore leaves {source} out"


@pytest.mark.parametrize("path", [".venv", ".git", "build", "runs/ledger.db", ".env", "agent/cli/__pycache__"])
def test_what_is_of_this_machine_is_not_sent(path: str) -> None:
    assert [rule for rule in IGNORED if fnmatch(path, rule)]


def test_all_that_setup_reads_is_there_before_it_runs() -> None:
    setup = position("RUN", "make setup")
    before = {source for word, rest in steps()[:setup] if word == "COPY" for source in sources(rest)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    needed = {"Makefile", "pyproject.toml", "requirements.lock", project["project"]["readme"]}
    needed |= {*project["project"]["license-files"], "agent", "promptassay"}
    needed |= {(ROOT / "agent/samples").resolve().relative_to(ROOT).as_posix()}  # a link
    assert needed <= before
    assert position("COPY", "--chown=user:user . .") > setup


def test_the_commands_are_targets_of_make() -> None:
    assert {"optimize", "test", "setup"} <= TARGETS
    (command,) = [json.loads(rest) for word, rest in steps() if word == "CMD"]
    assert command == ["make", "optimize"]
    for word, rest in steps():
        if word == "RUN" and rest.startswith("make "):
            assert set(rest.split()[1:]) <= TARGETS


def test_nothing_of_the_project_runs_as_root() -> None:
    users = [rest for word, rest in steps() if word == "USER"]
    assert users
    assert not set(users) & {"root", "0"}
    (made,) = re.findall(r"useradd .*?(\w+)(?: &&|$)", dict(steps()[::-1])["RUN"])
    assert users == [made]
    first = position("USER", made)
    assert [rest for word, rest in steps()[:first] if word in ("COPY", "ADD", "CMD", "ENTRYPOINT")] == []
    owned = [rest for word, rest in steps() if word == "COPY"]
    assert all(rest.startswith(f"--chown={made}:{made} ") for rest in owned)


def test_no_host_no_index_and_no_secret_is_named() -> None:
    for name in ("Dockerfile", ".dockerignore"):
        text = (ROOT / name).read_text("utf-8")
        assert not re.search(r"://|index|find-links|trusted|KEY|TOKEN|PASSWORD", text, re.I), name
    assert not {"ADD", "ARG", "ENV"} & {word for word, _ in steps()}
