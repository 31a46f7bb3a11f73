"""Rules on production answers: drift of a log from its reference, and A/B tests. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from agent.evaluate.breakdown import said
from agent.evaluate.score_table import ScoreTable
from agent.evaluate.verdict import Reason, Verdict
from agent.stats import anytime
from agent.stats.anytime import AnytimeComparison
from agent.types import Drift, Field, Outcome, canonical

if TYPE_CHECKING:
    from agent.stats.drift import DriftTest


def drifted(
    table: ScoreTable,
    arm: str,
    reference: str,
    outputs: Sequence[Field],
    limits: Drift,
    below: float | None = None,
    seed: int = 0,
) -> Verdict[tuple[DriftTest, ...]]:
    """Test an arm's answers for drift from the reference, each on its own rows.

    An alarm needs a change that is significant, corrected for the number of tests, and as large as its limit. Only the
    first answer of a row counts. `below`: the abstain threshold of the prompt.
    """
    from agent.stats.drift import alarms, categories_moved, more_often, scores_fell, sizes_moved

    was, now = (_answered(table, each) for each in (reference, arm))
    again = [list(_asked_again(table, each)) for each in (reference, arm)]
    unreadable = [(sum(bool(each.prediction.error) for each in side), len(side)) for side in (was, now)]
    lengths = [[len(each.prediction.raw.strip()) for each in side] for side in (was, now)]
    scores = [[each.value for each in side if each.value is not None] for side in (was, now)]
    tests = [
        more_often("unreadable replies", unreadable[0], unreadable[1], limits.unreadable),
        *(
            categories_moved(f"labels of {name}", _labels(was, name), _labels(now, name), limits.labels, seed)
            for name in (field.name for field in outputs if field.type == "choice")
        ),
        sizes_moved("length in characters", lengths[0], lengths[1], limits.length),
        more_often("another answer when asked again", _changed(again[0]), _changed(again[1]), limits.repeats),
        scores_fell("score", scores[0], scores[1], limits.score),
    ]
    if below is not None:
        sure = [_confidences(side, below) for side in (was, now)]
        tests.append(categories_moved(f"confidence below {below:.3g}", sure[0], sure[1], limits.confidence, seed))
    raised = [Reason("drifted", each.name) for each in alarms(tests, limits.alpha)]
    return Verdict(tuple(tests), tuple(raised))


def _answered(table: ScoreTable, arm: str) -> list[Outcome]:
    rows = ([each for each in answers if each.call_key] for answers in table.answers(arm).values())
    return [answers[0] for answers in rows if answers]


def _asked_again(table: ScoreTable, arm: str) -> Iterator[tuple[Outcome, Outcome]]:
    inputs = {row.id: canonical(dict(row.inputs)) for row in table.rows if row.inputs}
    waiting: dict[str, Outcome | None] = {}
    for row, answers in table.answers(arm).items():
        answered = [each for each in answers if each.call_key]
        if len(answered) > 1:
            yield answered[0], answered[1]
        elif len(answers) == 1 and answered and (key := inputs.get(row)):
            if key not in waiting:
                waiting[key] = answered[0]
            elif (before := waiting[key]) is not None:
                yield before, answered[0]
                waiting[key] = None


def _changed(pairs: Sequence[tuple[Outcome, Outcome]]) -> tuple[int, int]:
    return sum(said(before) != said(after) for before, after in pairs), len(pairs)


def _labels(answers: Sequence[Outcome], name: str) -> Counter[str]:
    return Counter(str(each.prediction.fields[name]) for each in answers if name in each.prediction.fields)


def _confidences(answers: Sequence[Outcome], threshold: float) -> Counter[str]:
    known = [each.prediction.confidence for each in answers if each.prediction.confidence is not None]
    return Counter("below" if confidence < threshold else "above" for confidence in known)


def ahead(
    outcomes: Sequence[tuple[int, float]], arms: tuple[str, str], alpha: float = 0.05, smallest: float = 0.0
) -> Verdict[AnytimeComparison]:
    """Test, valid at every look, whether arm 1 is better than arm 0. `outcomes`: arm and score as they arrived."""
    found = anytime.compared(anytime.paired(outcomes), alpha)
    low, high = found.ci
    if low > 0:
        return Verdict(found)
    if high < 0:
        return Verdict(found, (Reason("worse", f"{arms[1]} is worse"),))
    if smallest > 0 and -smallest < low and high < smallest:
        return Verdict(found, (Reason("alike", "no difference that matters"),))
    return Verdict(found, (Reason("undecided", "undecided"),))
