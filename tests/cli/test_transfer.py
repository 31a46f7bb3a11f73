"""`optimize transfer`: the same prompts on other models, over the same dev rows, and never on the sealed test."""

import csv
import json
from pathlib import Path

import pytest

from agent.ledger.store import Ledger, NewRun
from tests.cli.world import compatible, good, good_json, knowing, learner, optimize, refused, stubborn
from tests.conftest import Made
from tests.toys import make_task
from tests.wire import WireServer


def test_the_matrix_holds_each_prompt_on_each_model(two_runs: Made) -> None:
    first, _ = two_runs
    with WireServer(learner) as same, WireServer(stubborn) as poor, WireServer(knowing) as rich:
        models = ",".join(map(compatible, (same, poor, rich)))
        words = ("transfer", first["run_id"], "--models", models, "--top", "2", "-q")
        told = good_json(*words)
        asked = len(same.requests)
        again = good_json(*words)
        assert len(same.requests) == asked  # nothing is bought twice
        sent = json.dumps([request.body for request in same.requests])
    assert again["models"] == told["models"]
    own, alike, flat, right = told["models"]
    assert [model["own"] for model in told["models"]] == [True, False, False, False]
    assert told["candidates"][0]["trial"] == 0
    assert 2 <= len(told["candidates"]) <= 3
    assert [cell["mean"] for cell in own["scores"]] == [cell["mean"] for cell in alike["scores"]]
    assert own["scores"][1]["lift"] == {**alike["scores"][1]["lift"], "p_value": None, "p_holm": None}
    tests = [cell["lift"] for model in (alike, flat, right) for cell in model["scores"] if cell["lift"]]
    assert all(lift["p_value"] <= lift["p_holm"] for lift in tests)
    assert min(lift["p_holm"] for lift in tests) == min(1.0, len(tests) * min(lift["p_value"] for lift in tests))
    assert {cell["mean"] for cell in right["scores"]} == {1.0}
    assert [cell["rank"] for cell in right["scores"]] == [1] * len(right["scores"])
    assert len({cell["mean"] for cell in flat["scores"]}) == 1
    assert own["scores"][1]["rank"] == 1
    assert asked == told["rows"] * len(told["candidates"])
    tested = _test_texts(first["run_id"])
    assert tested
    assert not [text for text in tested if text in sent]
    assert "transfer" in good("runs")
    shown = good("show", told["run_id"])
    assert "your prompt" in shown
    assert "(own)" in shown
    good("audit", "verify")


TESTED = "SELECT example_id FROM outcomes WHERE split = 'test' AND run_id = ?"


def _test_texts(run_id: str) -> list[str]:
    """Rows of the sealed test, as the run's own ledger knows them."""
    from agent.jobs.locations import open_history

    history = open_history(Path("runs/ledger.db"))
    ids = {row["example_id"] for row in history.select(TESTED, run_id)}
    history.close()
    with Path("rows.csv").open(encoding="utf-8", newline="") as file:
        return [row["text"] for row in csv.DictReader(file) if row["id"] in ids]


def test_a_budget_that_ends_leaves_cells_empty(two_runs: Made) -> None:
    first, _ = two_runs
    with WireServer(learner) as server:
        words = ("transfer", first["run_id"], "--models", compatible(server), "--top", "1", "-q", "--max-calls", "60")
        told = good_json(*words)
        assert len(server.requests) <= 60
    shown = good("show", told["run_id"])
    assert "the budget ended it early" in shown
    assert "with a larger cap, or with --limit ROWS" in shown
    assert told["status"] == "budget"
    assert told["models"][1]["scores"][1]["mean"] is None


def test_a_limit_takes_the_first_rows_on_every_model(two_runs: Made) -> None:
    first, _ = two_runs
    with WireServer(learner) as server:
        told = good_json(
            "transfer", first["run_id"], "--models", compatible(server), "--top", "1", "--limit", "9", "-q"
        )
        assert len(server.requests) == 9 * len(told["candidates"])
    own, other = told["models"]
    assert told["rows"] == 9
    assert [cell["mean"] for cell in own["scores"]] == [cell["mean"] for cell in other["scores"]]


@pytest.mark.parametrize(
    ("models", "says"),
    [("x,x", "write each model once"), ("OWN", "the run's own model"), ("nope", "is not a model name"), (",", "a,b,c")],
)
def test_wrong_models_are_refused(two_runs: Made, models: str, says: str) -> None:
    first, _ = two_runs
    (line,) = refused(2, "transfer", first["run_id"], "--models", first["model"] if models == "OWN" else models)
    assert says in line


def test_other_data_and_other_kinds_of_runs_are_refused(two_runs: Made) -> None:
    first, _ = two_runs
    with WireServer(learner) as server:
        told = good_json("transfer", first["run_id"], "--models", compatible(server), "--top", "1", "-q")
        (line,) = refused(2, "transfer", told["run_id"], "--models", compatible(server))
        assert "is not a search" in line
        ledger = Ledger(Path("runs/ledger.db"))
        ledger.begin_run(NewRun("old", make_task(), "m"))
        ledger.end_run("old", "complete", 1.0)
        ledger.close()
        assert "was started by another version" in refused(2, "transfer", "old", "--models", compatible(server))[0]
        text = Path("rows.csv").read_text("utf-8")
        Path("rows.csv").write_text(text.replace("billing", "delivery", 40), "utf-8")
        done = optimize("transfer", first["run_id"], "--models", compatible(server))
        assert done.exit_code == 2
        assert ": rows.csv changed since" in done.stderr


def test_a_judge_scores_on_the_other_model_too() -> None:
    from tests.cli.test_judge_run import CAP, Boats, task

    task()
    with WireServer(Boats()) as server, WireServer(Boats()) as other:
        run = good_json("run", "boats", *CAP, "-m", compatible(server))
        told = good_json("transfer", run["run_id"], "--models", compatible(other), "--top", "1", "-q")
    own, new = told["models"]
    assert told["calls"]["model"] == 80
    assert "judge" not in told["calls"]  # the same answers by the same judge are in the ledger
    assert [cell["mean"] for cell in own["scores"]] == [cell["mean"] for cell in new["scores"]]
