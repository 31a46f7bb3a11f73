"""Options that limit what is tried or shipped: `--prefer cheap`, `--detect` and `--max-examples N`."""

from __future__ import annotations

import json
import zlib
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.errors import InputError
from agent.jobs.customize.plan import finished_search
from agent.jobs.launch import prepare
from agent.jobs.locations import LEDGER, open_history
from agent.jobs.tasks import with_demo_limit
from agent.options.run import RecordedOptions
from agent.types import Constraints
from tests.cli.world import compatible, files, good, good_json, knowing, learner, optimize, refused
from tests.scripted import Toys
from tests.toys import make_task
from tests.wire import WireServer

CALLS = ("--max-calls", "700", "--proposer", "none", "--price", "1,1", "--no-calibrate", "--no-retrieval")
LETTERS = 600
"""Of a prompt, from which on the model is right but for an accident here and there."""


def by_length(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
    """Fails on about half of the rows with a short prompt, and on one in 25 with a longer one: which, is chance."""
    whole = json.dumps(messages)
    draw = zlib.crc32(whole.encode()) % 100
    return "I am not sure" if draw < (4 if len(whole) > LETTERS else 50) else knowing(messages, body)


def opened(run_id: str) -> dict[str, Any]:
    """What the event of the sealed test says."""
    with closing(open_history(LEDGER)) as history:
        rows = history.select("SELECT body FROM events WHERE kind = 'test_opened' AND run_id = ?", run_id)
    found: dict[str, Any] = json.loads(rows[0]["body"])
    return found


def test_the_cheaper_one_is_compared_with_the_best_on_the_same_sealed_rows() -> None:
    with WireServer(by_length) as server:
        cheap = good_json(*files(), "-m", compatible(server), *CALLS, "--prefer", "cheap", "--margin", "15")
    (chosen,) = [row for row in cheap["pareto"] if row["chosen"]]
    assert chosen["candidate_id"] == cheap["winner"]["candidate_id"]
    found = cheap["cheaper"]
    assert found["dev"]["shown"]
    assert found["dev"]["low"] > -0.15
    assert found["saved_in"] == "tokens", "this server counts every call alike"
    assert 0 < found["saved"] < 1
    assert found["test"]["n"] == cheap["lift"]["n"], "the same rows, opened once"
    assert opened(cheap["run_id"])["best"] == found["best"]
    assert found["test"]["diff"] == cheap["winner"]["test"] - found["best_test"]
    assert found["test"]["shown"] == (found["test"]["low"] > -0.15)
    said = "worse than it by more than 15 points" if found["test"]["shown"] else "a loss of more than 15 points"
    screen, page = good("show", cheap["run_id"]), Path("report.html")
    good("report", cheap["run_id"], "-o", page)
    for surface in (screen, page.read_text("utf-8")):
        assert said in surface
        assert "fewer prompt tokens than the best on dev" in surface
    assert "the same" in good("reproduce", cheap["run_id"], "--offline")
    assert "PROBLEM" not in good("audit", "check", cheap["run_id"])


def test_where_no_cheaper_one_is_shown_the_best_is_tested(toys: Toys) -> None:
    words = ("--max-calls", "300", "--proposer", "none", "--price", "1,2", "--prefer", "cheap")
    done = optimize(*files(120), "-m", toys(learner).name, *words)
    assert "prefer cheap: no cheaper prompt is shown to lose less than" in done.stderr
    assert good_json("show")["result"]["cheaper"] is None


def test_a_gain_that_is_no_number_is_refused() -> None:
    assert "--detect" in refused(2, *files(), "--detect", "nan")[-1]
    assert "takes 10,000,000 or more test rows" in good(*files(), *CALLS, "--detect", "0.001", "--dry-run")
    few = good(*files(), *CALLS, "--trials", "5", "--dry-run")
    assert "tries about 5 prompts" in few
    assert "which is few" not in few


ANYWAY = ("--max-calls", "300", "--proposer", "none", "--price", "0,0", "--anyway")


def demos_tried(run_id: str) -> list[int]:
    """Fixed and picked examples of every trial."""
    with closing(open_history(LEDGER)) as history:
        return [trial["n_examples"] for trial in history.trials(run_id)]


def options_of(run_id: str) -> dict[str, object]:
    with closing(open_history(LEDGER)) as history:
        return history.run(run_id)["options"]


def test_instructions_alone_are_tried_and_all_that_reads_the_run_knows_why(toys: Toys) -> None:
    command = (*files(), "-m", toys(learner).name, *ANYWAY)
    words = (*command, "--max-examples", "0")
    assert "; no examples" in good(*words, "--dry-run")
    assert good_json(*words, "--dry-run")["max_examples"] == 0
    result, free = good_json(*words), good_json(*command)
    assert len(demos_tried(result["run_id"])) > 1
    assert set(demos_tried(result["run_id"])) == {0}
    assert max(demos_tried(free["run_id"])) > 0
    assert not any(weights for weights in (result.get("calibration") or {},) if weights.get("neighbours"))
    assert "the same" in good("reproduce", result["run_id"], "--offline")
    assert options_of(result["run_id"])["max_examples"] == 0
    for most, found in ((0, result["run_id"]), (None, free["run_id"]), (3, "")):
        own = {"task": "rows.csv", "target": "label", "prompt": "p.txt", "model": result["model"]}
        launch = prepare(RecordedOptions(**own, max_examples=most, proposer="none"), LEDGER)
        assert finished_search(launch, LEDGER) == found, most


def test_the_smaller_of_the_two_limits_counts() -> None:
    task = make_task(12, constraints=Constraints(max_examples=6))
    assert with_demo_limit(task, 3).constraints.max_examples == 3
    assert with_demo_limit(task, 30).constraints.max_examples == 6
    assert with_demo_limit(replace(task, constraints=Constraints()), 30).constraints.max_examples == 30


def test_a_limit_that_cannot_hold_is_refused_before_anything_is_asked() -> None:
    task = make_task(12)
    shown = replace(task, space=replace(task.space, techniques=("few-shot",)))
    with pytest.raises(InputError, match="add zero-shot"):
        with_demo_limit(shown, 0)
    assert with_demo_limit(shown, 1).constraints.max_examples == 1
