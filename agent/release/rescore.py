"""An export scored again on the dev rows, from what the ledger holds of the run. Asks no model.

The messages that the export renders must make the call that the run made (the key of a call is a hash of all that is
sent), and the reply to that call, read and scored again, must give the score that the row has. A judge is not asked
again: where the reply reads as it did, its verdict stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.errors import InputError, ReleaseError
from agent.gateway.gateway import key_of
from agent.ledger.query import History, Row
from agent.ledger.trail import request_of
from agent.release.export import require_same
from agent.release.formats.export_format import Parse, Render, Sent, Values
from agent.release.runtime import PromptRelease
from agent.scoring.task_metrics import build_metrics, combine
from agent.scoring.user_metrics import require_all
from agent.task.examples import PLAYED
from agent.types import Example, MetricSpec, Prediction, Score, Task, canonical

SCORED_BY = ("dev", "task.toml", "metric.py", "metric", "rubric.md")
"""What a dev score depends on, by the names of a task's hashes."""


@dataclass(frozen=True, slots=True)
class RecordedRow:
    """A dev row in a run: the key of its call, what was sent and replied, and the score."""

    row: Example
    key: str
    request: Mapping[str, Any]
    prediction: Prediction
    scores: tuple[Score, ...]
    value: float | None


@dataclass(frozen=True, slots=True)
class DevRun:
    """One prompt on dev in a run: every row with a reply, and the trial's mean score over them in [0, 1]."""

    task: Task
    model: str
    rows: tuple[RecordedRow, ...]
    score: float


@dataclass(frozen=True, slots=True)
class Rescored:
    """`rows` made the same calls and scores, with mean `score` in [0, 1]; `unfit` more the target cannot carry."""

    rows: int
    score: float | None
    unfit: int


def dev_run(history: History, run: Row, task: Task, candidate_id: str) -> DevRun:
    """The dev rows of a candidate out of the ledger. Raises an InputError that says why it cannot be scored again."""
    for name in SCORED_BY:
        if run["hashes"].get(name) != task.hashes.get(name):
            what = "the dev rows" if name == "dev" else name
            raise InputError(f"{what} of the task changed since the run")
    if task.user is not None:
        raise InputError(PLAYED)
    require_all(task)
    trial = next((each for each in history.trials(run["id"]) if each["candidate_id"] == candidate_id), None)
    if trial is None or trial["mean"] is None:
        raise InputError(f"the ledger has no score of {candidate_id or 'this prompt'} on dev")
    if trial["n"] < run["plan"]["dev_rows"] and trial["number"]:  # the user's own prompt may do with a part of dev
        raise InputError(f"its trial ended after {trial['n']} of {run['plan']['dev_rows']} dev rows")
    rows = {row.id: row for row in task.dev}
    outcomes = history.outcomes(run["id"], candidate_id, "dev")
    found = [_recorded_row(history, rows[each["example_id"]], each) for each in outcomes if each["example_id"] in rows]
    kept = tuple(each for each in found if each is not None)
    if not kept or len(found) < len(outcomes):
        raise InputError("replies or rows of it were erased from the ledger" if kept else "the ledger has no replies")
    return DevRun(task, run["model"], kept, trial["mean"])


def _recorded_row(history: History, row: Example, outcome: Row) -> RecordedRow | None:
    """None for a row without an answer, which has no score either."""
    if not outcome["call_key"] or (outcome["value"] is None and not outcome["fields"]):
        return None
    request = request_of(history, outcome["call_key"])
    if request is None or outcome["error"] == "(erased)":
        raise InputError("replies of it were erased from the ledger")
    prediction = Prediction(outcome["fields"], outcome["reply"], outcome["error"])
    scores = tuple(Score(*each) for each in outcome["scores"])
    return RecordedRow(row, outcome["call_key"], request, prediction, scores, outcome["value"])


def rescore(
    name: str,
    release: PromptRelease,
    dev: DevRun,
    render: Render,
    parse: Parse,
    unfit: Callable[[PromptRelease, Values], str],
) -> Rescored:
    """Render every row through an export, and read and score its reply again.

    Raises:
        ReleaseError: A row makes another call, reads otherwise or has another score than in the run.
    """
    fit = [each for each in dev.rows if not unfit(release, each.row.inputs)]
    for each in fit:
        _require_same_call(name, release, dev.model, each, render(each.row.inputs))
    predictions = [parse(each.row.inputs, each.prediction.raw) for each in fit]
    now = asyncio.run(_scores(dev.task, fit, predictions))
    for each, prediction, (value, why) in zip(fit, predictions, now, strict=True):
        if (got := _reading(prediction)) != (was := _reading(each.prediction)):
            raise ReleaseError(
                f"{name}: the reply to dev row {each.row.id} reads as {got!a:.80}, in the run {was!a:.80}"
            )
        if value is None and each.value is not None:
            raise ReleaseError(f"{name}: dev row {each.row.id} cannot be scored again: {why}")
        if value != each.value:
            raise ReleaseError(f"{name}: dev row {each.row.id} scores {value}, in the run {each.value}")
    values = [value for value, _ in now if value is not None]
    score = sum(values) / len(values) if values else None
    if score is not None and len(fit) == len(dev.rows) and abs(score - dev.score) > 1e-9:
        raise ReleaseError(f"{name}: the dev rows score {100 * score:.1f}, the trial has {100 * dev.score:.1f}")
    return Rescored(len(fit), score, len(dev.rows) - len(fit))


def _reading(prediction: Prediction) -> str:
    return "unreadable" if prediction.error else canonical(dict(prediction.fields))


def _require_same_call(name: str, release: PromptRelease, model: str, was: RecordedRow, sent: Sent) -> None:
    parameters = {key: release.parameters[key] for key in ("max_tokens", "temperature") if key in release.parameters}
    if key_of(model, {**was.request, **parameters, "messages": sent}) == was.key:
        return
    require_same(f"{name}, dev row {was.row.id}", was.request["messages"], sent, was.row.inputs)
    was_sent = {key: was.request[key] for key in parameters}
    raise ReleaseError(
        f"{name}: dev row {was.row.id} is sent with {parameters} to {model}, not with {was_sent} as in the run"
    )


async def _scores(
    task: Task, rows: Sequence[RecordedRow], predictions: Sequence[Prediction]
) -> list[tuple[float | None, str]]:
    """Each row's score, and why it has none. The scores of judges are those of the run."""
    metrics = build_metrics(task, {"judge": _RecordedJudge})
    found = []
    for each, prediction in zip(rows, predictions, strict=True):
        scores = tuple(
            [
                was if isinstance(metric, _RecordedJudge) else await metric.score(each.row, prediction)
                for metric, was in zip(metrics, each.scores, strict=True)
            ]
        )
        why = next((" ".join(score.reason.split()) for score in scores if score.value is None), "")
        found.append((combine(scores, task.metrics), why))
    return found


@dataclass(frozen=True, slots=True)
class _RecordedJudge:
    """In the place of a judge, whose recorded score stands."""

    spec: MetricSpec

    @property
    def name(self) -> str:
        return self.spec.name

    async def score(self, example: Example, prediction: Prediction) -> Score:
        return Score(self.name, None, "a judge is not asked again")


def release_parser(release: PromptRelease) -> Parse:
    """How replies are read where the target leaves that to the program: by the release itself."""
    from agent.prompt.reply_parser import parse_reply

    return lambda values, reply: parse_reply(reply, release.outputs, reasoning=release.reasoning)
