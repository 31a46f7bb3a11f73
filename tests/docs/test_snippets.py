"""Each snippet in README and manual is one that the program takes: commands, Python, TOML."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from pathlib import Path

import click
import pytest
from jsonschema import Draft202012Validator

from agent.cli import main
from agent.jobs.sweep.file import read_sweep
from agent.task.task_file import json_schema
from tests.docs.pages import DOCS, NAMES, PAGES, blocks, commands, prose

EACH = pytest.mark.parametrize("page", PAGES, ids=NAMES)
LANGUAGES = {"bash", "python", "toml", "yaml", "text"}
INLINE = re.compile(r"`optimize ([^`]+)`")


def parsed(words: list[str]) -> click.Command:
    """The command that the words are of, after click has read all of them. Raises click.UsageError."""
    command: click.Command = main
    context = main.make_context("optimize", list(words))
    while isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        name, inner, rest = command.resolve_command(context, rest)
        assert inner is not None
        command, context = inner, inner.make_context(name, rest, parent=context)
    return command


def described(words: list[str]) -> None:
    """Asserts that words in running text name a command and options of it; arguments may be left out."""
    command: click.Command = main
    known = {option for parameter in main.params for option in parameter.opts} | {"-h", "--help", "--version"}
    for word in words:
        if isinstance(command, click.Group) and (inner := command.get_command(click.Context(command), word)):
            command = inner
            known |= {option for parameter in command.params for option in parameter.opts}
        elif word.startswith("-") and word != "-":
            assert word in known, f"{command.name} has no option {word}"
        elif command is main:
            assert re.fullmatch(r"COMMAND|NAME|TASK", word), f"no command is called {word}"


@EACH
def test_each_snippet_of_a_page_is_one_that_the_program_takes(page: Path) -> None:
    Path("tasks/my_task").mkdir(parents=True)  # a first word that is no command has to be a task
    for block in blocks(page):
        assert block.language in LANGUAGES
        for words in commands(block):
            try:
                parsed(words)
            except click.UsageError as error:
                pytest.fail(f"optimize {' '.join(words)}: {error.format_message()}")
        if block.language == "toml":
            tomllib.loads(block.text)
        if block.language == "python":
            require_imports(compile(block.text, str(page), "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT))
    for text in INLINE.findall(prose(page)):
        described(re.sub(r"[\[\]]|\.\.\.", " ", text).split())


def require_imports(tree: ast.Module) -> None:
    """Asserts that what a snippet imports is there."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_the_task_in_the_manual_fits_the_schema() -> None:
    (toml,) = [block for block in blocks(DOCS / "tasks.md") if block.language == "toml"]
    Draft202012Validator(json_schema()).validate(tomllib.loads(toml.text))


def test_the_sweeps_in_the_manual_are_read() -> None:
    texts = [block.text for block in blocks(DOCS / "sweep.md") if block.language == "toml"]
    for number, text in enumerate(texts):
        Path(f"{number}.toml").write_text(text, "utf-8")
    cells = [len(read_sweep(Path(f"{number}.toml")).points) for number in range(len(texts))]
    assert cells == [12, 1]
