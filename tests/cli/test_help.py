"""Every command and option explains itself, and the manual names every command."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from agent.cli import COMMANDS, HELP, main

DOCS = Path(__file__).resolve().parents[2] / "docs"
WRITTEN = "\n".join(page.read_text("utf-8") for page in DOCS.glob("*.md") if page.name != "commands.md")
"""The manual but for the page that is made out of the commands themselves."""


def walk(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield words, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from walk(inner, (*words, name))


TREE = list(walk(main))
IDS = [" ".join(words) or "optimize" for words, _ in TREE]


def test_the_list_of_commands_names_each_once() -> None:
    assert list(COMMANDS) == list(HELP)
    assert {words[0] for words, _ in TREE if words} == set(COMMANDS)


@pytest.mark.parametrize(("words", "command"), TREE, ids=IDS)
def test_every_command_and_every_option_has_a_help_text(words: tuple[str, ...], command: click.Command) -> None:
    assert command.help
    assert command.help.strip().endswith((".", "run"))
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, (words, parameter.name)
    for flag in ("-h", "--help"):
        result = CliRunner().invoke(main, [*words, flag])
        assert result.exit_code == 0
        assert result.output.startswith("Usage:")


@pytest.mark.parametrize("words", [words for words, _ in TREE if words], ids=IDS[1:])
def test_the_manual_names_every_command(words: tuple[str, ...]) -> None:
    assert re.search(rf"\boptimize {' '.join(words)}\b", WRITTEN), f"docs/ does not name `optimize {' '.join(words)}`"


def test_the_manual_names_the_audit_commands_without_json() -> None:
    without = [
        words[1] for words, command in TREE if words[:1] == ("audit",) and len(words) == 2 and not has_json(command)
    ]
    assert f"`audit` (but not {' and '.join(f'`{name}`' for name in sorted(without))})" in (
        DOCS / "command-line.md"
    ).read_text("utf-8")


def has_json(command: click.Command) -> bool:
    return any("--json" in parameter.opts for parameter in command.params)


def test_help_names_every_command_in_its_words() -> None:
    words = " ".join(CliRunner().invoke(main, ["--help"]).output.split())
    for name, about in HELP.items():
        assert f"{name} {about}" in words


def test_every_option_of_run_can_be_set_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIMIZE_MAX_CALLS", "none")
    result = CliRunner().invoke(main, ["run", "x"])
    assert result.exit_code == 2
    assert "'none'" in result.output


def test_the_version_is_printed() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert re.fullmatch(r"optimize, version \S+\n", result.output) or "not installed" in str(result.exception)
