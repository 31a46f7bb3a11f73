"""A long AGENTS.md with one wrong sentence, a shell script that scores it row by row, and a scripted proposer.

The script goes by words of the file: a row of a kind is right when the file has what the kind needs, and not its
opposite. So a further sentence mends nothing; the wrong one must be replaced.
"""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

from tests.cli.world import FILLER, write_lines
from tests.search.worlds import share

KINDS = {
    "amount": ("in euros", "in cents"),
    "date": ("day first", "month first"),
    "name": ("in capitals", "in italics"),
}
"""By kind of row what the file must say, and what it must not."""
LEFT_OUT, PLAIN = "left", "plain"
"""Kinds of rows that are right without the file alone, and always."""
SCRIPT = """#!/bin/sh
echo run >> runs.log
say() { echo "{\\"score\\": $1, \\"reason\\": \\"$2\\", \\"cost_usd\\": 0.001}"; }
wrong() { say 0 "the $1 of the invoice is wrong"; }
check() { if grep -q "$2" "$1" && ! grep -q "$3" "$1"; then say 1 fine; else wrong "$4"; fi; }
IFS= read -r row < "$2"
case "$row" in
*'"kind": "plain"'*) say 1 fine ;;
*'"kind": "left"'*) if [ -f "$1" ]; then say 0 "it ran out of time"; else say 1 fine; fi ;;
"""
for _kind, (_good, _bad) in KINDS.items():
    SCRIPT += f"""*'"kind": "{_kind}"'*) [ -f "$1" ] || touch "$1"; check "$1" "{_good}" "{_bad}" {_kind} ;;\n"""
SCRIPT += "*) echo broken >&2; exit 3 ;;\nesac\n"
COMMAND = "sh score.sh {file} {row}"


def agents_md(wrong: str = "", sections: int = 130) -> str:
    """About 100 kB of rules, with the wrong sentence for one kind."""
    rng = random.Random(7)
    parts = ["# Rules for agents\n\nWork carefully.\n"]
    for number in range(sections):
        words = " ".join(rng.choice(FILLER) for _ in range(130))
        parts.append(f"## Part {number}\n\n{words.capitalize()}.\n")
    for at, (kind, (good, bad)) in enumerate(KINDS.items()):
        says = bad if kind == wrong else good
        text = f"## Invoices: the {kind}\n\nWrite the {kind} of an invoice {says}.\n"
        parts.insert(1 + (at + 1) * sections // 4, text)
    return "\n".join(parts)


def write_world(
    wrong: str = "", kinds: tuple[str, ...] = (*KINDS, PLAIN), rows: int = 160, sections: int = 130
) -> None:
    """Write AGENTS.md, rows.jsonl and score.sh to the current folder."""
    rng = random.Random(3)
    Path("AGENTS.md").write_text(agents_md(wrong, sections), "utf-8")
    write_lines(
        "rows.jsonl",
        ({"task": " ".join(rng.sample(FILLER, 9)), "kind": kinds[number % len(kinds)]} for number in range(rows)),
    )
    Path("score.sh").write_text(SCRIPT, "utf-8")


class Editor:
    """The scripted proposer: replaces the wrong words where it sees them; a share of its replies is of no use."""

    def __init__(self, reliable: float = 1.0) -> None:
        self.reliable, self.longest, self.asked = reliable, 0, 0

    def __call__(self, messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
        asked = messages[-1]["content"]
        self.longest, self.asked = max(self.longest, len(asked)), self.asked + 1
        draw = share(asked, str(body.get("seed")))
        seen = [(good, bad) for good, bad in KINDS.values() if bad in asked]
        begins = re.search(r"Begin with: (.*)", asked)
        if draw >= self.reliable or not seen:
            useless = ("", "I would gladly help.", "DELETE: Work carefully.", "ADD: Be kind to all, always.")
            return useless[int(draw * 1e6) % len(useless)]
        if begins is not None:
            return f"{begins[1]} the invoice is unclear, ask number {int(draw * 1e6) % 997}."
        return f"REPLACE: {seen[0][1]} -> {seen[0][0]}"


def is_right(text: str) -> bool:
    """Whether the text says all that rows need."""
    return all(good in text and bad not in text for good, bad in KINDS.values())


def runs() -> int:
    """How often the script was run."""
    log = Path("runs.log")
    return len(log.read_text("utf-8").splitlines()) if log.is_file() else 0
