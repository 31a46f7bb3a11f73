"""Every command does and says what its snapshot has: exit code, printed text, JSON; and so does its help.

After a change on purpose: `pytest tests/snapshots --update-snapshots`, and read the difference.
"""

from __future__ import annotations

import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
import click.testing
import pytest
from click.testing import CliRunner, Result

from agent.cli import main
from tests.docs.reference import commands
from tests.snapshots.cases import CASES, Case
from tests.snapshots.keep import Snapshots
from tests.snapshots.normal import Words, code_outline, page_text
from tests.snapshots.world import names_in, surroundings

COMMANDS = {words.removeprefix("optimize "): command for words, command in commands()}
WIDTHS = (80, 120)


def _file(name: str) -> str:
    return f"{name.replace(' ', '-')}.txt"


def test_every_command_has_a_case() -> None:
    assert set(CASES) == set(COMMANDS)
    for name, command in COMMANDS.items():
        typed = [case.words for case in CASES[name] if f"{case.words} ".startswith(f"{name} ")]
        assert typed or isinstance(command, click.Group), f"tests/snapshots/cases.py: no case runs `optimize {name}`"
        if name != "demo" and any("--json" in parameter.opts for parameter in command.params):  # that of demo is run's
            assert any("--json" in words.split() for words in typed), f"no case runs `optimize {name} --json`"


def test_every_snapshot_is_of_a_command(snapshots: Snapshots) -> None:
    snapshots.check_names("help", {_file(name) for name in ("optimize", *COMMANDS)})
    snapshots.check_names("commands", {_file(name) for name in CASES if CASES[name]})


@pytest.mark.parametrize("name", ["optimize", *COMMANDS])
def test_help(name: str, snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch) -> None:
    words, shown = ([] if name == "optimize" else name.split()), []
    for width in WIDTHS:
        monkeypatch.setenv("COLUMNS", str(width))
        done = CliRunner().invoke(main, [*words, "-h"], prog_name="optimize")
        assert done.exit_code == 0, done.output
        shown.append(f"$ optimize {' '.join([*words, '-h'])}    # {width} columns\n{done.output}")
    snapshots.check(f"help/{_file(name)}", "\n".join(shown))


@pytest.mark.parametrize("name", [name for name, cases in CASES.items() if cases])
def test_command(name: str, snapshots: Snapshots, recorded: Path) -> None:
    names = names_in(recorded)
    snapshots.check(f"commands/{_file(name)}", "\n".join(_shown(case, recorded, names) for case in CASES[name]))


def _shown(case: Case, world: Path, names: Mapping[str, str]) -> str:
    """What a case does, as text."""
    with tempfile.TemporaryDirectory() as made, pytest.MonkeyPatch.context() as patch:
        folder = Path(made).resolve()
        shutil.copytree(world, folder, dirs_exist_ok=True)
        with surroundings(folder, case.screen or 80):
            for before in case.before:
                assert _typed(before, names).exit_code == 0
            if case.screen:
                patch.setattr(click.testing._NamedTextIOWrapper, "isatty", lambda self: self.name == "<stdout>")
            done = _typed(case.words, names, case.keys)
            files = {name: Path(name).read_text("utf-8") for name in case.files}
        return "".join(_parts(case, done, files, Words(names, folder)))


def _typed(words: str, names: Mapping[str, str], keys: str = "") -> Result:
    done = CliRunner().invoke(main, shlex.split(words.format(**names)), input=keys, prog_name="optimize")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def _parts(case: Case, done: Result, files: dict[str, str], words: Words) -> Iterator[str]:
    yield f"$ optimize {case.words}{f'    # terminal of {case.screen} columns' if case.screen else ''}\n"
    out = done.stdout
    if "--json" in case.words.split() and out.startswith("{"):
        yield words.json(out)
    elif out.startswith("<!doctype html>"):
        yield words.text(page_text(out))
    elif re.search(r"^def ", out, re.MULTILINE):
        yield words.text(code_outline(out))
    else:
        yield words.text(out)
    for title, text in (("stderr", done.stderr), *files.items()):
        if text:
            yield f"--- {title}\n{words.text(text)}"
    yield f"--- exit code {done.exit_code}\n"
