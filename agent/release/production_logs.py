"""Answers of production against a reference window: format, labels, length, steadiness, scores. Pure.

    log.jsonl: {"reply": "...", "inputs": {...}, "time": "2026-11-25T08:00:00Z", "score": 0.8}

Only the reply must be there. Both windows are read by the prompt itself. Of a suite the first answer to each row
counts, so that rows that were asked several times do not weigh more than they are worth. A suite's rows are those of
dev, whose labels may be mixed otherwise than what people send; a log of a good week as the reference has no such bias.
Answers count as independent: a log in which few inputs come very often says less than its number of rows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from agent.errors import InputError, Problem, ProblemsError
from agent.release.runtime import Prompt
from agent.release.suite import Suite, is_answer
from agent.stats.drift import Found, alarms, categories_moved, more_often, scores_fell, sizes_moved
from agent.task.input_files import read_rows
from agent.task.words import near, problem, quoted, shown
from agent.types import Drift, Prediction, canonical

KEYS = ("reply", "inputs", "time", "score")


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer. `asked`: its inputs as one text, "" where they are not known; `score` in [0, 1] or None."""

    reply: str
    prediction: Prediction
    asked: str = ""
    score: float | None = None
    time: str = ""


@dataclass(frozen=True, slots=True)
class Window:
    """Answers of one time. `again`: pairs of answers to the same input."""

    answers: Sequence[Seen]
    again: Sequence[tuple[Prediction, Prediction]] = field(default=())


def window_of_suite(suite: Suite, prompt: Prompt) -> Window:
    """What a suite has recorded."""
    answers, again = [], []
    for row, outcomes in zip(suite.rows, suite.recorded(prompt), strict=True):
        told = [outcome for outcome in outcomes if is_answer(outcome)]
        asked = canonical(dict(row.inputs))
        answers += [Seen(o.prediction.raw, o.prediction, asked, o.value) for o in told[:1]]
        again += [(told[0].prediction, told[1].prediction)] if len(told) > 1 else []
    return Window(answers, again)


def window_of_log(path: Path, prompt: Prompt) -> Window:
    """What a log holds. Raises ProblemsError with every problem at its `file:line`."""
    rows, problems = read_rows(path)
    where = shown(path)
    answers = []
    for line, row in rows:
        try:
            answers.append(_seen(row, prompt))
        except ValueError as error:
            problems.append(problem(where, line, str(error)))
    if not rows and not problems:
        problems = [Problem(f"{where}:1", 'no rows; write one object per answer, {"reply": ...}')]
    if problems:
        raise ProblemsError(tuple(problems))
    return Window(answers, list(_again(answers)))


def _seen(row: Mapping[str, Any], prompt: Prompt) -> Seen:
    if unknown := next((key for key in row if key not in KEYS), None):
        raise ValueError(f"unknown key {quoted(unknown)}{near(unknown, KEYS)}")
    reply = row.get("reply")
    if not isinstance(reply, str):
        raise ValueError(f"reply: {quoted(reply)} is not a text; write what the model answered")
    score, time, inputs = row.get("score"), row.get("time"), row.get("inputs")
    score = None if score is None or score == "" else _score(score)
    if time is not None:
        if not isinstance(time, str):
            raise ValueError(f"time: {quoted(time)} is not a text; write 2026-11-25T08:00:00Z")
        try:
            datetime.fromisoformat(time)
        except ValueError:
            raise ValueError(f"time: {quoted(time)} is no time; write 2026-11-25T08:00:00Z") from None
    if inputs is not None and not isinstance(inputs, dict):
        raise ValueError(f'inputs: {quoted(inputs)} is no object; write {{"field": "text"}}')
    asked = canonical(inputs) if inputs else ""
    return Seen(reply, prompt.parse(reply), asked, score, time or "")


def _score(value: Any) -> float:
    """A score out of JSON, or out of a cell of CSV, where an empty one is none."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number <= 1:
        raise ValueError(f"score: {quoted(value)} is not a number from 0 to 1")
    return number


def _again(answers: Iterable[Seen]) -> Iterable[tuple[Prediction, Prediction]]:
    """The first two answers to each input that came more than once."""
    first: dict[str, Seen | None] = {}
    for seen in answers:
        if not seen.asked:
            continue
        if seen.asked not in first:
            first[seen.asked] = seen
        elif (before := first[seen.asked]) is not None:
            yield before.prediction, seen.prediction
            first[seen.asked] = None


# -- comparing --------------------------------------------------------------------------------------------------------


def compared(was: Window, now: Window, prompt: Prompt, limits: Drift, seed: int = 0) -> dict[str, Any]:
    """Each test and whether it alarms, JSON-ready. Raises InputError for a reference without answers."""
    if not was.answers:
        raise InputError(
            "the reference holds no answers; give --reference FILE, or record a suite with `optimize bless`"
        )
    one, two = was.answers, now.answers
    found = [
        more_often("unreadable replies", _unreadable(one), _unreadable(two), limits.unreadable),
        *_labels(one, two, prompt, limits, seed),
        sizes_moved("length in characters", _lengths(one), _lengths(two), limits.length),
        more_often("another answer when asked again", _changed(was.again), _changed(now.again), limits.repeats),
        scores_fell("score", _scores(one), _scores(two), limits.score),
    ]
    raised = alarms(found, limits.alpha)
    times = sorted(seen.time for seen in now.answers if seen.time)
    return {
        "drift": bool(raised),
        "alarms": [each.name for each in raised],
        "alpha": limits.alpha,
        "rows": {"was": len(was.answers), "now": len(now.answers)},
        "from": times[0] if times else None,
        "to": times[-1] if times else None,
        "tests": [{**asdict(each), "alarm": each in raised} for each in found],
    }


def _labels(one: Sequence[Seen], two: Sequence[Seen], prompt: Prompt, limits: Drift, seed: int) -> list[Found]:
    """One test for each output that is a choice; replies that cannot be read are told by another test."""
    names = [output.name for output in prompt.release.outputs if output.type == "choice"]
    return [
        categories_moved(f"labels of {name}", _counts(one, name), _counts(two, name), limits.labels, seed)
        for name in names
    ]


def _counts(answers: Sequence[Seen], name: str) -> Counter[str]:
    return Counter(str(seen.prediction.fields[name]) for seen in answers if name in seen.prediction.fields)


def _unreadable(answers: Sequence[Seen]) -> tuple[int, int]:
    return sum(bool(seen.prediction.error) for seen in answers), len(answers)


def _lengths(answers: Sequence[Seen]) -> list[int]:
    return [len(seen.reply.strip()) for seen in answers]


def _changed(pairs: Sequence[tuple[Prediction, Prediction]]) -> tuple[int, int]:
    return sum(_answer(one) != _answer(two) for one, two in pairs), len(pairs)


def _answer(prediction: Prediction) -> str:
    return canonical(dict(prediction.fields)) if prediction.fields else prediction.raw.strip()


def _scores(answers: Sequence[Seen]) -> list[float]:
    return [seen.score for seen in answers if seen.score is not None]
