"""Every command and option explains itself, and the manual names every command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from agent.cli import EVERYDAY, GROUPS, HELP, main
from agent.cli.declared import JobCommand
from tests.docs.pages import blocks
from tests.docs.pages import commands as command_lines

DOCS = Path(__file__).resolve().parents[2] / "docs"
PROGRAM = Path(sys.executable).with_name("optimize")
WRITTEN = "\n".join(page.read_text("utf-8") for page in DOCS.glob("*.md") if page.name != "commands.md")
"""The manual without the page that is generated from the commands."""
ORDER = ["Task", "Models", "Budget", "Search", "Comparison", "Output", "Options"]


def walk(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield words, command
    if isinstance(command, click.Group):
        for name in command.list_commands(context := click.Context(command)):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from walk(inner, (*words, name))


TREE = list(walk(main))
IDS = [" ".join(words) or "optimize" for words, _ in TREE]


def sections(arguments: list[str], flag: str = "--help") -> dict[str, str]:
    """The help of a command by heading, in its order."""
    found, heading = {"": ""}, ""
    for line in CliRunner().invoke(main, [*arguments, flag]).output.splitlines():
        if re.fullmatch(r"[A-Z][A-Za-z -]*:", line):
            heading = line.removesuffix(":")
            assert heading not in found, f"{heading} is there twice"
        found[heading] = found.get(heading, "") + line + "\n"
    return found


@pytest.mark.parametrize(("words", "command"), TREE, ids=IDS)
def test_every_command_and_option_explains_itself_in_one_group(words: tuple[str, ...], command: click.Command) -> None:
    assert command.help
    assert command.help.strip().endswith((".", "prompt.txt"))
    assert not words or re.search(rf"\boptimize {' '.join(words)}\b", WRITTEN), "the manual does not name it"
    context = click.Context(command, **command.context_settings)
    options = [option for option in command.get_params(context) if isinstance(option, click.Option)]
    for option in options:
        assert option.help or option.is_eager, option.name
        if option in command.params and option.to_info_dict()["default"] not in (None, False, "", ()):
            assert "default: " in (option.get_help_record(context) or ("", ""))[1].lower(), option.name
    if not isinstance(command, JobCommand):
        return
    named = [option for option in options if not {"--help", "--help-all"} & set(option.opts)]
    assert sorted(command.groups) == sorted(str(option.name) for option in named)
    shown = sections(list(words), "--help-all" if command.is_long else "--help")
    headings = [heading for heading in ORDER if heading in {*command.groups.values(), command.home}]
    assert list(shown) == ["", *headings, *([command.listed[0]] if command.listed else [])]
    for option in options:
        pattern = rf"^  (?:-\w, )?{_listed(option, context)}(?= |$)"
        places = [place for place, text in shown.items() if place and re.search(pattern, text, re.M)]
        assert places == [command.groups.get(str(option.name), command.home)], option.name


def _listed(option: click.Option, context: click.Context) -> str:
    """The long name that the help lists."""
    record, _ = option.get_help_record(context) or (" ".join(option.opts), "")
    return max(re.findall(r"--[\w-]+", record), key=len)


def _first_examples(words: tuple[str, ...]) -> list[list[str]]:
    """The first examples of a command, at most three, on the page that has the most of them."""
    by_page = []
    for page in sorted(DOCS.glob("*.md")):
        found = [
            [line for line in command_lines(block) if tuple(line[: len(words)]) == words] for block in blocks(page)
        ]
        by_page.append([lines for lines in found if lines])
    most = max(by_page, key=lambda found: sum(map(len, found)))
    return most[0][:3] if most else []


@pytest.mark.parametrize(("words", "command"), TREE, ids=IDS)
def test_what_the_first_examples_need_is_in_the_help(words: tuple[str, ...], command: click.Command) -> None:
    if not isinstance(command, JobCommand) or not command.is_long:
        return
    shown = "\n".join(sections(list(words)).values())
    context = click.Context(command)
    options = [option for option in command.get_params(context) if isinstance(option, click.Option)]
    for line in _first_examples(words):
        for option in options:
            listed = _listed(option, context)
            if set(option.opts) & set(line):
                assert re.search(rf"(?<![\w-]){listed}(?![\w-])", shown), f"{listed} of `optimize {' '.join(line)}`"


def test_the_list_names_each_command_once_in_one_group_and_fits_a_screen() -> None:
    assert {words[0] for words, _ in TREE if words} == set(HELP)
    assert sum(len(commands) for commands in GROUPS.values()) == len(HELP)
    shown = sections([], "--help-all")
    assert list(shown) == ["", "Options", *GROUPS]
    for heading, commands in GROUPS.items():
        assert re.findall(r"^  ([a-z]+)\b", shown[heading], re.M) == list(commands)
    words = " ".join("".join(shown.values()).split())
    assert all(f"{name} {about}" in words for name, about in HELP.items())
    short = CliRunner().invoke(main, ["--help"], terminal_width=80).output
    assert len(short.splitlines()) <= 24 + len(GROUPS)
    assert max(map(len, short.splitlines())) <= 80
    assert [name for name in HELP if not re.search(rf"\b{name}\b", short)] == []
    assert set(EVERYDAY) <= set(HELP)


def test_the_manual_names_the_audit_commands_without_json() -> None:
    audit = [(words[1], command) for words, command in TREE if words[:1] == ("audit",) and len(words) == 2]
    without = [name for name, command in audit if not any("--json" in each.opts for each in command.params)]
    said = f"`audit` (but not {' and '.join(f'`{name}`' for name in sorted(without))})"
    assert said in (DOCS / "command-line.md").read_text("utf-8")


@pytest.mark.parametrize(("shell", "place"), [("bash", "1"), ("fish", "ru")])
def test_a_shell_completes_words(shell: str, place: str) -> None:
    typed = {"COMP_WORDS": "optimize ru", "COMP_CWORD": place, "_OPTIMIZE_COMPLETE": f"{shell}_complete"}
    env = {**os.environ, **typed}
    said = subprocess.run([PROGRAM], env=env, capture_output=True, text=True, timeout=60, check=True).stdout
    assert list(dict.fromkeys(re.findall(r"\b(run|runs|resume|report)\b", said))) == ["run", "runs"]
    assert f"_OPTIMIZE_COMPLETE={shell}_source optimize" in WRITTEN


def test_options_are_set_by_the_environment_and_the_version_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIMIZE_MAX_CALLS", "none")
    result = CliRunner().invoke(main, ["run", "x"])
    assert (result.exit_code, "'none'" in result.output) == (2, True)
    assert re.fullmatch(r"optimize, version \S+\n", CliRunner().invoke(main, ["--version"]).output)
