"""A task whose answers stand in its documents alone, and a model that can read."""

from __future__ import annotations

import json
import random
import re
from itertools import count
from pathlib import Path
from typing import Any

from tests.cli.world import write_lines

GOODS = [
    f"{a}{b}{c}"
    for a in ("bel", "cor", "dun", "fal", "gor", "hin", "jov", "kel")
    for b in "aeiou"
    for c in ("ta", "mi", "ro")
]
NONE = "not stated"
INSTRUCTION = "Answer with the price of the goods, as it stands on the page."
TOML = """\
name = "planted"
description = "The price of goods, out of the pages of a shop."
signature = "question -> answer"
instruction = {instruction}

[knowledge]
path = "pages"
source = "page"
unanswerable = "not stated"

[search]
techniques = ["zero-shot"]
formats = ["turns", "labelled-turns"]
"""


def price(goods: str) -> str:
    return f"{sum(map(ord, goods)) % 900 + 100} crowns"


def write_task(folder: Path, instruction: str = INSTRUCTION, rows: int = 60) -> Path:
    """A task folder with a page for each letter; every tenth question asks what no page says."""
    rng = random.Random(4)
    pages = folder / "pages"
    pages.mkdir(parents=True)
    for letter in sorted({goods[0] for goods in GOODS}):
        parts = [
            f"## {goods.capitalize()}\n\nA {goods} costs {price(goods)} in our shop.\n"
            for goods in GOODS
            if goods[0] == letter
        ]
        (pages / f"goods-{letter}.md").write_text(f"# Goods with {letter}\n\n" + "\n".join(parts), "utf-8")
    (folder / "task.toml").write_text(TOML.format(instruction=json.dumps(instruction)), "utf-8")
    numbers = count(1)
    for split in ("train", "dev", "test"):
        write_lines(folder / f"{split}.jsonl", [asked(rng.choice(GOODS), next(numbers)) for _ in range(rows)])
    return folder


def asked(goods: str, number: int) -> dict[str, str]:
    """A row; every tenth asks what no page says."""
    told = number % 10 != 0
    return {
        "question": f"What is asked for a {goods if told else f'{goods}xx'} by customer {number}?",
        "answer": price(goods) if told else NONE,
        "page": f"goods-{goods[0]}.md" if told else "",
    }


def reader(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
    """Answers with the price that a passage gives for the goods of the question, else that none is stated."""
    text = "\n".join(message["content"] for message in messages)
    asked = re.findall(r"asked for a (\w+) by", messages[-1]["content"])
    found = re.search(rf"A {asked[-1]} costs (\d+ crowns)", text) if asked else None
    return found[1] if found else NONE
