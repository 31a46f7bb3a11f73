"""Code and manual speak plain English: no inversions, short docstrings, short messages.

Ruff's D401 (pyproject.toml) demands the imperative mood of first docstring lines; the rest is here.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.docs.pages import MANUAL, ROOT, prose

PHRASES = re.compile(
    r"\b(beside|of (its|their|one's) own|goes on|so many|(is|are) (?!None)none|where there is one|stands in|lies in"
    r"|as it stands|at hand|what came of|anew|nobody knows)\b",
    re.I,
)
QUOTED = re.compile(r"``[^`]*``|`[^`]*`|\"[^\"\n]*\"|\*[^*\n]+\*")
MOST_WORDS, MOST_LETTERS = 15, 110
HELP = {"help", "description", "about", "epilog"}
OPTIONS = {"option", "key_option", "Option", "embeddings_option"}
"""Keyword arguments and calls that hold paragraphs of help."""
NO_MESSAGE = re.compile(r"^\s*\(?(SELECT|INSERT|CREATE|WITH|FROM|AS)\b|\(\?[:<=!]|\\b|\.\{0| < |^You are |'none'")
"""SQL, regular expressions, scales of words, prompts and headers of HTTP."""
LITTLE = {"a", "an", "the", "of", "to", "is", "are", "in", "for", "by", "and", "it", "its", "one", "with", "from", "as"}
MADE = {"commands.md", "json.md", "task-toml.md", "python-reference.md"}
"""Pages that are generated from the code."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


def files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def named(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def docstrings(path: Path) -> Iterator[tuple[ast.AST, int, str]]:
    """Each node with a docstring, its line and the docstring."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, Function | ast.ClassDef | ast.Module) and (text := ast.get_docstring(node)):
            yield node, getattr(node, "lineno", 1), text


def comments(path: Path) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def strings(path: Path) -> Iterator[tuple[int, str, bool]]:
    """Each string constant with its line, and whether it is a paragraph of help; docstrings are left out."""
    tree = tree_of(path)
    holders = [node.value for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg in HELP]
    holders += [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _called(node) in OPTIONS]
    helps = {id(inner) for node in holders for inner in ast.walk(node)}
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in bare:
            yield node.lineno, node.value, id(node) in helps


def _called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def phrases(where: str, text: str) -> Iterator[str]:
    for found in PHRASES.finditer(QUOTED.sub("", text)):
        yield f"{where}: {found[0]!r}"


def require_none(kind: str, found: list[str]) -> None:
    assert not found, "\n".join([f"{kind}: {len(found)}", *found])


@pytest.mark.parametrize("folder", ["agent", "promptassay", "tests"])
def test_no_phrase_is_an_inversion(folder: str) -> None:
    """In docstrings, and outside tests in comments and messages as well."""
    found = []
    for path in files(folder):
        if path == Path(__file__).resolve():
            continue
        texts = [(line, text) for _, line, text in docstrings(path)]
        if folder != "tests":
            texts += [*comments(path), *((line, text) for line, text, _ in strings(path))]
        found += [each for line, text in texts for each in phrases(named(path, line), text)]
    require_none(f"phrases in {folder}", found)


@pytest.mark.parametrize("page", [*MANUAL, ROOT / "README.md"], ids=lambda path: path.name)
def test_no_phrase_of_a_page_is_an_inversion(page: Path) -> None:
    kind = "phrases in generated pages" if page.name in MADE else f"phrases in {page.name}"
    require_none(kind, list(phrases(page.name, prose(page))))


def test_first_sentences_of_docstrings_are_short() -> None:
    found = []
    for path in files("agent", "promptassay"):
        for node, line, text in docstrings(path):
            words = len(re.split(r"\.\s|\n\n", text)[0].split())
            if isinstance(node, Function) and words > MOST_WORDS:
                found.append(f"{named(path, line)} {node.name}: {words} words")
    require_none("long first sentences", found)


def test_no_docstring_repeats_the_name_of_a_private_function() -> None:
    found = []
    for path in files("agent", "promptassay"):
        for node, line, text in docstrings(path):
            if isinstance(node, Function) and node.name.startswith("_"):
                said = set(re.findall(r"[a-z]+", text.lower())) - LITTLE
                stems = {word[:4] for word in re.findall(r"[a-z]+", node.name.lower())}
                if all(word[:4] in stems for word in said):
                    found.append(f"{named(path, line)} {node.name}: {text}")
    require_none("docstrings that repeat a name", found)


def test_messages_are_short() -> None:
    found = [
        f"{named(path, line)}: {len(text)} letters: {text[:60]}..."
        for path in files("agent", "promptassay")
        for line, text, is_help in strings(path)
        if len(text) > MOST_LETTERS and " " in text and "\n" not in text and not is_help and not NO_MESSAGE.search(text)
    ]
    require_none("long messages", found)
