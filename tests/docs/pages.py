"""The pages of the manual and their code blocks."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
MANUAL = sorted(DOCS.rglob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *MANUAL]
NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.S | re.M)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced code block: its language and its text, without the indent of the fence."""

    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The code blocks of a page, in order."""
    return [
        Block(language, re.sub(rf"^{indent}", "", text, flags=re.M))
        for indent, language, text in FENCE.findall(page.read_text("utf-8"))
    ]


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return FENCE.sub("", page.read_text("utf-8"))


def commands(block: Block) -> Iterator[list[str]]:
    """The words of each `optimize ...` line of a shell block or of a `run:` line of a workflow."""
    if block.language not in {"bash", "yaml"}:
        return
    for line in block.text.splitlines():
        line = line.strip().removeprefix("- run: ").removeprefix(".venv/bin/")
        if line.startswith("optimize "):
            yield shlex.split(line, comments=True)[1:]
