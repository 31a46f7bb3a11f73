"""Find every regular expression of the package by its syntax tree, with the methods that are called on it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCANS = ("finditer", "fullmatch", "match")
"""What is tried where the code does not say how a pattern is used."""
_METHOD = {"sub": "finditer", "subn": "finditer", "split": "finditer", "findall": "finditer"}
_CALLS = ("compile", "search", "match", "fullmatch", "sub", "subn", "split", "findall", "finditer")
_UNKNOWN = "ab"
"""Stands for a part that only a run of the code could tell, such as an escaped label."""


@dataclass(frozen=True)
class Found:
    """A regular expression with its place and its use."""

    where: str
    source: str | None
    """None where it is no literal."""
    argument: str
    """The code that makes it."""
    flags: int
    methods: tuple[str, ...]


class _Texts(ast.NodeVisitor):
    """Texts that are assigned to a name anywhere in a module."""

    def __init__(self) -> None:
        self.nodes: dict[str, ast.expr] = {}

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            if isinstance(target, ast.Name):
                self.nodes[target.id] = node.value
            elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                for part, value in zip(target.elts, node.value.elts, strict=False):
                    if isinstance(part, ast.Name):
                        self.nodes[part.id] = value


@cache
def patterns(folders: tuple[str, ...] = ("agent", "promptassay")) -> list[Found]:
    """All of the package, one for each call of `re`."""
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    trees = {path.relative_to(ROOT).as_posix(): tree for path in paths if (tree := _parsed(path)) is not None}
    used = _uses(trees)
    return [each for name, tree in trees.items() for each in _in_module(name, tree, used)]


def _parsed(path: Path) -> ast.Module | None:
    try:
        return ast.parse(path.read_text("utf-8"))
    except SyntaxError:  # the template of an export
        return None


def _uses(trees: Mapping[str, ast.Module]) -> dict[tuple[str, str], set[str]]:
    """By module and name of a pattern, the methods that are called; a public name is used by any module."""
    used: dict[tuple[str, str], set[str]] = {}
    for module, tree in trees.items():
        called: set[int] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and (name := _last(node.value)):
                called.add(id(node.value))
                for where in (module, "") if not name.startswith("_") else (module,):
                    used.setdefault((where, name), set()).add(node.attr)
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and id(node) not in called:
                used.setdefault((module, node.id), set()).update(SCANS)
    return used


def _last(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _in_module(module: str, tree: ast.Module, used: Mapping[tuple[str, str], set[str]]) -> Iterator[Found]:
    texts = _Texts()
    texts.visit(tree)
    names = {id(node.value): _last(node.targets[0]) for node in ast.walk(tree) if isinstance(node, ast.Assign)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if not (isinstance(node.func.value, ast.Name) and node.func.value.id == "re" and node.func.attr in _CALLS):
            continue
        how: tuple[str, ...] = (node.func.attr,)
        if node.func.attr == "compile":
            name = names.get(id(node), "")
            where = module if name.startswith("_") else ""
            found = used.get((where, name), set()) | used.get((module, name), set())
            how = tuple(sorted(found & {*_CALLS, *SCANS})) if name and found else SCANS
        yield Found(
            f"{module}:{node.lineno}",
            _text(node.args[0], texts.nodes),
            ast.unparse(node.args[0]),
            _flags(node),
            tuple(dict.fromkeys(_METHOD.get(each, each) for each in how)),
        )


def _text(node: ast.expr, texts: Mapping[str, ast.expr], depth: int = 0) -> str | None:
    """The pattern that an expression makes, with `ab` for parts that are unknown; None where all of it is."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.Constant) and isinstance(node.value, bytes):
        return node.value.decode("latin-1")
    if isinstance(node, ast.Name) and node.id in texts and depth < 5:
        return _text(texts[node.id], texts, depth + 1)
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else _part(part, texts, depth) for part in node.values
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = (_text(side, texts, depth) for side in (node.left, node.right))
        return None if left is right is None else (left or _UNKNOWN) + (right or _UNKNOWN)
    return None


def _part(node: ast.expr, texts: Mapping[str, ast.expr], depth: int) -> str:
    return (isinstance(node, ast.FormattedValue) and _text(node.value, texts, depth)) or _UNKNOWN


def _flags(node: ast.Call) -> int:
    words = [arg for arg in ast.walk(node) if isinstance(arg, ast.Attribute) and arg.attr.isupper()]
    known = {"I", "M", "S", "X", "A", "IGNORECASE", "MULTILINE", "DOTALL", "VERBOSE", "ASCII"}
    total = 0
    for word in words:
        if word.attr in known and isinstance(word.value, ast.Name) and word.value.id == "re":
            total |= int(getattr(re, word.attr))
    return total
