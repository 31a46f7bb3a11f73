"""A conversation that goes on with the embedded model's own replies: searched, killed in the middle, and resumed."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agent.models.weights import weights_path
from tests.cli.test_interrupt import told, trials
from tests.cli.world import good_json

pytestmark = [
    pytest.mark.long,
    pytest.mark.engine,
    pytest.mark.skipif(not weights_path("smollm2-135m").is_file(), reason="no weights here: run `make setup`"),
]
COMMAND = [sys.executable, "-c", "from agent.cli import main; main()"]
RUN = ["run", "desk", "--max-calls", "300", "-n", "4", "-q", "--json"]
TASK = """\
name = "desk"
description = "Say which counter a guest is sent to, after two messages."
signature = "messages -> counter"
instruction = "You help guests at a station. At the end, name the counter: tickets or luggage."

[fields.messages]
type = "conversation"

[fields.counter]
type = "choice"
choices = ["tickets", "luggage"]

[[metrics]]
name = "exact_match"

[conversation]
reply_tokens = 8
"""
WANTS = {"tickets": ("a seat to", "the fare to", "a return to"), "luggage": ("my bag from", "a suitcase from")}
PLACES = ("Rome", "Oslo", "Lima", "Cairo", "Kyoto", "Quito", "Delhi", "Bern", "Turin", "Perth")


def write_task() -> None:
    """30 rows a split, of two messages each; the model answers the first as well."""
    rows = [
        (label, f"Hello, it is about {want} {place}.") for place in PLACES for label in WANTS for want in WANTS[label]
    ]
    rows = [(label, text, last) for last in ("Where do I go?", "Which counter, please?") for label, text in rows]
    folder = Path("desk")
    folder.mkdir()
    (folder / "task.toml").write_text(TASK)
    for at, split in enumerate(("train", "dev", "test")):
        part = [
            {"id": f"{n}", "messages": [text, last], "counter": label} for n, (label, text, last) in enumerate(rows)
        ]
        lines = [json.dumps(row) for row in part[at::3][:30]]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")


def settled(db: str = "runs/ledger.db") -> list[Any]:
    """The keys of the calls that were answered, as often as they were bought."""
    with sqlite3.connect(f"file:{db}?mode=ro", uri=True) as ledger:
        return [key for (key,) in ledger.execute("SELECT call_key FROM calls WHERE state = 'ok'")]


def test_a_dialogue_of_the_embedded_model_is_searched_and_a_kill_buys_no_turn_twice(here: Path) -> None:
    write_task()
    whole = good_json(*RUN, "--db", "whole/ledger.db")
    assert 60 < len(settled("whole/ledger.db")) <= 300
    process = subprocess.Popen([*COMMAND, *RUN], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and not (Path("runs/ledger.db").exists() and len(settled()) >= 40):
        time.sleep(0.2)
    process.kill()
    process.wait(60)
    before = settled()
    assert 40 <= len(before) < len(settled("whole/ledger.db")), "in the middle"
    result = good_json("resume", "-q")
    after = settled()
    assert max(Counter(after).values()) == 1
    assert set(before) < set(after)
    assert told(result)["winner"] == told(whole)["winner"]
    assert [trial[:5] for trial in trials()] == [trial[:5] for trial in trials("whole/ledger.db")]
