"""`optimize transfer`: the same prompts on other models, over the same dev rows, and never on the sealed test."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent.jobs import transfer as model_transfer
from agent.ledger.store import Ledger, NewRun
from agent.report.job_blocks import _cell
from agent.results.transfer import TransferLift, TransferScore
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


def test_a_prompt_with_a_row_without_a_score_is_tried_on_other_models_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What saw the whole of dev saw it, also where a verdict could not be read."""
    trials = [
        {"number": number, "candidate_id": f"c{number}", "state": "complete", "n": n, "mean": mean}
        for number, n, mean in ((0, 12, 0.1), (1, 11, 0.9), (2, 12, 0.5))
    ]
    blank = {"value": 1.0, "fields": {}, "reply": "", "error": "", "scores": [], "call_key": "k"}
    outcomes = [{"example_id": f"dev-{row}", **blank} for row in range(12)]
    history = SimpleNamespace(trials=lambda run: trials, outcomes=lambda *of: outcomes, candidate=lambda name: name)
    monkeypatch.setattr(model_transfer, "recorded_prompt", lambda row: row)
    found = {"id": "r", "status": "complete"}
    _, entrants = model_transfer._seen(history, found, make_task(12), 1, None)  # type: ignore[arg-type]
    assert [entrant.trial for entrant in entrants] == [0, 1]


def test_a_cell_is_marked_where_the_corrected_test_and_the_interval_both_say_so() -> None:
    def cell(p_holm: float | None, ci95: tuple[float, float]) -> TransferScore:
        lift = TransferLift(diff=sum(ci95) / 2, ci95=ci95, p_value=0.001, p_holm=p_holm, n=9)
        return TransferScore(mean=0.5, ci95=(0.4, 0.6), n=9, unscored=0, lift=lift, rank=1)

    marks = {(0.01, (0.1, 0.2)): "+", (0.01, (-0.2, -0.1)): "-", (0.2, (0.1, 0.2)): "", (0.01, (-0.1, 0.3)): "",
             (None, (0.1, 0.2)): ""}  # fmt: skip
    for (p_holm, ci95), mark in marks.items():
        assert _cell(cell(p_holm, ci95)).endswith(f"#1{mark}")


def test_holm_takes_the_smallest_of_all_cells_times_their_number() -> None:
    def cell(p_value: float | None) -> TransferScore:
        lift = p_value and TransferLift(diff=0.1, ci95=(0.0, 0.2), p_value=p_value, p_holm=None, n=9)
        return TransferScore(mean=0.5, ci95=(0.4, 0.6), n=9, unscored=0, lift=lift or None, rank=1)

    columns = {"own": [None, 0.001], "a": [None, 0.02, 0.01], "b": [None, 0.03, 0.9]}
    found = model_transfer._corrected({name: list(map(cell, each)) for name, each in columns.items()}, "own")
    told = {
        name: [(each.lift.p_value, each.lift.p_holm) for each in cells if each.lift] for name, cells in found.items()
    }
    assert told["own"] == [(None, None)]
    assert [holm for name in "ab" for _, holm in told[name]] == pytest.approx([0.06, 0.04, 0.06, 0.9])


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
