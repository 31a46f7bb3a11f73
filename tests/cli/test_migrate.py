"""`optimize migrate`: a released prompt goes to another model from its run's history, and is shown not to be worse."""

from __future__ import annotations

import csv
import json
from contextlib import closing
from pathlib import Path

import promptassay as pa
from agent.jobs.locations import LEDGER, open_history
from agent.release.runtime import load_prompt
from tests.cli.world import good, good_json, knowing, learner, refused, stubborn
from tests.conftest import Made
from tests.scripted import Toys

FREE = ("--price", "0,0", "-q")


def test_a_model_that_is_as_good_is_released_with_its_lineage(two_runs: Made, toys: Toys) -> None:
    """What it prints is in tests/snapshots."""
    first, _ = two_runs
    version, model = load_prompt(first["release"]).version, toys(learner)
    result = good_json("migrate", first["run_id"], "--model", model.name, *FREE, "--margin", "10")
    asked = [json.dumps(body) for body in model.bodies]
    assert len(asked) == sum(result["calls"][role] for role in ("model", "proposer", "judge")) <= 150
    test = result["migration"]["test"]
    assert (result["migration"]["run"], result["migration"]["version"]) == (first["run_id"], version)
    assert test["shown"] == (test["low"] > -0.1)
    assert result["decision"] == ("promote" if test["shown"] else "keep_baseline")
    assert test["shown"], "the same answers on the same rows"
    assert test["n"] == len(
        {row["id"] for row in sealed_rows(first["run_id"]) if any(row["text"] in text for text in asked)}
    )
    release = load_prompt(result["release"])
    assert release.release.model == model.name
    assert release.provenance["parent_version"] == version
    assert release.provenance["parent_model"] == first["model"]
    with closing(open_history(LEDGER)) as history:
        row = history.run(result["run_id"])
        tried = {trial["candidate_id"] for trial in history.trials(result["run_id"])}
        before = {trial["candidate_id"] for trial in history.trials(first["run_id"])}
    assert (row["parent"], row["tags"]["migrated_from"]) == (first["run_id"], first["run_id"])
    assert len(tried & before) >= 3, "the old run's prompts are raced"
    assert "the same" in good("reproduce", result["run_id"], "--offline")
    assert "PROBLEM" not in good("audit", "check", result["run_id"])
    moved = good_json("promote", result["run_id"], "--alias", "staging")
    assert moved["version"] == release.version


def sealed_rows(run_id: str) -> list[dict[str, str]]:
    """The rows that a run opened at its end."""
    opened = "SELECT DISTINCT example_id FROM outcomes WHERE split = 'test' AND run_id = ?"
    with closing(open_history(LEDGER)) as history:
        ids = {row["example_id"] for row in history.select(opened, run_id)}
    with Path("rows.csv").open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["id"] in ids]


def test_a_model_that_is_worse_leaves_the_release_as_it_was(two_runs: Made, toys: Toys) -> None:
    first, _ = two_runs
    good("promote", first["run_id"])
    result = pa.migrate("rows@production", model=toys(stubborn).name, price=(0, 0))
    assert result.decision == "keep_baseline"
    assert set(result.blocked_codes) >= {"loss_not_ruled_out", "no_better_than_constant"}
    assert result.migration is not None
    assert not result.migration.test.shown
    kept, old = load_prompt(result.release.path), load_prompt(first["release"])
    assert kept.version == old.version, "the old model's prompt, to the letter"
    assert (Path(result.release.path).parent / "held" / "prompt.md").is_file()
    assert f"Keep {first['model']}: a loss of more than 5 points against" in good("show", result.run_id)
    assert refused(100, "promote", result.run_id)


def test_a_limit_on_examples_keeps_the_released_prompt_out(two_runs: Made, toys: Toys) -> None:
    first, _ = two_runs
    words = ("migrate", first["run_id"], "--model", toys(knowing).name, *FREE, "--max-examples", "0")
    plan, result = good_json(*words, "--dry-run"), good_json(*words)
    assert first["winner"]["n_examples"] > 0
    assert result["winner"]["n_examples"] == 0
    with closing(open_history(LEDGER)) as history:
        (released, *others) = history.trials(result["run_id"])
    assert (released["state"], released["n"]) == ("failed", 0)
    assert "more than the 0 of this run" in released["reason"]
    assert {trial["n_examples"] for trial in others} == {0}
    assert plan["margin"] == 0.05 <= plan["smallest_margin"]
    again = ("resume", result["run_id"], "--fork", "-q", "--model")
    assert "this is the model that the prompt is for" in refused(2, *again, first["model"])[0]


def test_what_cannot_be_migrated_is_refused_in_a_line_before_a_call(two_runs: Made, toys: Toys) -> None:
    run, model = two_runs[0]["run_id"], toys(knowing)

    def said(code: int, *words: str, new: str = model.name) -> str:
        (line, *_) = refused(code, "migrate", *words, "--model", new, *FREE)
        return line

    assert "this is the model that the prompt is for" in said(2, run, new=two_runs[0]["model"])
    assert "no ledger here" in said(2, two_runs[0]["release"], "--db", "elsewhere/ledger.db")
    assert "max_calls = 20 is too few to migrate a prompt of this task; give" in said(3, run, "--max-calls", "20")
    assert "no such file" in said(2, "nowhere/prompt.md")
    assert "prompt.md: no such file; released prompts are in" in said(2, ".")
    for more in ([], ["--dry-run"]):
        assert "it takes at least" in said(3, run, "--max-tokens", "2000", *more)
    rows = Path("rows.csv").read_text("utf-8")
    Path("rows.csv").write_text(rows + "r999,one more row about a parcel,delivery\n", "utf-8")
    assert "changed since, so its scores cannot be compared" in said(2, run)
    Path("rows.csv").write_text(rows, "utf-8")
    good("audit", "erase", "--containing", "billing", "--actor", "a", "--reason", "r", "--yes")
    assert "erased" in said(2, run)
    assert not model.seen
