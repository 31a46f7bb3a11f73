"""The user's own prompt is raced too: a hopeless one costs few calls, and one that may be best sees all of dev."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.jobs.optimize import RunState
from agent.release.result import RunResult
from agent.types import Task
from tests.search.worlds import any_skill, pupil
from tests.toys import FakeModel, executed, launched, make_task, open_ledger

LARGE = make_task(200)
FILE = make_task(200, train=LARGE.train[:122], dev=LARGE.dev[:78], test=LARGE.test[:130])


@dataclass(frozen=True)
class Ended:
    """A run of 700 calls on a file of 330 rows, whose own prompt has a skill of its own."""

    run: RunState
    result: RunResult
    calls: int
    db: Path

    @property
    def own_rows(self) -> int:
        return self.run.context.baseline_rows


def ended(folder: Path, own_skill: float, others: float | None = None, task: Task = FILE, calls: int = 700) -> Ended:
    first = list[str]()

    def skill(front: str) -> float:
        first.append(front)  # trial 0 is the user's own prompt
        return own_skill if front == first[0] else any_skill(front) if others is None else others

    ledger = open_ledger(folder / "ledger.db")
    model = FakeModel(pupil(skill))
    try:
        run, result = asyncio.run(executed(launched(task, model, max_calls=calls), ledger))
        return Ended(run, result, len(model.seen), folder / "ledger.db")
    finally:
        ledger.close()


def searched_rows(found: Ended) -> int:
    """Dev rows of the own prompt that were scored before the last one of another candidate of the search."""
    trials, own = found.run.context.trials, found.run.context.baseline.id
    parts = {i for i, proposal in trials.proposals.items() if proposal.operator.startswith("without:")}
    with closing(sqlite3.connect(found.db)) as db:
        rows = [i for (i,) in db.execute("SELECT candidate_id FROM outcomes WHERE split = 'dev' ORDER BY rowid")]
    others = {*trials.proposals} - {own, *parts}  # yardsticks are scored on dev, too
    last = max(at for at, candidate_id in enumerate(rows) if candidate_id in others)
    return rows[:last].count(own)


@pytest.fixture(scope="module")
def hopeless(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    return ended(tmp_path_factory.mktemp("hopeless"), 0.0)


def test_a_hopeless_prompt_costs_few_calls_and_at_least_40_candidates_are_tried(hopeless: Ended) -> None:
    assert searched_rows(hopeless) == 22, "what a part of the winner adds may be measured on more"
    assert sum(hopeless.result.trials.values()) >= 40
    assert hopeless.result.decision == "promote"
    assert 620 < hopeless.calls <= 700, "calls that were kept for lost attempts are used"


def test_a_prompt_that_is_better_than_any_sees_the_whole_of_dev_and_is_kept(tmp_path: Path) -> None:
    found = ended(tmp_path, 0.7, others=0.05)
    assert found.own_rows == len(FILE.dev)
    assert found.result.baseline.dev_rows is None
    assert found.result.is_own
    assert found.result.decision == "keep_baseline"
