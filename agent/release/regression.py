"""A released prompt now against what was recorded of it: flips, difference, format, steadiness, and a verdict. Pure.

The gate asks two questions of the same rows, each at half of 5 %, so that repeat noise alone fails it in at most 5 % of
all cases: did the score fall (two-sided p below 0.05 and the difference below 0), and did more answers change than
repeat noise explains (p at most 0.025)? Both p are of shuffles within rows (`stats/flips.py`). A model that answers
as it was recorded flips nothing, and passes always. Where a fifth of the rows that had an answer got none, nothing can
be told and the gate fails, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from agent.release.suite import is_answer
from agent.scoring.breakdown import consistency
from agent.stats.flips import flip_p_value, moved_p_value
from agent.stats.intervals import mean_ci, paired_difference
from agent.types import Example, Field, Outcome, canonical

ALPHA = 0.05
"""False alarms of the whole gate under repeat noise, at most."""
MOVED = 0.1
"""Where answers are texts: how far a row's score must move for the row to count as flipped."""
UNANSWERED_FROM = 0.2
SHOWN = 200  # characters of an answer
UNREADABLE = "(unreadable)"

Answers = Sequence[Sequence[Outcome]]
"""Per row, what was answered each time."""


def verdict(
    rows: Sequence[Example], was: Answers, now: Answers, outputs: Sequence[Field], seed: int = 0
) -> dict[str, Any]:
    """What changed, JSON-ready, with `gate` ("passed" or "failed") and `why`. All three have one item per row."""
    decided = [field.name for field in outputs if field.type != "text"]
    pairs = [_answered(*sides) for sides in zip(was, now, strict=True)]
    lost = sum(bool(before) and not after for before, after in pairs)
    flips = [found for row, sides in zip(rows, pairs, strict=True) if (found := _flip(row, *sides, decided))]
    if decided:
        p_flips = flip_p_value([_each(sides, lambda o: _answer(o, decided)) for sides in pairs], _differ, seed)
    else:
        p_flips = flip_p_value([(_values(before), _values(after)) for before, after in pairs], _apart, seed)
    means = [(_mean(_values(before)), _mean(_values(after))) for before, after in pairs]
    both = [(a, b) for a, b in means if a is not None and b is not None]
    told: dict[str, Any] = {
        "rows": len(rows),
        "compared": sum(bool(before and after) for before, after in pairs),
        "unanswered": {"was": sum(not before for before, _ in pairs), "now": sum(not after for _, after in pairs)},
        "repeats": {"was": max(map(len, was), default=0), "now": max(map(len, now), default=0)},
        "score": {"was": _side([a for a, _ in both]), "now": _side([b for _, b in both])},
        "difference": _difference(both, [(_values(before), _values(after)) for before, after in pairs], seed),
        "flips": flips,
        "flip_test": {"flipped": len(flips), "p_value": p_flips, "at_most": ALPHA / 2},
        "readable": {"was": _readable([b for b, _ in pairs]), "now": _readable([a for _, a in pairs])},
        "steadiness": {"was": _steadiness(was), "now": _steadiness(now)},
    }
    why = [*_worse(told), *_too_many(told)]
    if not both and not told["compared"]:
        why.append(f"no row has an answer on both sides, so nothing can be told{_cause(now) or _cause(was)}")
    elif lost and lost >= UNANSWERED_FROM * (had := sum(bool(before) for before, _ in pairs)):
        why.append(f"{lost} of {had} rows that had an answer got none{_cause(now)}")
    return {"gate": "failed" if why else "passed", "why": why, "notes": _notes(told), **told}


def _worse(told: Mapping[str, Any]) -> list[str]:
    found = told["difference"]
    if not found or found["diff"] >= 0 or found["p_value"] >= ALPHA:
        return []
    low, high = (100 * value for value in found["ci95"])
    points = f"{100 * found['diff']:+.1f} points on {found['n']} rows"
    return [f"the score fell: {points} (95 % CI {low:+.1f} to {high:+.1f}, p = {found['p_value']:.2g})"]


def _too_many(told: Mapping[str, Any]) -> list[str]:
    test = told["flip_test"]
    if test["p_value"] > test["at_most"]:
        return []
    p_value = f"p = {test['p_value']:.2g}"
    return [f"{test['flipped']} of {told['compared']} rows flipped, more than repeat noise explains ({p_value})"]


def _cause(answers: Answers) -> str:
    """What the first that got no answer got instead."""
    errors = (each.prediction.error for row in answers for each in row if not is_answer(each))
    return next((f": {error}" for error in errors if error), "")


def _notes(told: Mapping[str, Any]) -> list[str]:
    if told["repeats"] == {"was": 1, "now": 1}:
        return ["one answer before and one now: how much is repeat noise cannot be told; ask more often with --repeats"]
    return []


# -- one row ----------------------------------------------------------------------------------------------------------


def _answered(before: Sequence[Outcome], after: Sequence[Outcome]) -> tuple[list[Outcome], list[Outcome]]:
    return [o for o in before if is_answer(o)], [o for o in after if is_answer(o)]


def _flip(row: Example, before: list[Outcome], after: list[Outcome], decided: list[str]) -> dict[str, Any] | None:
    """The row when its usual answer is another one now; where answers are texts, when its score moved."""
    if not before or not after:
        return None
    one = _usual(before, decided)
    two = _usual(after, decided, _answer(one, decided))
    scores = _mean(_values(before)), _mean(_values(after))
    if decided and _answer(one, decided) == _answer(two, decided):
        return None
    if not decided and (scores[0] is None or scores[1] is None or abs(scores[0] - scores[1]) < MOVED):
        return None
    return {
        "row": row.id,
        "was": _shown(one),
        "is": _shown(two),
        "was_score": scores[0],
        "is_score": scores[1],
        "expected": dict(row.labels),
    }


def _usual(outcomes: Sequence[Outcome], decided: list[str], recorded: str = "") -> Outcome:
    """One with the answer that came most often; of equals the one that was recorded, else the first."""
    counts = Counter(_answer(outcome, decided) for outcome in outcomes)
    most = max(counts, key=lambda answer: (counts[answer], answer == recorded))
    return next(outcome for outcome in outcomes if _answer(outcome, decided) == most)


def _answer(outcome: Outcome, decided: list[str]) -> str:
    if outcome.prediction.error:
        return UNREADABLE
    fields = outcome.prediction.fields
    return canonical({name: fields.get(name) for name in decided} if decided else dict(fields))


def _shown(outcome: Outcome) -> str:
    if outcome.prediction.error:
        return f"{UNREADABLE} {outcome.prediction.raw[:SHOWN]}".rstrip()
    fields = outcome.prediction.fields
    text = str(next(iter(fields.values()))) if len(fields) == 1 else canonical(dict(fields))
    return text[:SHOWN]


def _values(outcomes: Sequence[Outcome]) -> list[float]:
    return [outcome.value for outcome in outcomes if outcome.value is not None]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _each(sides: tuple[list[Outcome], list[Outcome]], of: Any) -> tuple[list[str], list[str]]:
    return [of(outcome) for outcome in sides[0]], [of(outcome) for outcome in sides[1]]


def _apart(one: float, two: float) -> float:
    return abs(one - two)


def _differ(one: str, two: str) -> float:
    return float(one != two)


# -- all rows ---------------------------------------------------------------------------------------------------------


def _side(values: Sequence[float]) -> dict[str, Any]:
    if not values:
        return {"mean": None, "ci95": None, "n": 0}
    mean, low, high = mean_ci(values)
    return {"mean": mean, "ci95": [low, high], "n": len(values)}


def _difference(
    both: Sequence[tuple[float, float]], samples: Sequence[tuple[list[float], list[float]]], seed: int
) -> dict[str, Any] | None:
    if not both:
        return None
    found = paired_difference([b for _, b in both], [a for a, _ in both], seed)
    return {
        "diff": found.diff,
        "ci95": list(found.ci95),
        "p_value": moved_p_value(samples, seed),
        "wins": found.wins,
        "losses": found.losses,
        "ties": found.ties,
        "n": found.n,
    }


def _readable(sides: Sequence[Sequence[Outcome]]) -> dict[str, Any]:
    """The share of replies that parse and keep their limits, by the first answer to each row."""
    return _side([float(not side[0].prediction.error) for side in sides if side])


def _steadiness(answers: Answers) -> dict[str, Any] | None:
    """How equal the answers to the same row are, over the rows that were answered each time."""
    whole = [row for row in answers if all(map(is_answer, row))]
    times = min(map(len, whole), default=0)
    return consistency([[row[at] for row in whole] for at in range(times)])
