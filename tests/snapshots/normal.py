"""What differs between machines and moments, put in the same words by a few named rules."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import promptassay
from agent.extras import MODULES

ROOT = Path(promptassay.__file__).resolve().parents[1]
RUN_ID = re.compile(r"\b\d{8}T\d{6}-[0-9a-f]{6}\b")
ANSI = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]|\x1b\]8;[^\x1b]*\x1b\\")
RULES: Mapping[str, tuple[re.Pattern[str], str]] = {
    "colour": (ANSI, ""),
    "moment": (re.compile(r"\b20\d\d-\d\d-\d\d([T ]\d\d?[\d:.]*(…|Z|\+00:00| UTC)?)?"), "<moment>"),
    "duration": (re.compile(r"(?<![\w.]) *\b\d+(\.\d+)? (s|ms|min|h|seconds)\b(?! a\b)"), " <duration>"),
    "duration in a table": (re.compile(r"(?m)^(seconds|latency_s)[\d.\s]*[\d.]"), r"\1 <duration>"),
    "duration in XML": (re.compile(r'time="[\d.]+"'), 'time="<duration>"'),
    "hash": (re.compile(r"\b[0-9a-f]{64}\b"), "<hash>"),
    "start of a hash": (re.compile(r"(?<=ledger head )[0-9a-f]{16}\b"), "<hash>"),
    "version of a library": (re.compile(r"(?<= by )([\w-]+) \d+\.[\d.]*\d"), r"\1 <version>"),
    "name of a batch": (re.compile(r"\bb_[0-9a-f]{16}\b"), "b_<batch>"),
    "address": (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:<port>"),
    "this machine": (
        re.compile(r"(?m)^([\w.-]+\t)(ok\t(?!free|fits).*\d.*|ok\tinstalled|-\tnot installed;.*)"),
        r"\1<found>",
    ),
    "end of line": (re.compile(r"[ \t]+$", re.MULTILINE), ""),
    "latency of an arm": (re.compile(r"(?m)^(  .*\d to [+-]?\d.*) 0\.0\d$"), r"\1 <latency>"),
}
"""By name the texts that are replaced, and by what. Ids of runs and folders are replaced by `Words`."""
MEASURED = re.compile(r"(.*_)?(seconds|latency_s|latency|wall_s|utc|python|sqlite|platform|versions|size|bytes|pid)")
"""Keys of JSON objects whose values are measured, not computed."""
DIGITS = 9
"""Significant digits of a number: the rest depends on the processor."""


class Words:
    """Replaces what is different in every recording and on every machine.

    Args:
        names: By name the id of a recorded run.
        folder: The current one.
    """

    def __init__(self, names: Mapping[str, str], folder: Path) -> None:
        self._names = {run: name for name, run in names.items()}
        self._folders = {str(folder): "<here>", str(ROOT): "<package>"}

    def text(self, text: str) -> str:
        for folder, name in self._folders.items():
            text = text.replace(folder, name)
        text = RUN_ID.sub(self._run, text)
        for pattern, words in RULES.values():
            text = pattern.sub(words, text)
        return text

    def _run(self, found: re.Match[str]) -> str:
        """As wide as the id, so that columns stay."""
        return f"RUN:{self._names.get(found[0], 'new')}".ljust(len(found[0]), ".")

    def json(self, text: str) -> str:
        """A JSON object, its keys sorted, one value a line."""
        return self.text(json.dumps(_plain(json.loads(text)), indent=1, sort_keys=True, ensure_ascii=False)) + "\n"


def _plain(value: Any, key: str = "") -> Any:
    if (MEASURED.fullmatch(key) and value is not None) or (key == "found" and isinstance(value, str)):
        return "<measured>"
    if isinstance(value, dict):
        measured = {"ok"} if value.get("what") in MODULES.values() else set[str]()  # an extra, installed or not
        return {name: "<measured>" if name in measured else _plain(each, name) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


OF_THE_EXPORT = {"render", "parse", "labelled", "ReleasedPrompt", "MODEL", "VERSION", "PICKS", "HEAD", "REASONING"}
"""What an exported module offers; all else in it is our own code, but for names with a type, which hold data."""


def code_outline(source: str) -> str:
    """An exported Python module by what it offers, and by its data."""
    lines = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name in OF_THE_EXPORT:
            lines.append(f"def {node.name}({ast.unparse(node.args)})")
        elif isinstance(node, ast.ClassDef) and node.name in OF_THE_EXPORT:
            lines.append(f"class {node.name}")
        elif isinstance(node, ast.AnnAssign) or (
            isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in OF_THE_EXPORT
        ):
            lines.append(ast.unparse(node))
    return "\n".join(lines) + "\n"


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in ("style", "script")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("style", "script")

    def handle_data(self, data: str) -> None:
        if data.strip() and not self._hidden:
            self.lines.append(" ".join(data.split()))


def page_text(html: str) -> str:
    """What a page says, a piece of text a line."""
    page = _Page()
    page.feed(html)
    return "\n".join(page.lines) + "\n"
