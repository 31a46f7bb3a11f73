"""Every command and option explains itself, and the manual names every command."""

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

DOCS = Path(__file__).resolve().parents[2] / "docs"
PROGRAM = Path(sys.executable).with_name("optimize")
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
    assert {words[0] for words, _ in TREE if words} == set(HELP)


@pytest.mark.parametrize(("words", "command"), TREE, ids=IDS)
def test_every_command_and_every_option_has_a_help_text(words: tuple[str, ...], command: click.Command) -> None:
    assert command.help
    assert command.help.strip().endswith((".", "prompt.txt"))
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
    words = " ".join(CliRunner().invoke(main, ["--help-all"]).output.split())
    for name, about in HELP.items():
        assert f"{name} {about}" in words


def test_the_short_help_fits_a_screen_and_names_every_command() -> None:
    shown = CliRunner().invoke(main, ["--help"], terminal_width=80).output
    assert len(shown.splitlines()) <= 24 + len(GROUPS)
    assert max(map(len, shown.splitlines())) <= 80
    assert [name for name in HELP if not re.search(rf"\b{name}\b", shown)] == []
    assert set(EVERYDAY) <= set(HELP)


def sections(arguments: list[str], flag: str = "--help") -> dict[str, str]:
    """The help of a command by heading, in its order."""
    found, heading = {"": ""}, ""
    for line in CliRunner().invoke(main, [*arguments, flag]).output.splitlines():
        if re.fullmatch(r"[A-Z][A-Za-z -]*:", line):
            heading = line.removesuffix(":")
            assert heading not in found, f"{heading} stands there twice"
        found[heading] = found.get(heading, "") + line + "\n"
    return found


def test_every_command_stands_in_one_group() -> None:
    assert list(GROUPS) == ["Start", "Search", "Look", "Ship", "Watch", "Audit", "Set-up"]
    assert sum(len(commands) for commands in GROUPS.values()) == len(HELP)
    shown = sections([], "--help-all")
    assert list(shown) == ["", "Options", *GROUPS]
    for heading, commands in GROUPS.items():
        assert re.findall(r"^  ([a-z]+)\b", shown[heading], re.M) == list(commands)


GROUPED = [(words, command) for words, command in TREE if isinstance(command, JobCommand)]


@pytest.mark.parametrize(("words", "command"), GROUPED, ids=[" ".join(words) for words, _ in GROUPED])
def test_every_option_stands_in_one_group(words: tuple[str, ...], command: JobCommand) -> None:
    options = [option for option in command.get_params(click.Context(command)) if isinstance(option, click.Option)]
    helps = {"--help", "--help-all"}
    assert sorted(command.groups) == sorted(str(option.name) for option in options if not helps & set(option.opts))
    order = ["Task", "Models", "Budget", "Search", "Comparison", "Output", "Options"]
    shown = sections(list(words), "--help-all" if command.is_long else "--help")
    assert list(shown) == [
        "",
        *(heading for heading in order if heading in {*command.groups.values(), command.home}),
        *([command.listed[0]] if command.listed else []),
    ]
    for option in options:
        places = [command.groups.get(str(option.name), command.home)]
        flag = max(option.opts, key=len)
        pattern = rf"^  (?:-\w, )?{flag}(?= |$)"
        assert [place for place, text in shown.items() if place and re.search(pattern, text, re.M)] == places, flag


def test_run_and_init_have_groups() -> None:
    assert {("run",), ("init",)} <= {words for words, _ in GROUPED}


@pytest.mark.parametrize(("words", "command"), TREE, ids=IDS)
def test_every_default_is_shown(words: tuple[str, ...], command: click.Command) -> None:
    context = click.Context(command, **command.context_settings)
    for option in command.params:
        if isinstance(option, click.Option) and option.to_info_dict()["default"] not in (None, False, "", ()):
            _, about = option.get_help_record(context) or ("", "")
            assert "default: " in about.lower(), (words, option.name)


@pytest.mark.parametrize(
    ("shell", "words"),
    [
        ("bash", {"COMP_WORDS": "optimize ru", "COMP_CWORD": "1"}),
        ("zsh", {"COMP_WORDS": "optimize ru", "COMP_CWORD": "1"}),
        ("fish", {"COMP_WORDS": "optimize ru", "COMP_CWORD": "ru"}),
    ],
)
def test_a_shell_completes_words(shell: str, words: dict[str, str]) -> None:
    """The script for the shell, and what it gets when it asks for the words that begin with `ru`."""

    def said(mode: str, more: dict[str, str]) -> str:
        env = {**os.environ, **more, "_OPTIMIZE_COMPLETE": f"{shell}_{mode}"}
        return subprocess.run([PROGRAM], env=env, capture_output=True, text=True, timeout=60, check=True).stdout

    script = said("source", {})
    assert "_OPTIMIZE_COMPLETE" in script
    assert f"{shell}_complete" in script
    found = re.findall(r"\b(run|runs|resume|report)\b", said("complete", words))
    assert list(dict.fromkeys(found)) == ["run", "runs"]
    assert f"_OPTIMIZE_COMPLETE={shell}_source optimize" in WRITTEN


def test_bash_completes_ru_to_run_and_runs() -> None:
    script = (
        f'PATH={PROGRAM.parent}:$PATH; eval "$(_OPTIMIZE_COMPLETE=bash_source optimize)" || exit 1; '
        'COMP_WORDS=(optimize ru) COMP_CWORD=1; _optimize_completion optimize ru optimize; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["run", "runs"]


def test_every_option_of_run_can_be_set_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIMIZE_MAX_CALLS", "none")
    result = CliRunner().invoke(main, ["run", "x"])
    assert result.exit_code == 2
    assert "'none'" in result.output


def test_the_version_is_printed() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert re.fullmatch(r"optimize, version \S+\n", result.output) or "not installed" in str(result.exception)
