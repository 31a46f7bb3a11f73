"""`optimize transfer`: the same prompts on other models, over the same dev rows, and never on the sealed test."""

import csv
import json
from contextlib import closing
from pathlib import Path

from agent.jobs.locations import LEDGER, open_history
from agent.ledger.store import Ledger, NewRun
from tests.cli.test_judge_run import CAP, Boats, task
from tests.cli.world import good, good_json, knowing, learner, optimize, refused, stubborn
from tests.conftest import Made
from tests.scripted import Toys
from tests.toys import make_task


def test_the_matrix_holds_each_prompt_on_each_model(two_runs: Made, toys: Toys) -> None:
    first, _ = two_runs
    same = toys(learner, "same")
    models = [same.name, toys(stubborn, "poor").name, toys(knowing, "rich").name]
    words = ("transfer", first["run_id"], "--models", ",".join(models), "--top", "2", "-q")
    told = good_json(*words)
    asked = len(same.seen)
    again = good_json(*words)
    assert len(same.seen) == asked  # nothing is bought twice
    sent = json.dumps(same.bodies)
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
    good("audit", "verify")


TESTED = "SELECT example_id FROM outcomes WHERE split = 'test' AND run_id = ?"


def _test_texts(run_id: str) -> list[str]:
    """Rows of the sealed test, as the run's own ledger knows them."""
    with closing(open_history(LEDGER)) as history:
        ids = {row["example_id"] for row in history.select(TESTED, run_id)}
    with Path("rows.csv").open(encoding="utf-8", newline="") as file:
        return [row["text"] for row in csv.DictReader(file) if row["id"] in ids]


def test_a_budget_that_ends_leaves_cells_empty_and_a_limit_takes_the_first_rows(two_runs: Made, toys: Toys) -> None:
    model = toys(learner)
    words = ("transfer", two_runs[0]["run_id"], "--models", model.name, "--top", "1", "-q")
    told = good_json(*words, "--limit", "9")
    assert len(model.seen) == 9 * len(told["candidates"])
    own, other = told["models"]
    assert told["rows"] == 9
    assert [cell["mean"] for cell in own["scores"]] == [cell["mean"] for cell in other["scores"]]
    told = good_json(*words, "--max-calls", "60")
    shown = good("show", told["run_id"])
    assert "the budget ended it early" in shown
    assert "with a larger cap, or with --limit ROWS" in shown
    assert told["status"] == "budget"
    assert told["models"][1]["scores"][1]["mean"] is None


def test_wrong_models_other_data_and_other_kinds_of_runs_are_refused(two_runs: Made, toys: Toys) -> None:
    first, name = two_runs[0], toys(learner).name

    def said(run_id: str, models: str) -> str:
        (line,) = refused(2, "transfer", run_id, "--models", models)
        return line

    assert "write each model once" in said(first["run_id"], "x,x")
    assert "the run's own model" in said(first["run_id"], first["model"])
    assert "is not a model name" in said(first["run_id"], "nope")
    assert "a,b,c" in said(first["run_id"], ",")
    told = good_json("transfer", first["run_id"], "--models", name, "--top", "1", "-q", "--limit", "9")
    assert "is not a search" in said(told["run_id"], name)
    with closing(Ledger(LEDGER)) as ledger:
        ledger.begin_run(NewRun("old", make_task(), "m"))
        ledger.end_run("old", "complete", 1.0)
    assert "was started by another version" in said("old", name)
    text = Path("rows.csv").read_text("utf-8")
    Path("rows.csv").write_text(text.replace("billing", "delivery", 40), "utf-8")
    done = optimize("transfer", first["run_id"], "--models", name)
    assert done.exit_code == 2
    assert ": rows.csv changed since" in done.stderr


def test_a_judge_scores_on_the_other_model_too(toys: Toys) -> None:
    task()
    run = good_json("run", "boats", *CAP, "-m", toys(Boats()).name)
    told = good_json("transfer", run["run_id"], "--models", toys(Boats(), "other").name, "--top", "1", "-q")
    own, new = told["models"]
    assert told["calls"]["model"] == told["rows"] * len(told["candidates"])
    assert "judge" not in told["calls"]  # the same answers by the same judge are in the ledger
    assert [cell["mean"] for cell in own["scores"]] == [cell["mean"] for cell in new["scores"]]
