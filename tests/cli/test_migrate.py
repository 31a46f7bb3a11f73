"""`optimize migrate`: a released prompt goes to another model from its run's history, and is shown not to be worse."""

from __future__ import annotations

import csv
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import promptassay as pa
from agent.jobs.locations import LEDGER, open_history
from agent.release.runtime import load_prompt
from tests.cli.world import compatible, good, good_json, knowing, learner, refused, stubborn
from tests.conftest import Made
from tests.wire import WireServer

FREE = ("--price", "0,0", "-q")


def run_row(run_id: str) -> dict[str, Any]:
    with closing(open_history(LEDGER)) as history:
        return history.run(run_id)


def test_a_model_that_is_as_good_is_released_with_its_lineage(two_runs: Made) -> None:
    first, _ = two_runs
    version = load_prompt(first["release"]).version
    with WireServer(learner) as server:
        words = ("migrate", first["run_id"], "--model", compatible(server), *FREE, "--margin", "10")
        plan = good(*words, "--dry-run")
        assert not server.requests
        result = good_json(*words)
        asked = [json.dumps(request.body) for request in server.requests]
    assert "prompts of that run to start from, about " in plan
    assert "pass this sealed test from about --margin" in plan
    assert len(asked) == sum(result["calls"][role] for role in ("model", "proposer", "judge")) <= 150
    test = result["migration"]["test"]
    assert (result["migration"]["run"], result["migration"]["version"]) == (first["run_id"], version)
    assert test["shown"] == (test["low"] > -0.1)
    assert result["decision"] == ("promote" if test["shown"] else "keep_baseline")
    assert test["shown"], "the same answers on the same rows"
    assert test["n"] == len(
        {row["id"] for row in sealed_rows(first["run_id"]) if any(row["text"] in text for text in asked)}
    )
    row = run_row(result["run_id"])
    assert row["parent"] == first["run_id"]
    assert row["tags"]["migrated_from"] == first["run_id"]
    release = load_prompt(result["release"])
    assert release.release.model == compatible(server)
    assert release.provenance["parent_version"] == version
    assert release.provenance["parent_model"] == first["model"]
    history = open_history(LEDGER)
    tried = {trial["candidate_id"] for trial in history.trials(result["run_id"])}
    before = {trial["candidate_id"] for trial in history.trials(first["run_id"])}
    history.close()
    assert len(tried & before) >= 3, "the old run's prompts are raced"
    screen, page = good("show", result["run_id"]), Path("m.html")
    good("report", result["run_id"], "-o", page)
    for surface in (screen, page.read_text("utf-8")):
        assert "by more than 10 points" in surface
        assert "old model" in surface
        assert "Keep your prompt" not in surface
        assert "your prompt" not in surface.casefold().partition("your prompt, or baseline")[0]
    assert "== diff to the released prompt ==" in screen
    assert ">the released prompt" in page.read_text("utf-8")
    assert "the same" in good("reproduce", result["run_id"], "--offline")
    assert "PROBLEM" not in good("audit", "check", result["run_id"])
    moved = good_json("promote", result["run_id"], "--alias", "staging")
    assert moved["version"] == release.version


def sealed_rows(run_id: str) -> list[dict[str, str]]:
    """The rows that a run opened at its end."""
    history = open_history(LEDGER)
    opened = "SELECT DISTINCT example_id FROM outcomes WHERE split = 'test' AND run_id = ?"
    ids = {row["example_id"] for row in history.select(opened, run_id)}
    history.close()
    with Path("rows.csv").open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["id"] in ids]


def test_a_model_that_is_worse_leaves_the_release_as_it_was(two_runs: Made) -> None:
    first, _ = two_runs
    good("promote", first["run_id"])
    with WireServer(stubborn) as server:
        result = pa.migrate("rows@production", model=compatible(server), price=(0, 0))
    assert result.decision == "keep_baseline"
    assert set(result.blocked_codes) >= {"loss_not_ruled_out", "no_better_than_constant"}
    assert result.migration is not None
    assert not result.migration.test.shown
    kept, old = load_prompt(result.release.path), load_prompt(first["release"])
    assert kept.version == old.version, "the old model's prompt, to the letter"
    assert (Path(result.release.path).parent / "held" / "prompt.md").is_file()
    screen = good("show", result.run_id)
    assert f"Keep {first['model']}: a loss of more than 5 points against" in screen
    assert "the prompt of the old model" in screen
    assert refused(100, "promote", result.run_id)


def test_a_limit_on_examples_keeps_the_released_prompt_out(two_runs: Made) -> None:
    first, _ = two_runs
    with WireServer(knowing) as server:
        words = ("migrate", first["run_id"], "--model", compatible(server), *FREE, "--max-examples", "0")
        plan, result = good_json(*words, "--dry-run"), good_json(*words)
        assert first["winner"]["n_examples"] > 0
        assert result["winner"]["n_examples"] == 0
        history = open_history(LEDGER)
        (released, *others) = history.trials(result["run_id"])
        history.close()
        assert (released["state"], released["n"]) == ("failed", 0)
        assert "more than the 0 of this run" in released["reason"]
        assert {trial["n_examples"] for trial in others} == {0}
        assert plan["margin"] == 0.05 <= plan["smallest_margin"]
        again = ("resume", result["run_id"], "--fork", "-q", "--model")
        assert "this is the model that the prompt is for" in refused(2, *again, first["model"])[0]


def test_what_cannot_be_migrated_is_refused_in_a_line_before_a_call(two_runs: Made) -> None:
    first, _ = two_runs
    with WireServer(knowing) as server:
        new = compatible(server)

        def said(code: int, *words: str) -> str:
            (line, *_) = refused(code, "migrate", *words, *FREE)
            return line

        assert "this is the model that the prompt is for" in said(2, first["run_id"], "--model", first["model"])
        assert "no ledger here" in said(2, first["release"], "--model", new, "--db", "elsewhere/ledger.db")
        assert "are too few to migrate" in said(3, first["run_id"], "--model", new, "--max-calls", "20")
        assert "no such file" in said(2, "nowhere/prompt.md", "--model", new)
        assert "prompt.md: no such file; released prompts are in" in said(2, ".", "--model", new)
        few = ("--max-tokens", "2000")
        assert "it takes at least" in said(3, first["run_id"], "--model", new, *few)
        assert "it takes at least" in said(3, first["run_id"], "--model", new, *few, "--dry-run")
        rows = Path("rows.csv").read_text("utf-8")
        Path("rows.csv").write_text(rows + "r999,one more row about a parcel,delivery\n", "utf-8")
        assert "changed since, so its scores cannot be compared" in said(2, first["run_id"], "--model", new)
        Path("rows.csv").write_text(rows, "utf-8")
        erase = ("audit", "erase", "--containing", "billing", "--actor", "a", "--reason", "r", "--yes")
        good(*erase)
        assert "erased" in said(2, first["run_id"], "--model", new)
        assert not server.requests
