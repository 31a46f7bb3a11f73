"""`--max-examples N`: no prompt that is tried shows more rows, whatever the task allows; 0 tries instructions only."""

from __future__ import annotations

from dataclasses import replace

import pytest

import promptassay as pa
from agent.errors import InputError
from agent.jobs.customize.plan import finished_search
from agent.jobs.launch import prepare
from agent.jobs.locations import LEDGER, open_history
from agent.jobs.tasks import with_demo_limit
from agent.options.jobs import RecordedOptions
from agent.types import Constraints
from tests.cli.world import INSTRUCTION, compatible, files, good, good_json, learner, refused
from tests.toys import make_task
from tests.wire import WireServer

CALLS = ("--max-calls", "300", "--proposer", "none", "--price", "0,0", "--anyway")


def demos_tried(run_id: str) -> list[int]:
    """Fixed and picked examples of every trial."""
    history = open_history(LEDGER)
    try:
        return [trial["n_examples"] for trial in history.trials(run_id)]
    finally:
        history.close()


def options_of(run_id: str) -> dict[str, object]:
    history = open_history(LEDGER)
    try:
        return history.run(run_id)["options"]
    finally:
        history.close()


def test_instructions_alone_are_tried_and_all_that_reads_the_run_knows_why() -> None:
    with WireServer(learner) as server:
        words = (*files(), "-m", compatible(server), *CALLS, "--max-examples", "0")
        assert "; no examples" in good(*words, "--dry-run")
        assert good_json(*words, "--dry-run")["max_examples"] == 0
        result = good_json(*words)
        free = good_json(*files(), "-m", compatible(server), *CALLS)
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
    assert "--max-examples" in refused(2, *files(), "--max-examples", "-1")[-1]
    with pytest.raises(InputError, match="max_examples"):
        pa.optimize("rows.csv", target="label", prompt=INSTRUCTION, max_examples=-1)
