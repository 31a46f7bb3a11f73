"""What the ledger says by plain SQL and by commands agrees; and an altered ledger is refused."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.world import INSTRUCTION, good, good_json, optimize, refused
from tests.conftest import Made

OF = "FROM calls k WHERE k.run_id = t.run_id AND k.candidate_id = c.id"
SQL = f"""
SELECT t.number, t.state, t.n, t.mean, c.technique, c.format, c.instruction,
       (SELECT group_concat(example_id, ',') FROM (SELECT example_id FROM examples d WHERE d.candidate_id = c.id
         ORDER BY position)) AS demos,
       (SELECT COUNT(*) {OF} AND k.state <> 'cached') AS calls,
       (SELECT COUNT(*) {OF} AND k.state = 'cached') AS cached,
       (SELECT SUM(prompt_tokens + completion_tokens) {OF} AND k.state <> 'cached') AS tokens,
       (SELECT SUM(cost_usd) {OF}) AS cost_usd
FROM trials t JOIN prompts c ON c.id = t.candidate_id WHERE t.run_id = ? ORDER BY t.number
"""
PER_ROW = "SELECT COUNT(*), AVG(value) FROM outcomes WHERE split = 'dev' AND run_id = ? AND candidate_id = ?"
SPENT = "SELECT SUM(cost_usd), COUNT(*) FROM calls WHERE run_id = ? AND state <> 'cached'"


def test_the_ledger_by_sql_and_the_views_of_a_run_agree(two_runs: Made) -> None:
    run = two_runs[0]
    with closing(sqlite3.connect("file:runs/ledger.db?mode=ro", uri=True)) as db:
        db.row_factory = sqlite3.Row
        rows = [dict(row) for row in db.execute(SQL, (run["run_id"],))]
        trials = good_json("history", run["run_id"])["trials"]
        for row, trial in zip(rows, trials, strict=True):
            cost, tokens, demos = row.pop("cost_usd"), row.pop("tokens"), row.pop("demos")
            assert row.items() <= trial.items()
            assert ((demos or "").split(","), tokens or 0) == (trial["demos"] or [""], trial["tokens"])
            assert trial["cost_usd"] == pytest.approx(cost or 0.0)
            count, mean = db.execute(PER_ROW, (run["run_id"], trial["candidate_id"])).fetchone()
            assert (count, mean) == (trial["n"], pytest.approx(trial["mean"]))
        spent = tuple(db.execute(SPENT, (run["run_id"],)).fetchone())
    assert spent == (pytest.approx(run["cost_usd"]), run["calls"]["model"] + run["calls"]["proposer"])
    for state, count in run["trials"].items():
        assert sum(trial["state"] == state for trial in trials) == count
    whole = good_json("history", run["run_id"], "--trial", "1")
    assert len(whole["outcomes"]["dev"]) == trials[1]["n"]
    assert [demo["example_id"] for demo in whole["candidate"]["demos"]] == trials[1]["demos"]
    shown = good_json("show", run["run_id"])
    assert (shown["result"], shown["winner"]["id"]) == (run, run["winner"]["candidate_id"])
    assert shown["baseline"]["instruction"] == INSTRUCTION
    assert {listed["id"]: listed["result"] for listed in good_json("runs")["runs"]}[run["run_id"]] == run


def test_an_altered_ledger_is_named_by_doctor_and_refused_by_the_others(two_runs: Made) -> None:
    with closing(sqlite3.connect("runs/ledger.db")) as db, db:
        (guard,) = db.execute("SELECT sql FROM sqlite_master WHERE name = 'events_append_only_update'").fetchone()
        db.execute("DROP TRIGGER events_append_only_update")
        db.execute("UPDATE events SET body = '{}' WHERE seq = 2")
        db.execute(guard)
    result = optimize("doctor", "--json")
    (check,) = [check for check in json.loads(result.stdout)["checks"] if check["what"] == "runs/ledger.db"]
    assert (result.exit_code, check["ok"], "event 2" in check["found"]) == (1, False, True)
    for command in ("runs", "show", "history", "resume", "export"):
        assert "the ledger was altered" in refused(1, command)[0]


def test_promptfoos_tests_become_a_task_that_names_their_file() -> None:
    told = [
        {"vars": {"text": f"row {n} {'abcd'[n % 4]}"}, "assert": [{"type": "equals", "value": "xy"[n % 2]}]}
        for n in range(60)
    ]
    Path("promptfooconfig.yaml").write_text(f"tests: {json.dumps(told)}\n")
    words = good("init", "mine", "--from", "promptfooconfig.yaml")
    assert words.splitlines()[0].startswith("promptfooconfig.yaml: 60 rows")
    assert "column 'expected': target (the column to predict)" in words
    odd = optimize("init", "a b", "--from", "promptfooconfig.yaml")
    assert (odd.exit_code, "'a b': a task's folder has a name of letters" in odd.output) == (2, True)
