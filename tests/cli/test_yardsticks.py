"""Every run says what is reached without a language model, and a winner that one constant answer matches stays back."""

from __future__ import annotations

import csv
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import promptassay as pa
from agent.errors import ReleaseError
from agent.release.file_release import read_files
from tests.cli.world import good, good_json, refused
from tests.conftest import Made
from tests.scripted import Toys

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
ASK = """
import json, sys
sys.path.insert(0, "arm")
from classifier import load
answer = load("arm")
print(json.dumps([answer(**json.loads(line)) for line in sys.stdin]))
"""


def test_the_best_of_them_is_exported_as_python_that_answers_as_it_was_scored(two_runs: Made) -> None:
    result, _ = two_runs
    told = good_json("export", result["run_id"], "--arm", "classic", "-o", "arm")
    best = max(result["yardsticks"][1:], key=lambda each: each["dev"])
    assert told["yardstick"] == best
    written = ["classifier.py", "model.json", "release.json", "rows.jsonl"]
    assert sorted(Path(file).name for file in told["files"]) == written
    with closing(sqlite3.connect("runs/ledger.db")) as db:
        outcomes = "SELECT json_extract(b.body, '$.fields.label'), o.example_id FROM outcomes o JOIN blobs b "
        outcomes += "ON b.hash = o.body_hash WHERE o.candidate_id = ? AND o.split = 'test' ORDER BY o.example_id"
        scored = db.execute(outcomes, (best["candidate_id"],)).fetchall()
    with open("rows.csv", newline="", encoding="utf-8") as file:
        texts = {row["id"]: row["text"] for row in csv.DictReader(file)}
    asked = "".join(json.dumps({"text": texts[example_id]}) + "\n" for _, example_id in scored)
    bare = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if "site-packages" in path),
    }
    said = subprocess.run(
        [sys.executable, "-c", ASK], input=asked, capture_output=True, text=True, check=True, env=bare
    )
    assert json.loads(said.stdout) == [answer for answer, _ in scored], "on the sealed rows, which it was not proved on"
    assert "name a folder" in refused(2, "export", "--arm", "classic")[0]

    release = read_files("arm")
    assert (release.name, release.version, release.loader) == ("rows", told["version"], "load_classifier")
    assert release.provenance["run_id"] == result["run_id"]
    loaded = pa.load_classifier("arm")
    assert [loaded(text=texts[example_id]) for _, example_id in scored] == [answer for answer, _ in scored]
    promoted = good_json("promote", result["run_id"], "--arm", "classic", "--override", "--reason", "as a test")
    assert promoted["version"] == told["version"], "what is promoted is what was exported"
    Path("arm/rows.jsonl").write_text("", "utf-8")
    with pytest.raises(ReleaseError, match=r"rows\.jsonl: was edited after release"):
        pa.load_classifier("arm")


TAGS = ("--target", "tags", "--prompt", "p.txt", "--max-calls", "250", "--proposer", "none", "--price", "0,0")


def same_tags(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
    """A model that says the same two tags to every row once it is shown examples, and nothing of use before."""
    return "bug; login" if len(messages) > 3 or "shipping" in messages[-1]["content"] else "I am not sure"


def test_a_set_that_is_the_same_for_all_rows_is_held_back_and_a_line_says_that_answers_hardly_vary(
    toys: Toys,
) -> None:
    Path("tags.csv").write_text((EXAMPLES / "tags.csv").read_text("utf-8"), "utf-8")
    Path("p.txt").write_text("Name the tags of the ticket.", "utf-8")
    result = good_json("run", "tags.csv", *TAGS, "-m", toys(same_tags).name)
    assert result["lift"]["p_value"] < 0.05, "it beats your prompt, which got nothing right"
    assert result["decision"] == "keep_baseline"
    assert result["blocked_codes"] == ["no_better_than_constant"]
    assert "a constant answer (constant set: " in result["blocked"][0]
    names = [each["name"] for each in result["yardsticks"]]
    assert names == ["constant set", "classifier", "nearest"]
    assert result["yardsticks"][1]["test"] > result["yardsticks"][0]["test"], "the ticket names its tags"
    counts = result["answers"]["winner"]
    assert counts["different"] == 1
    right = counts["different_right"]
    screen, page = good("show", result["run_id"]), Path("report.html")
    good("report", result["run_id"], "-o", page)
    for surface in (screen, page.read_text("utf-8")):
        assert f"gave the same answer on {counts['readable']} rows (your rows have {right})" in surface
        assert f"constant set {100 * result['yardsticks'][0]['test']:.1f}" in surface
    assert "the same" in good("reproduce", result["run_id"], "--offline")
    promoted = good_json("promote", result["run_id"], "--arm", "classic", "--override", "--reason", "as a test")
    ticket = "We were charged twice this month."
    said = pa.load_classifier(f"tags@{promoted['alias']}")(ticket=ticket)
    assert "billing" in said.split("; ")
