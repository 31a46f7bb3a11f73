"""A small good task folder, and what each test changes in it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from agent.errors import ProblemsError
from agent.task.load import load_task

TOML = '''\
#:schema ../task.schema.json
name = "support_triage"
description = "Route a customer's message to one of three teams."
signature = "message -> team"
instruction = """
Read the message and answer with one team.
{{message}}
"""

[fields.message]
description = "the customer's message"

[fields.team]
type = "choice"
choices = ["billing", "delivery", "refunds"]

[[metrics]]
name = "exact_match"
field = "team"
weight = 3
ignore_case = true

[[metrics]]
name = "choice"

[models]
model = "local/smollm2-135m"
max_tokens = 20

[search]
techniques = ["zero-shot", "few-shot"]
formats = ["turns", "inline"]
demo_counts = [8, 4]
roles = ["You are a careful clerk."]

[constraints]
max_prompt_tokens = 4000
max_examples = 24
forbidden = ["password"]

[budget]
max_calls = 900
max_cost = 1.5
time_limit = "1h30m"
'''
TEAMS = ("billing", "delivery", "refunds")
WHERE = re.compile(r".+:\d+: .+")


def rows(split: str, count: int = 6) -> list[dict[str, Any]]:
    return [{"message": f"{split} message number {n} about {TEAMS[n % 3]}", "team": TEAMS[n % 3]} for n in range(count)]


def jsonl(table: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in table)


def make(folder: Path, toml: str = TOML, **files: str | bytes) -> Path:
    """A task folder in `folder`; `train`, `dev`, `test` replace a split, other names (`metric__py`) are files."""
    folder.mkdir(parents=True, exist_ok=True)
    texts: dict[str, str | bytes] = {f"{split}__jsonl": jsonl(rows(split)) for split in ("train", "dev", "test")}
    texts["task__toml"] = toml
    texts |= {f"{name}__jsonl" if "__" not in name else name: text for name, text in files.items()}
    for name, text in texts.items():
        (folder / name.replace("__", ".")).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


def problems(folder: Path) -> list[str]:
    """The lines of the ProblemsError that loading raises ([] when it loads); every line must have its form."""
    try:
        load_task(folder)
        return []
    except ProblemsError as error:
        found = error
    lines = str(found).split("\n")
    assert lines == [str(problem) for problem in found.problems]
    assert all(WHERE.fullmatch(line) and line.isprintable() for line in lines), lines
    return lines


def changed(old: str, new: str, count: int = 1) -> str:
    assert old in TOML
    return TOML.replace(old, new, count)


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1
