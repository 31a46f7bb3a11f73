"""One run read from the ledger, for report, web pages and notebook. Read-only.

The ledger does not hold the task's rows; they are read from its folder, or omitted if its files have changed.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from agent.errors import AgentError, InputError
from agent.ledger.query import History, Row, started_with
from agent.ledger.verify import home_of
from agent.options.shared import asked_of
from agent.release.result import RunResult, search_result
from agent.report.wording import SIDES, PromptNames, names_of
from agent.results.base import SideName
from agent.safe_file import prompt_text
from agent.types import Example, SplitName, Task

EQUAL = 1e-12
"""Largest difference of scores that count as equal."""


@dataclass(frozen=True)
class RowPair:
    """One row of a split (without inputs and labels if unknown) with the outcomes of two prompts as in `History`."""

    example_id: str
    inputs: Mapping[str, str]
    labels: Mapping[str, Any]
    one: Row | None
    two: Row | None

    @property
    def change(self) -> float | None:
        """The score of `two` minus that of `one`; None unless both have one."""
        values = [side["value"] for side in (self.one, self.two) if side is not None]
        return None if len(values) < 2 or None in values else values[1] - values[0]


class RunView:
    """A run of the ledger, each part read on first use. `run` is its row with decoded columns."""

    shows_rows = True
    """Whether texts of the task's rows may be shown."""

    def __init__(self, history: History, run_id: str = "") -> None:
        """Find the run by id or unique prefix, or the latest. Raises InputError."""
        self.history = history
        self.run: Row = history.run(run_id)

    @property
    def id(self) -> str:
        return str(self.run["id"])

    @cached_property
    def result(self) -> RunResult | None:
        """None for unfinished runs and other kinds of runs."""
        return search_result(self.run["result"], self.history.path)

    @cached_property
    def recorded_trials(self) -> list[Row]:
        """The trials, as in `History.trials`."""
        return self.history.trials(self.id)

    @cached_property
    def trials(self) -> list[Row]:
        """The trials, each with `used`: the calls of the run up to its last one."""
        ends = _used_at(self.history, self.id)
        trials: list[Row] = []
        latest = 0
        for trial in self.recorded_trials:
            used = ends.get(trial["candidate_id"], latest)  # without own calls: the count of the trials before
            latest = max(latest, used)
            trials.append({**trial, "used": used})
        return trials

    def numbered(self, number: int) -> Row:
        """Return the trial of this number as in `History.trials`; raise InputError if missing."""
        if found := self.history.trials(self.id, [number]):
            return found[0]
        raise InputError(f"{self.id}: no trial {number}; there are {len(self.recorded_trials)}, from 0")

    @cached_property
    def costs(self) -> list[Row]:
        """Calls, tokens and dollars by role, model and state, as in `History.costs`."""
        return self.history.costs(self.id)

    @cached_property
    def names(self) -> PromptNames:
        """How its prompts are called."""
        is_migration = bool((self.run["options"] or {}).get("migrates"))
        return PromptNames(is_migration=is_migration) if self.result is None else names_of(self.result)

    @property
    def own(self) -> str:
        """The name of trial 0."""
        return self.names.own

    def name_of(self, trial: Row) -> str:
        """Return whether a trial is the baseline, the best found, or both; "" for others."""
        is_winner = self.result is not None and trial["candidate_id"] == self.result.winner.candidate_id
        return " and ".join([self.own] * (trial["number"] == 0) + [SIDES[1][1]] * is_winner)

    @cached_property
    def baseline(self) -> Row | None:
        """Your own prompt; None before it was tried."""
        found = self.history.trials(self.id, [0])
        return self.history.candidate(found[0]["candidate_id"]) if found else None

    @cached_property
    def winner(self) -> Row | None:
        """The best prompt found (possibly your own); None without a result."""
        return None if self.result is None else self.history.candidate(self.result.winner.candidate_id)

    @cached_property
    def promoted(self) -> Row | None:
        """A later promotion of a winner that was held back: who, why, and against what."""
        found = self.history.facts("promoted", run_ids=[self.id])
        return found[-1]["body"] if found else None

    @cached_property
    def best(self) -> list[Row]:
        """The complete trials that were the best so far when they ended, in that order."""
        best: list[Row] = []
        for trial in sorted(self.trials, key=lambda trial: (trial["used"], trial["number"])):
            is_done = trial["state"] == "complete" and trial["mean"] is not None
            if is_done and (not best or trial["mean"] > best[-1]["mean"]):
                best.append(trial)
        return best

    @cached_property
    def examples(self) -> Mapping[SplitName, Mapping[str, Example]]:
        """The task's rows by split and id. Splits whose file has changed since the run are missing."""
        try:
            task = task_of(self.run)
        except AgentError:
            return {}
        splits: Mapping[SplitName, Sequence[Example]] = {"train": task.train, "dev": task.dev, "test": task.test}
        return {
            name: {row.id: row for row in rows}
            for name, rows in splits.items()
            if task.hashes.get(name) == self.run["hashes"].get(name)
        }

    def pairs(self, split: SplitName, one: str, two: str) -> list[RowPair]:
        """Return the outcomes of two candidates on each row of the split that either saw."""
        own = self.baseline["id"] if self.baseline else ""
        first = self.sealed_by("baseline") if split == "test" and one == own else (self.id, one)
        sides = [
            {row["example_id"]: row for row in self.history.outcomes(run_id, candidate, split)}
            for run_id, candidate in (first, (self.id, two))
        ]
        if first[0] != self.id:  # a migration may have fewer sealed rows than the run that it continues from
            sides[0] = {row: outcome for row, outcome in sides[0].items() if row in sides[1]}
        return row_pairs(self.examples.get(split, {}), *sides)

    def sealed_by(self, side: SideName) -> tuple[str, str]:
        """Return the run and candidate of a side. For the baseline of a migration those of the old model."""
        old = self.result.migration if self.result else None
        if side == "baseline" and old is not None:
            return old.run, old.candidate_id
        candidate = self.baseline if side == "baseline" else self.winner
        return self.id, candidate["id"] if candidate else ""

    @cached_property
    def sealed(self) -> Mapping[str, tuple[float, float, float]]:
        """Mean and 95 % interval by side, over test rows with both scores."""
        from agent.stats.intervals import mean_ci  # here, as numpy would slow down every command

        scored: dict[str, dict[str, float]] = {}
        for side, _ in SIDES:
            run_id, candidate_id = self.sealed_by(side)
            if rows := self.history.outcomes(run_id, candidate_id, "test") if candidate_id else []:
                scored[side] = {row["example_id"]: row["value"] for row in rows if row["value"] is not None}
        both = [row for row in next(iter(scored.values()), ()) if all(row in scores for scores in scored.values())]
        return {side: mean_ci([scores[row] for row in both]) for side, scores in scored.items() if both}

    @property
    def head(self) -> Row:
        """The current end of the run's hash chain: seq, hash and utc. `ledger` is the hash of its first event."""
        home = home_of(self.history.db, self.id)
        last = self.history.select("SELECT utc FROM events WHERE seq = ?", home.seq_here(home.events))[0]
        return {"seq": home.events, "hash": home.head, "utc": last["utc"], "ledger": home.ledger}


class RunWithoutRows(RunView):
    """A run without examples, inputs, labels and replies; prompts stay, except for their examples."""

    shows_rows = False

    @cached_property
    def baseline(self) -> Row | None:
        return without_demos(super().baseline)

    @cached_property
    def winner(self) -> Row | None:
        return without_demos(super().winner)

    def pairs(self, split: SplitName, one: str, two: str) -> list[RowPair]:
        return []


def without_demos(candidate: Row | None) -> Row | None:
    """Return a candidate, reduced to its instruction if its messages hold examples."""
    if candidate is None or not holds_rows(candidate):
        return candidate
    return {**candidate, "demos": [], "template": [{"role": "system", "content": candidate["instruction"]}]}


def holds_rows(candidate: Row) -> bool:
    """Return whether a candidate shows rows as fixed or retrieved examples."""
    return bool(candidate["demos"] or candidate.get("picks"))


def task_of(run: Row) -> Task:
    """Return the task with its current files: a folder, or rows of a data file. Raises AgentError."""
    from agent.task.from_file import task_from_file  # here, as most views of a run do not read its files
    from agent.task.load import load_task

    options, text = started_with(run), ""
    if not options.target:
        return load_task(Path(run["folder"]))
    with suppress(InputError):  # a prompt that is gone names no input columns
        text = prompt_text(str(options.prompt))
    asked = asked_of(options, not options.metric_source).changed(knowledge=str(options.knowledge or ""))
    return task_from_file(options.task, options.target, text, options.seed, asked=asked)[0]


def row_pairs(examples: Mapping[str, Example], one: Mapping[str, Row], two: Mapping[str, Row]) -> list[RowPair]:
    """Return the outcomes of two candidates on each row that either saw. `examples`: the known rows."""
    pairs = []
    for example_id in {**one, **two}:
        row = examples.get(example_id)
        inputs, labels = (row.inputs, row.labels) if row else ({}, {})
        pairs.append(RowPair(example_id, inputs, labels, one.get(example_id), two.get(example_id)))
    return pairs


def _used_at(history: History, run_id: str) -> dict[str, int]:
    # by candidate the calls of the run, cached ones included, up to its last of the search
    (made,) = history.select("SELECT json_group_array(id) AS ids FROM calls WHERE run_id = ?", run_id)
    numbers = sorted(json.loads(made["ids"]))
    ends = history.select(
        "WITH sealed AS (SELECT candidate_id, call_key FROM outcomes WHERE run_id = ? AND split = 'test') "
        "SELECT candidate_id, MAX(id) AS id FROM calls WHERE run_id = ? "
        "AND (candidate_id, call_key) NOT IN (SELECT candidate_id, call_key FROM sealed) GROUP BY candidate_id",
        *(run_id, run_id),
    )
    return {row["candidate_id"]: bisect_right(numbers, row["id"]) for row in ends}
