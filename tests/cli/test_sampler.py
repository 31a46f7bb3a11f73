"""`--sampler` and `--pruner` through the whole command: kept, refused early, the same after a kill, and shown."""

from __future__ import annotations

import json
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest

import promptassay as pa
from agent.ledger.query import History
from agent.report.optuna_study import told_trials
from agent.report.view import RunView
from agent.search.study import built
from tests.cli.test_interrupt import trials
from tests.cli.world import UNSURE, compatible, files, good, good_json, learner, refused
from tests.wire import Fault, WireServer

DB = Path("runs/ledger.db")


def study_of(path: Path) -> optuna.Study:
    url = f"sqlite:///{path}"
    (name,) = optuna.get_all_study_names(url)
    return optuna.load_study(study_name=name, storage=url)


def facts(trial: optuna.trial.FrozenTrial) -> tuple[Any, ...]:
    return trial.params, trial.value, trial.state, trial.intermediate_values


def doubtful(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
    """The learner, which is wrong on one row in four whatever the prompt, so that a search goes on."""
    is_wrong = zlib.crc32(messages[-1]["content"].encode()) % 4 == 0
    return UNSURE if is_wrong else learner(messages, body)


def told_events(db: Path) -> list[str]:
    with closing(sqlite3.connect(f"file:{db}?mode=ro", uri=True)) as file:
        bodies = file.execute("SELECT body FROM events WHERE kind = 'study_told' ORDER BY seq").fetchall()
    return [body for (body,) in bodies]


@pytest.mark.long
def test_a_run_by_a_study_is_the_same_after_a_break_and_that_study_is_shown() -> None:
    command = [*files(200), "--no-retrieval", "--max-calls", "700", "--proposer", "none", "--sampler", "tpe"]
    is_refused = False

    def answer(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
        return Fault(401) if is_refused and len(server.requests) > 150 else doubtful(messages, body)

    with WireServer(answer) as server:
        command += ["-m", compatible(server), "-q"]
        whole = good_json(*command, "--db", "whole/ledger.db")
        assert len(server.requests) > 250, "else it breaks at the end"
        server.requests.clear()
        is_refused = True
        assert refused(1, *command)[-1].startswith("optimize resume ")
        is_refused = False
        result = good_json("resume")
    assert whole["decision"] == result["decision"]
    assert result["winner"]["candidate_id"] == whole["winner"]["candidate_id"]
    found, others = ([t[:5] for t in each] for each in (trials(), trials("whole/ledger.db")))
    assert found == others[: len(found)]  # what a part of the winner adds is measured as far as lost calls leave it
    assert len(others) - len(found) <= 1
    assert told_events(DB) == told_events(Path("whole/ledger.db"))
    good_json("audit", "verify")

    good("ui", "--optuna", result["run_id"])
    shown = study_of(DB.parent / result["run_id"] / "optuna.db")
    view = RunView(History(DB), result["run_id"])
    told = told_trials(view)
    assert [facts(trial) for trial in shown.trials] == [facts(trial) for trial in built(told).trials]
    assert {trial.user_attrs["candidate_id"] for trial in shown.trials} <= {t["candidate_id"] for t in view.trials}
    assert {"PRUNED", "COMPLETE"} <= {trial.state.name for trial in shown.trials}
    assert shown.metric_names == ["evidence on dev"]
    rows = {trial["candidate_id"]: trial for trial in view.trials}
    for trial in shown.trials:
        row = rows[trial.user_attrs["candidate_id"]]
        assert trial.user_attrs["trial"] == row["number"]
        assert trial.user_attrs["dev_score"] == row["mean"]


@pytest.mark.long
def test_the_choice_is_kept_with_the_run() -> None:
    with WireServer(doubtful) as server:
        command = [*files(200), "--no-retrieval", "-m", compatible(server), "--max-calls", "400", "-q"]
        ours = good_json(*command)
        other = good_json(*command, "--sampler", "random", "--pruner", "wilcoxon")
        again = good_json("resume", "--fork", other["run_id"])
    assert again["winner"] == other["winner"]
    options = [json.loads(row["options"]) for row in History(DB).select("SELECT options FROM runs ORDER BY rowid")]
    assert [(one["sampler"], one["pruner"]) for one in options] == [
        ("bandit", "race"),
        *[("random", "wilcoxon")] * 2,
    ]
    assert told_trials(RunView(History(DB), other["run_id"]))
    assert told_trials(RunView(History(DB), ours["run_id"])) == []


def test_what_cannot_work_is_a_mistake_of_use_before_anything_is_called(monkeypatch: Any) -> None:
    monkeypatch.setattr("agent.search.registered.find_spec", lambda package: None)
    with WireServer(learner) as server:
        command = [*files(120), "-m", compatible(server), "--max-calls", "300"]
        assert "tpe" in "".join(refused(2, *command, "--sampler", "what"))
        assert "wilcoxon" in "".join(refused(2, *command, "--pruner", "what"))
        *_, line = refused(2, *command, "--sampler", "gp")
        assert "--sampler gp needs torch, which is not installed; pip install torch" in line
        *_, line = refused(2, *command, "--strategy", "dspy-mipro", "--sampler", "tpe")
        assert "--sampler tpe: dspy-mipro uses none" in line
        with pytest.raises(pa.InputError, match=r"(?s)sampler.*pruner"):
            pa.optimize("rows.csv", target="label", prompt="p.txt", model=compatible(server), sampler="x", pruner="y")
        assert not server.requests
