"""What the ledger says: by plain SQL and by the commands, which must agree; and the commands that need no run."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from agent.release.runtime import load_prompt
from tests.cli.world import INSTRUCTION, LINE, compatible, files, good, good_json, learner, optimize, refused
from tests.wire import WireServer

SQL = """
SELECT t.number, t.state, t.n, t.mean, c.technique, c.format, c.instruction,
       (SELECT group_concat(example_id, ',') FROM (SELECT example_id FROM examples d WHERE d.candidate_id = c.id
         ORDER BY position)) AS demos,
       (SELECT COUNT(*) FROM calls k WHERE k.run_id = t.run_id AND k.candidate_id = c.id
         AND k.state <> 'cached') AS calls,
       (SELECT COUNT(*) FROM calls k WHERE k.run_id = t.run_id AND k.candidate_id = c.id
         AND k.state = 'cached') AS hits,
       (SELECT SUM(prompt_tokens + completion_tokens) FROM calls k WHERE k.run_id = t.run_id AND k.candidate_id = c.id
         AND k.state <> 'cached') AS tokens,
       (SELECT SUM(cost_usd) FROM calls k WHERE k.run_id = t.run_id AND k.candidate_id = c.id) AS cost
FROM trials t JOIN prompts c ON c.id = t.candidate_id WHERE t.run_id = ? ORDER BY t.number
"""


@pytest.fixture
def run() -> dict[str, Any]:
    """A finished run in runs/ledger.db."""
    command = files(120)
    with WireServer(learner) as server:
        return good_json(*command, "-m", compatible(server), "--max-calls", "300", "--price", "1,2")


def test_the_ledger_by_sql_and_every_view_of_a_run_agree(run: dict[str, Any]) -> None:
    with sqlite3.connect("file:runs/ledger.db?mode=ro", uri=True) as db:
        rows = db.execute(SQL, (run["run_id"],)).fetchall()
        spent = db.execute("SELECT SUM(cost_usd), COUNT(*) FROM calls WHERE state <> 'cached'").fetchone()
        per_row = "SELECT COUNT(*), AVG(value) FROM outcomes WHERE split = 'dev' AND candidate_id = ?"
        found = good_json("history")
        assert found["run_id"] == run["run_id"]
        assert len(rows) == len(found["trials"]) > 5
        for row, trial in zip(rows, found["trials"], strict=True):
            number, state, n, mean, technique, layout, instruction, demos, calls, hits, tokens, cost = row
            assert (number, state, n, mean) == tuple(trial[key] for key in ("number", "state", "n", "mean"))
            assert (technique, layout, instruction) == tuple(trial[k] for k in ("technique", "format", "instruction"))
            assert (demos or "").split(",") == (trial["demos"] or [""])
            assert (calls, hits, tokens or 0) == (trial["calls"], trial["cached"], trial["tokens"])
            assert trial["cost_usd"] == pytest.approx(cost or 0.0)
            if state != "incomplete":
                count, average = db.execute(per_row, (trial["candidate_id"],)).fetchone()
                assert count == n
                assert average == pytest.approx(mean)
            whole = good_json("history", "--trial", str(number))
            assert len(whole["outcomes"]["dev"]) == n
            assert [demo["example_id"] for demo in whole["candidate"]["demos"]] == trial["demos"]
    assert 0 < sum(trial["cost_usd"] for trial in found["trials"]) <= run["cost_usd"] + 1e-9
    assert spent == (pytest.approx(run["cost_usd"]), run["calls"]["model"] + run["calls"]["proposer"])
    assert {t["state"] for t in found["trials"]} <= {"complete", "pruned", "failed", "incomplete"}
    for state, count in run["trials"].items():
        assert sum(trial["state"] == state for trial in found["trials"]) == count

    shown = good_json("show")
    assert shown["result"] == run
    assert shown["winner"]["id"] == run["winner"]["candidate_id"]
    assert shown["baseline"]["instruction"] == INSTRUCTION
    assert sum(c["cost_usd"] for c in shown["costs"]) == pytest.approx(run["cost_usd"])
    (listed,) = good_json("runs")["runs"]
    assert listed["result"] == run

    _check_words(run)
    _check_exports(run)


def _check_words(run: dict[str, Any]) -> None:
    """The same for people."""
    assert run["run_id"] in good("runs").splitlines()[1]
    words = good("show", run["run_id"][:12])
    assert run["winner"]["technique"] in words
    assert "Calls, tokens and dollars" in words
    assert "== diff to your prompt ==" in words
    lines = good("history").splitlines()
    assert lines[0].startswith("trial\tround\tstate")
    assert lines[1].split("\t")[0] == "0"
    first = good("history", "--trial", "0")
    assert INSTRUCTION in first
    assert first.startswith("trial 0: complete")
    assert all(LINE.fullmatch(line.replace("\t", "")) for line in (words + first).splitlines())


def _check_exports(run: dict[str, Any]) -> None:
    """Printed and written, both forms are the released prompt."""
    folder = Path(run["release"]).parent
    assert good("export") == good("export", run["run_id"]) == (folder / "prompt.md").read_text("utf-8")
    assert good("export", "--format", "messages") == (folder / "messages.json").read_text("utf-8")
    good("export", "-o", "mine.md")
    good("export", "--format", "messages", "-o", "mine.json")
    version = load_prompt(run["release"]).version
    assert load_prompt("mine.md").version == load_prompt("mine.json").version == version
    Path("into").mkdir()
    good("export", "-o", "into")
    assert load_prompt("into").version == version


def test_an_altered_ledger_is_named_by_doctor_and_refused_by_the_others(run: dict[str, Any]) -> None:
    assert _ledger_check(0)["found"].endswith("whole")
    with sqlite3.connect("runs/ledger.db") as db:
        (guard,) = db.execute("SELECT sql FROM sqlite_master WHERE name = 'events_append_only_update'").fetchone()
        db.execute("DROP TRIGGER events_append_only_update")
        db.execute("UPDATE events SET body = '{}' WHERE seq = 2")
        db.execute(guard)
    last = _ledger_check(1)
    assert last["ok"] is False
    assert "event 2" in last["found"]
    for command in ("runs", "show", "history", "resume", "export"):
        (line,) = refused(1, command)
        assert "the ledger was altered" in line


def _ledger_check(code: int) -> dict[str, Any]:
    result = optimize("doctor", "--json")
    assert result.exit_code == code
    found = [check for check in json.loads(result.stdout)["checks"] if check["what"] == "runs/ledger.db"]
    assert isinstance(found[0], dict)
    return found[0]


def test_init_makes_a_folder_that_runs() -> None:
    files(120)
    words = good("init", "mine", "--from", "rows.csv", "--target", "label", "--prompt", "p.txt")
    assert "target label: choice of 4" in words
    assert "optimize mine" in words
    assert [task["name"] for task in good_json("tasks")["tasks"]] == ["mine"]
    assert good_json("tasks", "mine")["tasks"][0]["metrics"] == ["choice"]
    assert "text -> label" in good("tasks")
    with WireServer(learner) as server:
        command = ["-m", compatible(server), "--max-calls", "200", "--proposer", "none"]
        by_name = good_json("run", "mine", *command)
        by_path = good_json("tasks/mine", *command)
        by_file = good_json("run", "rows.csv", "--target", "label", "--prompt", "p.txt", *command)
    assert by_name["task"] == by_path["task"] == "mine"
    assert by_path["calls"]["model"] == 0
    assert by_name["baseline"] == by_path["baseline"] == by_file["baseline"]


def test_models_and_doctor_say_what_is_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPTIMIZE_CACHE", str(tmp_path / "nothing"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-this-is-never-shown")
    found = good_json("models", "list")
    assert found["weights"][0]["here"] is False
    assert "openai-compatible/" in good("models", "list")
    result = optimize("doctor", "--json")
    checks = {check["what"]: check for check in json.loads(result.stdout)["checks"]}
    assert checks["OPENAI_API_KEY"]["found"] == "set"
    assert checks["ANTHROPIC_API_KEY"]["found"] == "not set"
    assert checks["local/smollm2-135m"]["ok"] is False
    assert result.exit_code == 1
    assert "sk-this" not in result.output + optimize("doctor").output


def test_doctor_is_content_with_a_machine_that_has_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    weights = tmp_path / "weights.gguf"
    weights.write_bytes(b"GGUF")
    monkeypatch.setattr("agent.models.weights.weights_path", lambda name: weights)
    monkeypatch.setattr("agent.jobs.doctor.version_of", lambda package: "1.0")
    assert good_json("doctor")["healthy"] is True
    assert "PROBLEM" not in good("doctor")


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
    assert odd.exit_code == 2
    assert "'a b': a task's folder has a name of letters" in odd.output
