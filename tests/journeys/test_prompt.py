"""The life of a prompt as its owner types it: from a table to a tested, shipped, checked, monitored and audited prompt.

The model is a server, asked through the provider's SDK. A journey stops at the first command that breaks.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent.release.runtime import load_prompt
from agent.task.load import load_task
from tests.cli.world import (
    INSTRUCTION,
    Answer,
    compatible,
    files,
    good,
    good_json,
    learner,
    optimize,
    scores_by_hand,
    stubborn,
)
from tests.report.pages import assert_harmless
from tests.wire import WireServer


class Model:
    """A model whose answers change from one day to the next."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def __call__(self, messages: list[dict[str, Any]], body: dict[str, Any]) -> Any:
        return self.answer(messages, body)


@pytest.mark.usefixtures("here")
def test_a_prompt_from_a_table_to_production() -> None:
    files(160)
    model = Model(learner)
    with WireServer(model) as server:
        asked = ["-m", compatible(server), "--max-calls", "300", "--price", "1,2"]

        # a task, its plan, its run
        made = good("init", "notes", "--from", "rows.csv", "--target", "label", "--prompt", "p.txt", "--ignore", "id")
        assert "optimize notes" in made
        plan = good_json("run", "notes", *asked, "--dry-run")
        assert server.requests == []
        result = good_json("run", "notes", *asked)
        run, lift = result["run_id"], result["lift"]
        assert len(server.requests) == sum(result["calls"][role] for role in ("model", "proposer")) <= 300
        assert result["cost_usd"] <= plan["cost_usd_at_most"]
        assert (result["decision"], result["status"]) == ("promote", "complete")
        assert lift["diff"] == pytest.approx(result["winner"]["test"] - result["baseline"]["test"], abs=1e-12)
        assert 0 < lift["ci95"][0] < lift["diff"] < lift["ci95"][1]

        # the sealed score, by hand with the released file
        prompt = load_prompt(result["release"])
        with closing(sqlite3.connect("runs/ledger.db")) as db:
            tested = {row_id for (row_id,) in db.execute("SELECT example_id FROM outcomes WHERE split = 'test'")}
        rows = [row for row in load_task("tasks/notes").test if row.id in tested]
        by_hand = scores_by_hand(server, prompt, rows, "x", anthropic=False)
        assert len(by_hand) == lift["n"]
        assert sum(by_hand) / len(by_hand) == result["winner"]["test"]

        # every view has the same numbers
        assert good_json("show")["result"] == result
        score = f"{100 * result['winner']['test']:.1f}"
        assert score in good("show", run)
        assert [row["id"] for row in good_json("runs")["runs"]] == [run]
        trials = good_json("history", run)["trials"]
        assert len(trials) == sum(result["trials"].values())
        good("report", run, "-o", "report.html")
        assert score in assert_harmless(Path("report.html").read_text("utf-8")).text

        # in a program of the user's
        good("export", run, "--format", "python", "-o", "shipped.py")
        spec = importlib.util.spec_from_file_location("shipped", "shipped.py")
        assert spec is not None
        assert spec.loader is not None
        shipped = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(shipped)
        note = rows[0].inputs["text"]
        assert shipped.render(text=note) == prompt.render(text=note)

        # production: promoted, recorded, checked
        good("promote", run, "--actor", "ann", "--reason", "better on the sealed test")
        assert prompt.version in good("load", "notes@production")
        assert prompt.version in good("aliases", "notes")
        good("bless", "notes@production", "--reason", "first release", "--actor", "ann")
        assert good_json("check", "notes@production", "--repeats", "1")["gate"] == "passed"
        model.answer = stubborn
        worse = optimize("check", "notes@production", "--repeats", "1", "--json")
        assert (worse.exit_code, json.loads(worse.stdout)["gate"]) == (100, "failed")

    # production is watched: the same answers, and answers that drifted
    labels = [row.labels["label"] for row in rows] * 4
    for name, replies, code in (("calm", labels, 0), ("drifted", ["billing"] * len(labels), 100)):
        Path(f"{name}.jsonl").write_text("".join(json.dumps({"reply": reply}) + "\n" for reply in replies), "utf-8")
        assert optimize("monitor", "notes@production", f"{name}.jsonl").exit_code == code
    assert [check["gate"] for check in good_json("check", "notes@production", "--history")["checks"]] == [
        "passed",
        "failed",
    ]

    # the record holds, comes out the same without the model, and a forged score is found
    good("audit", "verify")
    assert all(check["ok"] for check in good_json("audit", "check", run)["checks"])
    assert good_json("reproduce", run)["same"]
    with closing(sqlite3.connect("runs/ledger.db")) as db, db:
        db.execute("UPDATE outcomes SET value = 1 - value WHERE rowid = (SELECT MIN(rowid) FROM outcomes)")
    forged = optimize("audit", "verify")
    assert forged.exit_code == 1
    assert "outcomes" in forged.output


@pytest.mark.usefixtures("here")
def test_a_prompt_that_cannot_be_improved_is_kept() -> None:
    command = files(120)
    with WireServer(stubborn) as server:
        command += ["-m", compatible(server), "--max-calls", "200"]
        done, quiet = optimize(*command), optimize(*command, "-q")
    assert (done.exit_code, quiet.exit_code, quiet.stderr) == (0, 0, "")
    assert "plan: 200 calls" in done.stderr, "results go to stdout, progress to stderr"
    run = re.findall(r"optimize show (\S+)", done.stdout)[0]
    result = good_json("show", run)["result"]
    assert (result["decision"], result["lift"]["diff"]) == ("keep_baseline", 0)
    assert load_prompt(result["release"]).render(text="hello")[0]["content"].startswith(INSTRUCTION)
    assert "no gain claimed" in good("promote", run, "--actor", "ann")
