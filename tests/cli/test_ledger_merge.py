"""`optimize ledger merge`: what commands and pages show of a merged ledger is what they show of its sources."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent.ledger.files import seal_path
from agent.ledger.store import Ledger, NewRun, Reservation
from agent.types import Completion, Usage
from tests.cli.world import good, good_json, optimize
from tests.conftest import Made
from tests.ledger.ledgers import read
from tests.toys import ask, make_task

DB, OTHER, TEAM = Path("runs/ledger.db"), Path("other/ledger.db"), Path("runs/team.db")
NOWHERE = "openai-compatible/x@http://[::1]:1/v1"
NUMBERED = {"seq", "id", "call", "ledger"}
"""What a merged ledger numbers anew."""


@pytest.fixture
def team(two_runs: Made) -> Made:
    OTHER.parent.mkdir()
    for run_id in ("run-1", "run-2"):
        asyncio.run(failed(OTHER, run_id))
    merged = good_json("ledger", "merge", OTHER, DB, "-o", TEAM)
    assert (merged["chains"], merged["runs"]) == (2, 4)
    assert {source["name"] for source in merged["sources"]} == {"runs/ledger.db", "other/ledger.db"}
    return two_runs


async def failed(path: Path, run_id: str) -> None:
    """Adds a run that ended early."""
    with closing(Ledger(path)) as ledger:
        ledger.begin_run(NewRun(run_id, make_task(), "m", "p", 7, {}, {}, options={"seed": 7}))
        for row in range(5):
            asked = Reservation(run_id, "model", "m", f"k-{row}", "", 1, ask(f"row {row}"), 0.5, 100)
            said = Completion("x", "stop", Usage(7, 2), "m-1")
            await ledger.settle(run_id, await ledger.reserve(asked), said, 0.125, 0.25)
        ledger.end_run(run_id, "failed", 1.0, error="no key")


def same(one: Any, other: Any) -> None:
    """Asserts that two values are equal but for numbers of events and calls."""
    if isinstance(one, dict):
        assert isinstance(other, dict)
        assert one.keys() == other.keys()
        for key in one.keys() - NUMBERED:
            same(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            same(left, right)
    else:
        assert one == other


def test_each_reading_command_says_the_same_of_a_run(team: Made) -> None:
    first, second = (run["run_id"] for run in team)
    winner = team[0]["winner"]["candidate_id"]
    for words in (
        ("history", first),
        ("history", "--search", "invoice", second),
        ("show", first),
        ("compare", first, second),
        ("audit", "show", first),
        ("audit", "show", f"{first}:1"),
        ("audit", "lineage", winner),
        ("audit", "check", first),
    ):
        same(good_json(*words, "--db", TEAM), good_json(*words, "--db", DB))
    assert {run["id"] for run in good_json("runs", "--db", TEAM)["runs"]} == {first, second, "run-1", "run-2"}
    for db, name in ((TEAM, "team.html"), (DB, "own.html")):
        good("report", first, "--db", db, "-o", name)
    page, own = (Path(name).read_text("utf-8") for name in ("team.html", "own.html"))
    assert page.replace(f" --db {TEAM}", "").replace(str(TEAM), str(DB)) == own


def test_verify_says_that_each_chain_is_whole(team: Made) -> None:
    lines = good("audit", "verify", "--db", TEAM).splitlines()
    heads = {str(path): read(path, "SELECT seq, hash FROM head")[0] for path in (OTHER, DB)}
    events = sum(seq for seq, _ in heads.values())
    assert set(lines[:2]) == {f"whole: {name}: {seq} events, head {digest}" for name, (seq, digest) in heads.items()}
    assert lines[2:] == [f"whole: 2 chains, {events} events in a merged ledger"]
    found = good_json("audit", "verify", "--db", TEAM)
    assert {(chain["name"], chain["events"], chain["head"]) for chain in found["chains"]} == {
        (name, *head) for name, head in heads.items()
    }


def test_a_report_of_it_does_not_accuse_the_ledger_of_the_run(team: Made) -> None:
    good("report", team[0]["run_id"], "--db", TEAM)
    for path in (TEAM, seal_path(TEAM)):
        shutil.move(path, Path("other") / path.name)
    assert good("audit", "verify", "--db", DB).startswith("whole: "), "what the page names is in the ledger itself"
    assert good("history", "--db", "other/team.db", team[0]["run_id"]), "it can be moved"


def test_writing_commands_refuse_it_in_one_line(team: Made) -> None:
    before = TEAM.read_bytes()
    run_id = team[0]["run_id"]
    for words in (
        ("resume", run_id, "--fork"),
        ("promote", run_id, "--alias", "production"),
        ("audit", "erase", "--containing", "invoice", "--actor", "a", "--reason", "r", "--yes"),
        ("audit", "anchor"),
        ("audit", "export", "-o", "x.jsonl"),
        ("audit", "export", "--format", "zip", run_id, "-o", "x.zip"),
        ("run", "rows.csv", "--target", "label", "--prompt", "p.txt", "--max-calls", "100", "-m", NOWHERE),
    ):
        result = optimize(*words, "--db", TEAM)
        assert result.exit_code != 0
        said = [line for line in result.stderr.splitlines() if line.startswith("error")]
        assert len(said) == 1, (words, result.stderr)
        assert "runs/team.db: a merged ledger: " in said[0], (words, said)
    assert TEAM.read_bytes() == before
