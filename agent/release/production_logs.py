"""Logs of production: answers against a reference window, and the outcomes of an A/B test. Asks no model.

    answers:  {"reply": "...", "inputs": {...}, "time": "2026-11-25T08:00:00Z", "score": 0.8, "confidence": 0.9}
    outcomes: {"unit": "user-17", "arm": "A", "outcome": 1}        in the order in which they came

Of an answer only the reply must be there. Other keys are ignored, and each of these may have another name. Lines that
cannot be read are left out and listed once; a log of which half cannot be read is refused. Both windows are read by the
prompt itself. Of a suite the first answer to each row counts, so that rows asked several times do not weigh more. A
suite's rows are those of dev, whose labels may be mixed otherwise than what people send; a log of a good week as the
reference has no such bias. Answers count as independent: a log in which few inputs come very often says less than its
number of rows.

A unit (a user, a session) of an A/B test is bucketed once and counts once: two outcomes of it are not independent of
each other. A second one is refused, or left out by `first`; averaging would change what was counted before, and with it
every earlier look. A unit in two arms is always refused: its bucket did not hold.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from agent.errors import InputError, Problem, ProblemsError
from agent.release.runtime import Prompt
from agent.release.suite import Suite, is_answer
from agent.results.base import WasNow
from agent.results.checks import AbResult, DriftLine, MonitorResult
from agent.safe_text import listed, near, problem, quoted, shown
from agent.stats import anytime
from agent.stats.changes import DriftTest, alarms, categories_moved, more_often, scores_fell, sizes_moved
from agent.task.tables import read_rows
from agent.types import Drift, Prediction, canonical

AS_THEY_ARE: Mapping[str, str] = {}
"""No key has another name."""


@dataclass(frozen=True, slots=True)
class LoggedAnswer:
    """One answer. `inputs_key`: its inputs as one text, "" where they are not known; `score` and `confidence` in [0, 1]
    or None."""

    reply: str
    prediction: Prediction
    inputs_key: str = ""
    score: float | None = None
    time: str = ""
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """Answers of one period. `repeats`: pairs of answers to the same input; `notes`: which lines were left out."""

    answers: Sequence[LoggedAnswer]
    repeats: Sequence[tuple[Prediction, Prediction]] = field(default=())
    notes: tuple[str, ...] = ()


def window_of_suite(suite: Suite, prompt: Prompt) -> Window:
    """The answers that a suite has recorded, read by the prompt."""
    answers, repeats = [], []
    for row, outcomes in zip(suite.rows, suite.recorded(prompt), strict=True):
        answered = [outcome for outcome in outcomes if is_answer(outcome)]
        inputs_key = canonical(dict(row.inputs))
        answers += [LoggedAnswer(o.prediction.raw, o.prediction, inputs_key, o.value) for o in answered[:1]]
        repeats += [(answered[0].prediction, answered[1].prediction)] if len(answered) > 1 else []
    return Window(answers, repeats)


def window_of_log(path: Path, prompt: Prompt, columns: Mapping[str, str] = AS_THEY_ARE) -> Window:
    """The answers of a .jsonl or .csv log, read by the prompt. `columns`: keys with other names, by ours.

    Raises:
        ProblemsError: No row, or half of them or more, can be read; each kind of problem once, at its `file:line`.
    """
    found, notes = read_lines(path, lambda row: _logged_answer(row, prompt, columns), '{"reply": ...}')
    answers = [answer for _, answer in found]
    return Window(answers, list(_repeats(answers)), notes)


def _logged_answer(row: Mapping[str, Any], prompt: Prompt, columns: Mapping[str, str]) -> LoggedAnswer:
    reply = required(row, "reply", columns)
    if not isinstance(reply, str):
        raise ValueError(f"reply: {quoted(reply)} is not a text; write what the model answered")
    score, confidence = (_share(name, optional(row, name, columns)) for name in ("score", "confidence"))
    inputs = optional(row, "inputs", columns)
    inputs_key = canonical(inputs) if inputs else ""
    time = time_of(optional(row, "time", columns))
    return LoggedAnswer(reply, prompt.parse(reply), inputs_key, score, time, confidence)


def _share(name: str, value: Any) -> float | None:
    """A number from 0 to 1 that may be missing. Raises ValueError."""
    if isinstance(value, bool):
        raise ValueError(f"{name}: {value} is not a number from 0 to 1")
    return None if value is None else _fraction(name, value)


def _fraction(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number <= 1:
        raise ValueError(f"{name}: {quoted(value)} is not a number from 0 to 1")
    return number


def _repeats(answers: Iterable[LoggedAnswer]) -> Iterable[tuple[Prediction, Prediction]]:
    first: dict[str, LoggedAnswer | None] = {}
    for answer in answers:
        if not answer.inputs_key:
            continue
        if answer.inputs_key not in first:
            first[answer.inputs_key] = answer
        elif (before := first[answer.inputs_key]) is not None:
            yield before.prediction, answer.prediction
            first[answer.inputs_key] = None


def compare_windows(
    was: Window, now: Window, prompt: Prompt, limits: Drift, seed: int = 0, log: str = ""
) -> MonitorResult:
    """Test the window `now`, of the file `log`, for drift from `was`. Raises InputError without a reference."""
    if not was.answers:
        raise InputError(
            "the reference holds no answers; give --reference FILE, or record a suite with `optimize bless`"
        )
    before, after = was.answers, now.answers
    tests = [
        more_often("unreadable replies", _unreadable(before), _unreadable(after), limits.unreadable),
        *_labels(before, after, prompt, limits, seed),
        sizes_moved("length in characters", _lengths(before), _lengths(after), limits.length),
        more_often("another answer when asked again", _changed(was.repeats), _changed(now.repeats), limits.repeats),
        scores_fell("score", _scores(before), _scores(after), limits.score),
        *_unsure(before, after, prompt, limits, seed),
    ]
    raised = alarms(tests, limits.alpha)
    times = sorted(answer.time for answer in now.answers if answer.time)
    return MonitorResult(
        name=prompt.name,
        version=prompt.version,
        log=log,
        drift=bool(raised),
        alarms=tuple(each.name for each in raised),
        alpha=limits.alpha,
        rows=WasNow(was=len(was.answers), now=len(now.answers)),
        start=times[0] if times else None,
        end=times[-1] if times else None,
        tests=tuple(DriftLine(**asdict(each), alarm=each in raised) for each in tests),
        notes=(*was.notes, *now.notes),
    )


def _labels(
    before: Sequence[LoggedAnswer], after: Sequence[LoggedAnswer], prompt: Prompt, limits: Drift, seed: int
) -> list[DriftTest]:
    """One test for each output that is a choice; replies that cannot be read have a test of their own."""
    names = [output.name for output in prompt.release.outputs if output.type == "choice"]
    return [
        categories_moved(f"labels of {name}", _counts(before, name), _counts(after, name), limits.labels, seed)
        for name in names
    ]


def _unsure(
    before: Sequence[LoggedAnswer], after: Sequence[LoggedAnswer], prompt: Prompt, limits: Drift, seed: int
) -> list[DriftTest]:
    """Whether the share of answers below the confidence that a release names moved, in either direction."""
    if (threshold := prompt.abstain_below) is None:
        return []
    was, now = (
        Counter("below" if each.confidence < threshold else "above" for each in side if each.confidence is not None)
        for side in (before, after)
    )
    return [categories_moved(f"confidence below {threshold:.3g}", was, now, limits.confidence, seed)]


def _counts(answers: Sequence[LoggedAnswer], name: str) -> Counter[str]:
    return Counter(str(answer.prediction.fields[name]) for answer in answers if name in answer.prediction.fields)


def _unreadable(answers: Sequence[LoggedAnswer]) -> tuple[int, int]:
    return sum(bool(answer.prediction.error) for answer in answers), len(answers)


def _lengths(answers: Sequence[LoggedAnswer]) -> list[int]:
    return [len(answer.reply.strip()) for answer in answers]


def _changed(pairs: Sequence[tuple[Prediction, Prediction]]) -> tuple[int, int]:
    return sum(_answer(before) != _answer(after) for before, after in pairs), len(pairs)


def _answer(prediction: Prediction) -> str:
    return canonical(dict(prediction.fields)) if prediction.fields else prediction.raw.strip()


def _scores(answers: Sequence[LoggedAnswer]) -> list[float]:
    return [answer.score for answer in answers if answer.score is not None]


# -- A/B tests ---------------------------------------------------------------------------------------------------------

UNEVEN_FROM = 0.001
"""p of a split of units, where both arms get half of them, below which the bucketing is worth a look."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """An A/B test. `arms`: the control first. `outcomes`: (arm 0 or 1, outcome in [0, 1]) in their order.

    `left_out` counts later outcomes of a unit; `notes` say which lines could not be read.
    """

    arms: tuple[str, str]
    outcomes: tuple[tuple[int, float], ...]
    left_out: int = 0
    notes: tuple[str, ...] = ()


def read_outcomes(
    path: Path, control: str | None, *, first: bool = False, columns: Mapping[str, str] = AS_THEY_ARE
) -> Experiment:
    """The outcomes of an A/B test in a .jsonl or .csv file.

    Args:
        path: The file, a row for each outcome, in the order in which they came.
        control: The arm that the other is compared with; None: the first by name.
        first: Leave out later outcomes of a unit; otherwise they are refused.
        columns: The names of keys that have others, by ours (unit, arm, outcome).

    Raises:
        ProblemsError: Half of the rows or more cannot be read, or units have several arms or outcomes; each kind of
            problem once, at its `file:line`.
        InputError: There are not two arms, or `control` is another.
    """
    found, notes = read_lines(path, lambda row: _outcome(row, columns), '{"unit": ..., "arm": ..., "outcome": ...}')
    where = shown(path)
    problems = []
    kept: list[tuple[str, float]] = []
    bucket: dict[str, tuple[str, int]] = {}
    left_out = 0
    for line, (unit, arm, outcome) in found:
        known = bucket.setdefault(unit, (arm, line))
        if known[0] != arm:
            what = f"the unit {quoted(unit)} is in arm {quoted(arm)}, on line {known[1]} in {quoted(known[0])}"
            problems.append(problem(where, line, what))
        elif known[1] == line:
            kept.append((arm, outcome))
        elif first:
            left_out += 1
        else:
            fix = "a unit counts once; take these rows out, or count each unit's first outcome with --several first"
            what = f"the unit {quoted(unit)} has an outcome on line {known[1]}; {fix}"
            problems.append(problem(where, line, what))
    if problems:
        raise ProblemsError(tuple(listed_once(problems)))
    arms = sorted({arm for arm, _ in kept})
    if len(arms) != 2:
        raise InputError(f"{where}:1: {len(arms)} arms ({listed(arms) or 'none'}); an A/B test compares two")
    if control is not None and control not in arms:
        raise InputError(f"--control {control}: the arms are {', '.join(arms)}")
    if control == arms[1]:
        arms.reverse()
    counted = tuple((arms.index(arm), outcome) for arm, outcome in kept)
    return Experiment((arms[0], arms[1]), counted, left_out, notes)


def _outcome(row: Mapping[str, Any], columns: Mapping[str, str]) -> tuple[str, str, float]:
    names = []
    for key in ("unit", "arm"):
        value = required(row, key, columns)
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise ValueError(f"{key}: {quoted(value)} is no name; write a text")
        names.append(str(value))
    return names[0], names[1], _fraction("outcome", required(row, "outcome", columns))


def ab_report(experiment: Experiment, alpha: float = 0.05, smallest: float = 0.0) -> AbResult:
    """The difference of the arms by a test that stays valid at every look.

    `alpha` is the level of the confidence sequence; a difference below `smallest` (0 to 1) does not matter.
    """
    sides = [[outcome for arm, outcome in experiment.outcomes if arm == side] for side in (0, 1)]
    found = anytime.compared(anytime.paired(experiment.outcomes), alpha)
    low, high = found.ci
    decided = low > 0 or high < 0
    alike = not decided and smallest > 0 and -smallest < low and high < smallest
    verdict = f"{experiment.arms[1]} is {'better' if low > 0 else 'worse'}" if decided else "undecided"
    if alike:
        verdict = "no difference that matters"
    control, treatment = sides
    return AbResult(
        control=experiment.arms[0],
        treatment=experiment.arms[1],
        units=(len(control), len(treatment)),
        means=(sum(control) / len(control), sum(treatment) / len(treatment)),
        left_out=experiment.left_out,
        pairs=found.pairs,
        diff=found.diff,
        ci=found.ci,
        confidence=1 - alpha,
        e_value=found.e_value,
        p_value=found.p_value,
        smallest=smallest,
        verdict=verdict,
        may_stop=decided or alike,
        uneven=_uneven(len(control), len(treatment)),
        notes=experiment.notes,
    )


def _uneven(one: int, two: int) -> float | None:
    """p of so uneven a split of units where both arms get half of them; None from UNEVEN_FROM on."""
    from scipy import stats

    p_value = float(stats.binomtest(one, one + two, 0.5).pvalue)
    return p_value if p_value < UNEVEN_FROM else None


# -- lines of a log ----------------------------------------------------------------------------------------------------

T = TypeVar("T")
MISSING = object()
MILLISECONDS_FROM = 1e11
"""A time since 1970 from here on is one in milliseconds: in seconds it would be the year 5138."""
_VALUES = re.compile(r"'[^']*'|\"[^\"]*\"|\d+")
_SEVERAL = re.compile(r"[:;,({\[]")


def value_of(row: Mapping[str, Any], name: str) -> Any:
    """The value of the key `name`, or of one inside another by its dotted name; or MISSING.

    >>> value_of({"response": {"text": "billing"}}, "response.text")
    'billing'
    """
    if name in row:
        return row[name]
    part: Any = row
    for key in name.split("."):
        if not isinstance(part, Mapping) or key not in part:
            return MISSING
        part = part[key]
    return part


def required(row: Mapping[str, Any], what: str, columns: Mapping[str, str]) -> Any:
    """The value of `what`, whose key `columns` may name. Raises ValueError."""
    name = columns.get(what, what)
    value = value_of(row, name)
    if value is MISSING:
        raise ValueError(f"{what}: no key {quoted(name)}{near(name, row)}; name its key with --{what}-column")
    return value


def optional(row: Mapping[str, Any], what: str, columns: Mapping[str, str]) -> Any:
    """The value of `what`, or None, as for an empty cell."""
    value = value_of(row, columns.get(what, what))
    return None if value is MISSING or value == "" else value


def time_of(value: Any) -> str:
    """A time in ISO 8601: such a text as it is, or seconds or milliseconds since 1970. Raises ValueError."""
    if value is None:
        return ""
    try:
        if isinstance(value, str) and not value.isdecimal():
            datetime.fromisoformat(value)
            return value
        seconds = float(value)
        seconds = seconds / 1000 if seconds >= MILLISECONDS_FROM else seconds
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (ValueError, TypeError, OverflowError, OSError):
        raise ValueError(f"time: {quoted(value)} is no time; write 2026-11-25T08:00:00Z") from None


def read_lines(
    path: Path, read: Callable[[Mapping[str, Any]], T], example: str
) -> tuple[list[tuple[int, T]], tuple[str, ...]]:
    """What `read` makes of each row of a .jsonl or .csv file, with its line, and notes on what was left out.

    Args:
        path: The file.
        read: Raises ValueError for a row that it cannot read.
        example: A row, for whoever has none.

    Raises:
        ProblemsError: No row, or half of them or more, can be read.
    """
    rows, problems = read_rows(path)
    where = shown(path)
    found = []
    for line, row in rows:
        try:
            found.append((line, read(row)))
        except ValueError as error:
            problems.append(problem(where, line, str(error)))
    if not rows and not problems:
        problems = [Problem(f"{where}:1", f"no rows; write one object per line, {example}")]
    once = list(listed_once(problems))
    if problems and len(problems) >= len(found):
        raise ProblemsError(tuple(once))
    return found, tuple(f"{each}; left out" for each in once)


def listed_once(problems: Iterable[Problem]) -> Iterable[Problem]:
    """Each kind of problem at its first line, and in how many more lines it is; what is in most lines first."""
    kinds: dict[str, list[Problem]] = {}
    for each in problems:
        kinds.setdefault(_SEVERAL.split(_VALUES.sub("", each.what), maxsplit=1)[0], []).append(each)
    for first, *more in sorted(kinds.values(), key=len, reverse=True):
        lines = f" (and so in {len(more)} more line{'s' * (len(more) > 1)})" if more else ""
        yield Problem(first.where, first.what + lines)
