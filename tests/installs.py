"""An environment that holds no more than an install would bring: links to what is installed here.

Real metadata and real modules: what is left out is not there for an import, nor for `importlib.metadata`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any, NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def closure(requirements: Iterable[str]) -> dict[str, Distribution]:
    """By name, all that an install of these brings, as the metadata of what is installed here say."""
    found: dict[str, Distribution] = {}
    done: set[tuple[str, str]] = set()
    todo = [Requirement(each) for each in requirements]
    while todo:
        wanted = todo.pop()
        name = canonicalize_name(wanted.name)
        for extra in ("", *sorted(wanted.extras)):
            if (name, extra) in done:
                continue
            done.add((name, extra))
            found[name] = distribution(name)
            for line in found[name].requires or []:
                needed = Requirement(line)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    todo.append(needed)
    return found


def site_of(folder: Path, *extras: str) -> Path:
    """A folder as `pip install promptassay[EXTRAS]` would fill it, in addition to the package itself."""
    folder.mkdir(parents=True)
    wanted = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    for found in closure(wanted).values():
        for top in {file.parts[0] for file in found.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            link = folder / top
            if not link.exists():
                link.symlink_to(Path(str(found.locate_file(top))))
    return folder


def python(site: Path, code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `code` where nothing can be imported but the standard library, `site` and this project."""
    return subprocess.run(
        [sys.executable, "-S", "-c", code, *arguments],
        env={**os.environ, **environment, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


COMMANDS = """
import json, sys
from click.testing import CliRunner
from agent.cli import main
ended = [CliRunner().invoke(main, words) for words in json.loads(sys.argv[1])]
print(json.dumps([(one.exit_code, one.stdout, one.stderr) for one in ended]))
"""


class Ended(NamedTuple):
    """A command that is over."""

    returncode: int
    stdout: str
    stderr: str


def commands(site: Path, *each: Sequence[str | Path]) -> list[Ended]:
    """`optimize` with each of these words, one after the other in one such process: it imports what they need once."""
    done = python(site, COMMANDS, json.dumps([[str(word) for word in words] for words in each]))
    assert done.returncode == 0, done.stderr
    return [Ended(*one) for one in json.loads(done.stdout)]


def optimize(site: Path, *arguments: str | Path) -> Ended:
    (ended,) = commands(site, arguments)
    return ended


def parsed(ended: Ended) -> Any:
    """The JSON that a command printed which must end well."""
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def good_json(site: Path, *arguments: str) -> Any:
    return parsed(optimize(site, *arguments, "--json"))
