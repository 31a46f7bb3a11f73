"""Breakdown of a score by metric, slice, repeat and answer, and reliability of confidences. Chooses nothing."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, pairwise
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypeVar

from agent.metrics.json_values import field_value
from agent.metrics.text_similarity import signature
from agent.results.base import Mean, SideName
from agent.results.breakdown import (
    Abstain,
    Calibration,
    Gain,
    Group,
    MetricPart,
    PriorVote,
    Side,
    Slice,
    Steadiness,
    TextVariety,
)
from agent.stats.calibration import abstain_below, expected_calibration_error, reliability
from agent.stats.intervals import both_scored, groups_differ, mean_ci, scored_difference
from agent.types import Field, MetricSpec, Outcome, canonical

if TYPE_CHECKING:
    from agent.evaluate.score_table import ScoreTable

T = TypeVar("T")
PASS = 0.999  # the score of a right answer
FEWEST_ROWS = 5  # the fewest rows of a slice for an interval
WINNER: SideName = "winner"
BASELINE: SideName = "baseline"  # the two arms that are compared on the sealed rows


def both(table: ScoreTable, make: Callable[[list[Outcome]], T]) -> dict[SideName, T]:
    """Return what `make` makes of the first answers of each side."""
    return {side: make(table.first(side)) for side in (WINNER, BASELINE)}


def by_metric(table: ScoreTable, specs: Sequence[MetricSpec], seed: int) -> list[MetricPart]:
    """Compare both sides by metric; the first line is the share of readable replies."""
    sides = [table.first(side) for side in (WINNER, BASELINE)]
    parsed = [[readable(outcome) for outcome in side] for side in sides]
    lines = [MetricPart(metric="readable", field="", **compared(parsed[0], parsed[1], seed))]
    for at, spec in enumerate(specs):
        won, based = ([outcome.scores[at].value for outcome in side] for side in sides)
        name = sides[0][0].scores[at].metric if sides[0] else spec.name
        line = compared(won, based, seed)
        counted = signature(spec.name)
        lines.append(MetricPart(metric=name, field=spec.field, weight=spec.weight, signature=counted, **line))
    return lines


def is_answer(outcome: Outcome) -> bool:
    """Tell whether the model answered. A reply that does not parse is an answer, a refusal is not."""
    return bool(outcome.call_key) and (outcome.value is not None or bool(outcome.prediction.fields))


def readable(outcome: Outcome) -> float | None:
    """Return 1 or 0. None for a row that the provider or every metric left without a score."""
    lost = outcome.call_key == "" or (outcome.scores and all(score.value is None for score in outcome.scores))
    return None if lost else float(not outcome.prediction.error)


def compared(won: Sequence[float | None], based: Sequence[float | None], seed: int) -> dict[str, Any]:
    """Return the fields of a line: both sides and their difference."""
    return {"winner": summary(won), "baseline": summary(based), **dict(difference(won, based, seed))}


def summary(values: Sequence[float | None]) -> Side:
    """Summarize scores: mean, interval, and the number of rows with and without a score."""
    known = [value for value in values if value is not None]
    if not known:
        return Side(unscored=len(values))
    mean, low, high = mean_ci(known)
    return Side(mean=mean, ci95=(low, high), n=len(known), unscored=len(values) - len(known))


def mean_of(values: Sequence[float]) -> Mean:
    """Return the mean of scores with its interval."""
    if not values:
        return Mean()
    mean, low, high = mean_ci(values)
    return Mean(mean=mean, ci95=(low, high), n=len(values))


def difference(won: Sequence[float | None], based: Sequence[float | None], seed: int) -> Gain:
    """Compare winner and baseline over the rows with both scores."""
    result = scored_difference(won, based, seed)
    return Gain() if result is None else Gain(diff=result.diff, diff_ci95=result.ci95, p_value=result.p_value)


def by_slice(table: ScoreTable, names: Sequence[str], seed: int) -> list[Slice]:
    """Compare both sides by slice and group, with the largest gap between groups."""
    lines, sides = [], [[outcome.value for outcome in table.first(side)] for side in (WINNER, BASELINE)]
    for name in names:
        places: dict[str, list[int]] = defaultdict(list)
        for at, row in enumerate(table.rows):
            places[row.slices.get(name, "")].append(at)
        groups = []
        scores: dict[SideName, list[list[float]]] = {WINNER: [], BASELINE: []}
        for value, here in sorted(places.items()):
            won, based = ([side[at] for at in here] for side in sides)
            differs = difference(won, based, seed) if len(both_scored(won, based)) >= FEWEST_ROWS else Gain()
            groups.append(Group(value=value, winner=summary(won), baseline=summary(based), **dict(differs)))
            scores[WINNER].append([score for score in won if score is not None])
            scores[BASELINE].append([score for score in based if score is not None])
        gaps = _gaps(WINNER, scores[WINNER], seed) | _gaps(BASELINE, scores[BASELINE], seed)
        lines.append(Slice(slice=name, groups=tuple(groups), **gaps))
    return lines


def by_field(table: ScoreTable, outputs: Sequence[Field], specs: Sequence[MetricSpec], seed: int) -> list[MetricPart]:
    """Compare both sides by field of JSON answers, where label or answer has it."""
    found = list[MetricPart]()
    for output in dict.fromkeys(spec.field for spec in specs if spec.name == "json_fields"):
        labels = [_object(row.labels.get(output)) for row in table.rows]
        sides = [[_answered(each, output) for each in table.first(side)] for side in (WINNER, BASELINE)]
        rows = [*zip(labels, *sides, strict=True)]
        for name in dict.fromkeys(name for label in labels for name in label or ()):
            here = [row for row in rows if any(name in (part or ()) for part in row)]
            won, based = ([_field_value(row[side], row[0], name) for row in here] for side in (1, 2))
            field = f"{output}.{name}" if len(outputs) > 1 else name
            found.append(MetricPart(metric="json_fields", field=field, **compared(won, based, seed)))
    return found


def _object(value: Any) -> Mapping[str, Any] | None:
    return value if isinstance(value, Mapping) else None


def _answered(outcome: Outcome, output: str) -> Mapping[str, Any] | None:
    return None if readable(outcome) is None else _object(outcome.prediction.fields.get(output)) or {}


def _field_value(got: Mapping[str, Any] | None, label: Mapping[str, Any] | None, name: str) -> float | None:
    if got is None or label is None:
        return None
    return field_value(got, label, name) if got else 0.0


def _gaps(side: SideName, scores: Sequence[Sequence[float]], seed: int) -> dict[str, Any]:
    groups = [values for values in scores if len(values) >= FEWEST_ROWS]
    means = list(map(fmean, groups))
    gap = max(means) - min(means) if len(means) > 1 else None
    return {f"{side}_gap": gap, f"{side}_gap_p": groups_differ(groups, seed) if len(means) > 1 else None}


def consistency(samples: Sequence[Sequence[Outcome]]) -> Steadiness | None:
    """Measure the consistency of one prompt's answers over k repeats. Rows lacking an answer are left out.

    Source: pass@k, Chen et al. 2021; pass^k, Yao et al. 2024 (tau-bench).
    """
    rows = [row for row in zip(*samples, strict=True) if all(map(is_answer, row))]
    if len(samples) < 2 or not rows:
        return None
    pairs = [said(a) == said(b) for row in rows for a, b in combinations(row, 2)]
    scored = [
        values for row in rows if (values := [o.value for o in row if o.value is not None]) and len(values) == len(row)
    ]
    return Steadiness(
        k=len(samples),
        rows=len(rows),
        agreement=sum(pairs) / len(pairs),
        entropy=math.fsum(_entropy([said(outcome) for outcome in row]) for row in rows) / len(rows),
        pass_at_k=fmean(max(values) >= PASS for values in scored) if scored else None,
        pass_hat_k=fmean(min(values) >= PASS for values in scored) if scored else None,
        spread=fmean(map(_deviation, scored)) if scored else None,
    )


def said(outcome: Outcome) -> str:
    """Return the answer as one text, for comparison."""
    return canonical(dict(outcome.prediction.fields)) if outcome.prediction.fields else outcome.prediction.raw.strip()


def _entropy(answers: Sequence[str]) -> float:
    shares = [count / len(answers) for count in Counter(answers).values()]
    return -math.fsum(share * math.log2(share) for share in shares) + 0.0


def _deviation(values: Sequence[float]) -> float:
    middle = fmean(values)
    return math.sqrt(math.fsum((value - middle) ** 2 for value in values) / len(values))


def variety(outcomes: Sequence[Outcome], field: str) -> TextVariety | None:
    """Measure distinct word bigrams (distinct-2, Li et al. 2016) and unique openings of the answers over rows."""
    texts = [text for o in outcomes if isinstance(text := o.prediction.fields.get(field), str) and text.strip()]
    words = [text.casefold().split() for text in texts]
    if len(words) < 2:
        return None
    pairs = [pair for each in words for pair in pairwise(each)]
    openings = Counter(tuple(each[:3]) for each in words)
    return TextVariety(
        field=field,
        n=len(words),
        distinct_2=len(set(pairs)) / len(pairs) if pairs else None,
        openings=sum(count == 1 for count in openings.values()) / len(words),
    )


NEGLIGIBLE = 0.01  # at this weight or less the model only breaks ties of a classifier


def confidence_report(
    won: Sequence[Outcome], dev: Sequence[Outcome], calibration: Mapping[str, Any] | None, precision: float | None
) -> Calibration | None:
    """Report the reliability of the winner's confidences; `dev` chooses where to abstain for `precision`."""
    confidences, right = _known(won)
    if not confidences:
        return None
    bins = reliability(confidences, right)
    calibration = calibration or {}
    return Calibration(
        method=calibration.get("method", "none"),
        rows=len(confidences),
        ece=expected_calibration_error(bins),
        bias=calibration.get("bias", {}),
        temperature=calibration.get("temperature", 1.0),
        bins=tuple(bins),
        abstain=_abstaining(confidences, right, dev, precision) if precision is not None else None,
        neighbours=calibration.get("neighbours"),
        prior=_prior(calibration) if calibration.get("prior") else None,
    )


def _prior(calibration: Mapping[str, Any]) -> PriorVote:
    model = 1 / calibration["temperature"]
    return PriorVote(**calibration["prior"], model_weight=model, model_adds_nothing=model <= NEGLIGIBLE)


def _known(outcomes: Sequence[Outcome]) -> tuple[list[float], list[bool]]:
    pairs = [
        (outcome.prediction.confidence, outcome.value >= PASS)
        for outcome in outcomes
        if outcome.value is not None and outcome.prediction.confidence is not None
    ]
    return [confidence for confidence, _ in pairs], [ok for _, ok in pairs]


def _abstaining(
    confidences: Sequence[float], right: Sequence[bool], dev: Sequence[Outcome], precision: float
) -> Abstain:
    threshold = abstain_below(*_known(dev), precision)
    kept = [] if threshold is None else [ok for c, ok in zip(confidences, right, strict=True) if c >= threshold]
    reached = summary([float(ok) for ok in kept])
    return Abstain(
        precision=precision,
        below=threshold,
        answered=len(kept) / len(right),
        reached=reached.mean,
        reached_ci95=reached.ci95,
    )
