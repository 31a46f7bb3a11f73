"""`optimize reproduce`: replay a run from recorded replies in a copy of the ledger, and compare. Sends nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.errors import AgentError, InputError, RowRefused, RunRefused
from agent.jobs.customize.retrain import retrain
from agent.jobs.launch import Launch, prepare
from agent.jobs.locations import open_history
from agent.jobs.optimize import RunState
from agent.jobs.registry import DB, Printed, job
from agent.jobs.resume import require_unchanged
from agent.ledger.connect import reader
from agent.ledger.query import History, Row, released_file, started_with
from agent.ledger.resume_state import ResumeState
from agent.ledger.store import Ledger
from agent.models.local import WEIGHTS
from agent.options.option import option
from agent.programs.kinds import program_for
from agent.release.result import RunResult
from agent.release.versions import form_of, is_version, read_released
from agent.report.blocks import Block, text
from agent.report.wording import without_result
from agent.results.base import Result, absent
from agent.safe_text import plain
from agent.search.plan import Plan
from agent.types import LM, Completion, Outcome, Request, Spend, SplitName, Trial, endpoint_of, scores_labels

ALL = Spend(10**9, 10**15, 1e12)  # more than any cap
NOT_COMPARED = (
    "seconds",
    "ledger_head",
    "release",
    "calls",
    "cost_usd",
    "lost_usd",
    "limited",
    "overspent",
    "unpriced",
    "latency_s",
)
SENTENCES = ("search_ended", "failed_because", "uncorrected", "blocked", "why", "why_not", "next", "answer", "refused")
"""Fields that a later version may word otherwise: only whether they say something is compared."""


class Reproduction(Result):
    """A replayed run: how many trials, scores and trainings, and each difference as a line of `drift`."""

    run_id: str
    same: bool
    requests: int = 0
    trials: int = 0
    outcomes: int = 0
    drift: tuple[str, ...]
    trainings: tuple[Mapping[str, Any], ...] | None = absent()

    def blocks(self) -> Iterator[Block]:
        count = len(self.drift)
        things = "the same" if self.same else f"{count} thing{'s' * (count > 1)} drifted"
        made = f"{self.trials} trials, {self.outcomes} scores"
        if self.trainings is not None:
            made = f"{len(self.trainings)} trainings"
        yield text(*self.drift, f"{self.run_id}: {things}: {made}, 0 requests", exact=True)


@job("reproduce")
def reproduce(
    run: str = "",
    *,
    offline: bool = option(False, "Use stored replies only: the default, and so far the only mode."),
    db: Path = DB,
) -> Printed[Reproduction]:
    """Replay RUN (default: the latest) from recorded replies only, and report every difference.

    Compares every trial, the score of every row, the result and the released prompt. For a comparison (`optimize
    customize`), each adapter is trained again for as long as before, and the files are compared. Exits with 0 if all
    are the same, else with 1. Refuses if the task, its rows or the program changed since.
    """
    history = open_history(db)
    row = history.run(run)
    if row["result"] is None:
        raise InputError(f"{row['id']}: {without_result(row)}, so there is nothing to compare with")
    if row["result"].get("kind") == "customize":
        made = retrain(row, history, lambda line: print(plain(line), file=sys.stderr, flush=True))
        lines = [each.drift for each in made if not each.is_same]
        return _reproduction(row["id"], lines, trainings=tuple(each.as_dict() for each in made))
    with tempfile.TemporaryDirectory(prefix="reproduce-") as folder:
        copy = Path(folder) / "ledger.db"
        launch = prepare(started_with(row), db, is_new=False)
        require_unchanged(row, launch, "put it back to reproduce it")
        with contextlib.closing(reader(db)) as old, contextlib.closing(sqlite3.connect(copy)) as new:
            old.backup(new)
        with contextlib.closing(_ReplayLedger(copy, history, row["id"])) as ledger:
            result, stop = _run_again(row, launch, ledger, history)
        lines = [*([f"it stopped: {stop}"] if stop else []), *drift(history, row, ledger, result)]
        lines += _release_drift(history, row, result)
    return _reproduction(row["id"], lines, trials=len(ledger.trials), outcomes=len(ledger.outcomes))


def _reproduction(run_id: str, drift: Sequence[str], **made: Any) -> Printed[Reproduction]:
    found = Reproduction(run_id=run_id, same=not drift, drift=tuple(drift), **made)
    return Printed(found, 0 if found.same else 1)


def _run_again(row: Row, launch: Launch, ledger: _ReplayLedger, history: History) -> tuple[Row | None, str]:
    models = {id(lm): _Offline(lm, history, row["id"]) for lm in launch.lms()}
    others = [models[id(lm)] for lm in launch.program.models]
    proposer = None if launch.proposer is None else models[id(launch.proposer)]
    offline = replace(
        launch,
        model=models[id(launch.model)],
        proposer=proposer,
        judges=tuple(models[id(lm)] for lm in launch.judges),
        program=program_for(launch.task, models[id(launch.model)], others[0] if others else None),
        embedder=None if launch.embedder is None else models[id(launch.embedder)],
        run_id=row["id"],
        made_with=Plan.restored(row["plan"]),
        options=launch.options.model_copy(update={"cache": True}),  # the copy knows which replies the run took
    )
    again = RunState.of(offline).open(ledger)

    async def execute() -> Row:
        try:
            return (await again.execute()).to_json()
        finally:
            for model in models.values():
                await model.close()

    try:
        return asyncio.run(execute()), ""
    except AgentError as error:
        return None, str(error)


def _release_drift(history: History, run: Row, now: Row | None) -> Iterator[str]:
    released = released_file(run, history.path)
    if now is None or released is None or not is_version(released):
        return
    try:
        before = read_released(released).version
    except AgentError:
        return
    if before in {event["body"]["version"] for event in history.facts("promoted", run_ids=[run["id"]])}:
        before = history.facts("released", run_ids=[run["id"]])[-1]["body"]["version"]
    after = read_released(Path(now["release"])).version
    if after != before:
        yield f"the released {form_of(after).noun} is {after}, it was {before}"


def _landed_late(history: History, run_id: str) -> set[str]:
    rows = history.select(
        "SELECT call_key FROM calls k JOIN trials t ON t.run_id = k.run_id AND t.candidate_id = k.candidate_id "
        "WHERE k.run_id = ? AND t.number > 0 AND k.state = 'ok' AND NOT EXISTS (SELECT 1 FROM outcomes o "
        "WHERE o.run_id = k.run_id AND o.candidate_id = k.candidate_id AND o.call_key = k.call_key)",
        run_id,
    )
    return {row["call_key"] for row in rows}


class _Offline:
    """The model's name and tokenizer without the model: it answers nothing.

    Its `endpoint` is that of the recorded calls: an embedded model may have had other weights then, and an address is
    the user's setting. Older versions requested no log-probabilities of labels.
    """

    def __init__(self, lm: LM, history: History, run_id: str) -> None:
        sent = history.select(
            "SELECT b.body, MAX(json_valid(b.body) AND json_type(b.body, '$.labels') IS NOT NULL) AS labels "
            "FROM calls k JOIN blobs b ON b.hash = k.request_hash WHERE k.run_id = ? AND k.model = ?",
            run_id,
            lm.name,
        )[0]
        self._lm, self._asks_labels = lm, bool(sent["labels"])
        self.endpoint = endpoint_of(lm)
        if self.endpoint.startswith(WEIGHTS) and sent["body"]:
            self.endpoint = str(json.loads(sent["body"]).get("endpoint", ""))

    @property
    def name(self) -> str:
        return self._lm.name

    @property
    def concurrency(self) -> int | None:
        return self._lm.concurrency

    async def complete(self, request: Request) -> Completion:
        raise RunRefused("offline: this reply is not in the ledger")

    @property
    def scores_labels(self) -> bool:
        return self._asks_labels and scores_labels(self._lm)

    def count_tokens(self, text: str) -> int:
        return self._lm.count_tokens(text)

    async def close(self) -> None:
        await self._lm.close()


class _ReplayLedger(Ledger):
    """A copy of the ledger to run in, with only the replies that the run took.

    `trials` and `outcomes` are what the run writes this time.
    """

    def __init__(self, path: Path, history: History, run_id: str) -> None:
        super().__init__(path)
        self.trials: dict[int, Trial] = {}
        self.outcomes: dict[tuple[str, str, str], float | None] = {}
        self._is_stopped = bool(history.facts("budget_exhausted", run_ids=[run_id]))
        calls = history.select("SELECT call_key, state, error FROM calls WHERE run_id = ? ORDER BY id", run_id)
        self._used = {row["call_key"] for row in calls if row["state"] in ("ok", "cached")}
        if self._is_stopped:
            self._used -= _landed_late(history, run_id)
        # of each call the last; what was called off has none
        self._failures = {row["call_key"]: row["error"] for row in calls if row["error"]}

    def resume_run(self, run_id: str, budget: Mapping[str, Any]) -> ResumeState:
        """Resume with nothing spent, as replayed replies are free. If the budget ended the run, all of it is spent."""
        past = super().resume_run(run_id, budget)
        past.bought = {key: calls for key, calls in past.bought.items() if key in self._used}
        past.paid, past.seconds = ({"model": ALL}, ALL.usd) if self._is_stopped else ({}, 0.0)
        return past

    def settled(self, call_key: str) -> Completion | None:
        """Return a reply that the run took. Raises the recorded error of a call that failed for good."""
        if call_key in self._used:
            return super().settled(call_key)
        if call_key in self._failures:
            raise RowRefused(self._failures[call_key])
        return None

    def put_trial(self, run_id: str, trial: Trial) -> None:
        self.trials[trial.number] = trial
        super().put_trial(run_id, trial)

    def put_outcome(self, run_id: str, split: SplitName, outcome: Outcome) -> None:
        self.outcomes[split, outcome.candidate_id, outcome.example_id] = outcome.value
        super().put_outcome(run_id, split, outcome)


def drift(history: History, run: Row, ledger: _ReplayLedger, result: Mapping[str, Any] | None) -> Iterator[str]:
    """Return the differences, a line each."""
    trials = history.trials(run["id"])
    yield from _differences(
        {f"trial {t['number']}": (t["candidate_id"], t["state"], t["n"], t["mean"]) for t in trials},
        {f"trial {t.number}": (t.candidate_id, t.state, t.n, t.mean) for t in ledger.trials.values()},
    )
    rows = history.select("SELECT split, candidate_id, example_id, value FROM outcomes WHERE run_id = ?", run["id"])
    yield from _differences(
        {_name(r["split"], r["candidate_id"], r["example_id"]): r["value"] for r in rows},
        {_name(*place): value for place, value in ledger.outcomes.items()},
    )
    if result is not None:
        left_out = {*NOT_COMPARED}
        if run["status"] == "budget":
            left_out |= {"tokens", "tokens_a_call", "search_ended"}
        was = RunResult.from_json(run["result"]).to_json()
        yield from _differences(dict(_flat("result", was, left_out)), dict(_flat("result", result, left_out)))


def _name(split: str, candidate_id: str, example_id: str) -> str:
    return f"{split} row {example_id} of {candidate_id}"


def _flat(name: str, value: Any, left_out: set[str]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key not in left_out:
                yield from _flat(f"{name}.{key}", bool(inner) if key in SENTENCES else inner, left_out)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _flat(f"{name}.{number}", inner, left_out)
    else:
        yield name, value


def _differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name in {**was, **now}:
        if name not in now:
            yield f"{name} did not come again"
        elif name not in was:
            yield f"{name} is new: {now[name]}"
        elif was[name] != now[name]:
            yield f"{name} is {now[name]}, it was {was[name]}"
