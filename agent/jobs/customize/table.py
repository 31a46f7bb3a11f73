"""The table of a comparison, the advice by a stated rule, and the label curve. Pure.

1. A method without a language model is within noise of the best arm: no language model is needed.
2. Otherwise the best prompt is within noise: instruct.
3. Otherwise a tuned arm beats every prompt. Given enough rows per label, and more expected calls than repay the
   training: customize. With too few rows: label more. With too few calls: instruct.

"Within noise": the paired 95 % interval of the difference contains 0. Dev rows have no say.

The curve shows the score of each arm that learns, from the first n train rows in a stratified order. It has one order
and one training per point: it says where arms cross on these rows, not on rows in general.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agent.errors import Problem
from agent.evaluate.breakdown import difference, summary
from agent.prompt.template import label_text
from agent.results.breakdown import Gain
from agent.results.customize import (
    AdviceVerdict,
    ArmAdvice,
    ComparedArm,
    CurveScore,
    Family,
    Forgetting,
    SeedScore,
    SeedSpread,
)
from agent.search.context import stratified
from agent.stats.intervals import PairedResult, scored_difference
from agent.types import Task

ROWS_A_LABEL = 8
"""Mean train rows per label that a tuned arm's lead needs to count."""
FEW_ROWS = 5
"""A label with fewer train rows is named in the advice."""
WHOLE = ("full", "hosted")
"""Arms without an adapter to switch on."""
FEWEST_TRAIN = 16
"""Minimum train rows for a training."""
ALL = "all"


@dataclass(frozen=True, slots=True)
class MeasuredArm:
    """An arm's measurements: fields of `ComparedArm`, not rounded, its sealed scores and all trainings."""

    arm: str
    about: str
    family: Family
    candidate_id: str
    scores: Sequence[float | None]
    labels: int
    train_s: float = 0.0
    tokens_per_call: float = 0.0
    usd_per_1000: float | None = 0.0
    latency_s: float | None = None
    elsewhere: Forgetting | None = None
    megabytes: float = 0.0
    path: str = ""
    train_usd: float | None = 0.0
    trainings: Sequence[SeedScore] = ()
    break_even_calls: int | None = None

    @property
    def mean(self) -> float:
        """Mean of the scored rows; -inf without any."""
        return _mean(self.scores)


@dataclass(frozen=True, slots=True)
class Advice:
    """The result of the rule.

    Args:
        arm: the arm to use.
        best: the arm with the highest score.
        behind: how far `best` is ahead of `arm`; None: they are the same arm.
        scarce: labels with fewer than FEW_ROWS train rows.
    """

    verdict: AdviceVerdict
    arm: str
    best: str
    behind: PairedResult | None
    scarce: Mapping[str, int]


def advise(
    arms: Sequence[MeasuredArm], rows: Mapping[str, int], expected_calls: int | None = None, seed: int = 0
) -> Advice:
    """Apply the rule above to arms on the same rows, at least one a prompt.

    Args:
        rows: as of `rows_a_label`.
        expected_calls: in the life of the prompt; None: enough to repay the training.
    """
    best = max(arms, key=lambda arm: arm.mean)  # of equals the first
    scarce = {label: count for label, count in rows.items() if label and count < FEW_ROWS}

    def ahead_of(arm: MeasuredArm) -> PairedResult | None:
        return None if arm is best else scored_difference(best.scores, arm.scores, seed)

    def is_level(arm: MeasuredArm) -> bool:
        ahead = ahead_of(arm)
        return arm is best or (ahead is not None and ahead.ci95[0] <= 0)

    def advice(verdict: AdviceVerdict, arm: MeasuredArm) -> Advice:
        return Advice(verdict, arm.arm, best.arm, ahead_of(arm), scarce)

    def best_of(family: Family) -> MeasuredArm | None:
        return max((arm for arm in arms if arm.family == family), key=lambda arm: arm.mean, default=None)

    prompt, simplest, pays_from = best_of("prompt"), best_of("no model"), best.break_even_calls
    assert prompt is not None
    if simplest is not None and is_level(simplest):
        return advice("no model", simplest)
    if is_level(prompt):
        return advice("instruct", prompt)
    if sum(rows.values()) < ROWS_A_LABEL * len(rows):
        return advice("label more", prompt)
    if expected_calls is not None and (pays_from is None or expected_calls < pays_from):
        return advice("instruct", prompt)
    return advice("customize", best)


def break_even(arm: MeasuredArm, prompt: MeasuredArm) -> int | None:
    """Return after how many calls the training pays, against the best prompt.

    Counts dollars where the training cost some, else seconds. None: never, or unknown.
    """
    paid, own, theirs = arm.train_usd, arm.usd_per_1000, prompt.usd_per_1000
    each = 1000
    if arm.train_usd == 0.0:
        paid, own, theirs, each = arm.train_s, arm.latency_s, prompt.latency_s, 1
    if not paid or own is None or theirs is None or theirs <= own:
        return None
    return math.ceil(paid / ((theirs - own) / each))


def table(
    arms: Sequence[MeasuredArm], rows: Mapping[str, int], expected_calls: int | None, seed: int
) -> tuple[tuple[ComparedArm, ...], ArmAdvice]:
    """Return the arms and the advice of the result; arguments as of `advise`."""
    best = max((arm for arm in arms if arm.family == "prompt"), key=lambda arm: arm.mean)
    arms = [replace(arm, break_even_calls=break_even(arm, best)) if arm.family == "tuned" else arm for arm in arms]
    advice = advise(arms, rows, expected_calls, seed)
    lines = tuple(_line(arm, arms[0], seed) for arm in arms)
    return lines, ArmAdvice(verdict=advice.verdict, arm=advice.arm, text=advice_text(advice, lines))


def _mean(scores: Sequence[float | None]) -> float:
    known = [score for score in scores if score is not None]
    return math.fsum(known) / len(known) if known else -math.inf


def _line(arm: MeasuredArm, yours: MeasuredArm, seed: int) -> ComparedArm:
    scored, against = summary(arm.scores), Gain() if arm is yours else difference(arm.scores, yours.scores, seed)
    measured: dict[str, Any] = {name: getattr(arm, name) for name in ComparedArm.model_fields if hasattr(arm, name)}
    rounded = {"train_s": 1, "tokens_per_call": 1, "latency_s": 3, "megabytes": 1}
    measured |= {name: round(measured[name], to) for name, to in rounded.items() if measured[name] is not None}
    measured |= {"test": scored.mean, "ci95": scored.ci95, "unscored": scored.unscored}
    return ComparedArm(**measured, **dict(against), seeds=_spread(arm.trainings))


def _spread(trainings: Sequence[SeedScore]) -> SeedSpread | None:
    known = [each.test for each in trainings if each.test is not None]
    if not known:
        return None
    mean = math.fsum(known) / len(known)
    return SeedSpread(n=len(known), mean=mean, min=min(known), max=max(known), each=tuple(trainings))


def advice_text(advice: Advice, lines: Sequence[ComparedArm]) -> str:
    by_name = {line.arm: line for line in lines}
    arm, best = by_name[advice.arm], by_name[advice.best]
    head = {
        "no model": f"You need no language model: {arm.arm} reads {_points(arm)} of 100 sealed rows right",
        "instruct": f"Instruct: {arm.arm} reads {_points(arm)} of 100 sealed rows right",
        "customize": f"Customize: {arm.arm} reads {_points(arm)} of 100 sealed rows right, ahead of every prompt",
        "label more": f"Label more rows before you customize: {best.arm} leads with {_points(best)}, on fewer than "
        f"{ROWS_A_LABEL} train rows a label; till then {arm.arm} ({_points(arm)})",
    }[advice.verdict]
    parts = [head]
    if advice.behind is not None and advice.verdict in ("no model", "instruct"):
        low, high = advice.behind.ci95
        gap = f"{100 * advice.behind.diff:+.1f} points (95 % CI {100 * low:+.1f} to {100 * high:+.1f})"
        noise = "within noise" if low <= 0 else "and fewer calls are expected than pay for its training"
        parts.append(f"{best.arm} is {gap} ahead, {noise}")
    if advice.verdict == "customize" and arm.break_even_calls:
        parts.append(f"its training is paid for after {arm.break_even_calls:,} calls")
    if advice.verdict == "customize" and arm.elsewhere:
        off = arm.elsewhere
        when, so = ("once trained", "use it") if arm.arm in WHOLE else ("with the adapter on", "switch it on")
        parts.append(
            f"{when}, {off.same} of {off.n} general questions are answered as before, so {so} for this task alone"
        )
    if advice.scarce and advice.verdict != "no model":
        named = ", ".join(f"{label} ({count})" for label, count in sorted(advice.scarce.items()))
        parts.append(f"labels with fewer than {FEW_ROWS} train rows: {named}")
    return "; ".join(parts) + "."


def _points(line: ComparedArm) -> str:
    return "-" if line.test is None else f"{100 * line.test:.1f}"


# -- the label curve --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """An arm that learned from the first `labels` train rows."""

    arm: str
    labels: int
    scores: Sequence[float | None]
    train_s: float = 0.0


def curve_sizes(text: str, train: int) -> tuple[list[int], list[Problem]]:
    """Parse `--curve`, such as "24,75,all", into numbers of rows below `train`, ascending, and problems.

    "" asks for no curve.
    """
    sizes, problems = set(), []
    for word in filter(None, (word.strip() for word in text.split(","))):
        if word == ALL:
            continue
        if not word.isascii() or not word.isdigit():
            problems.append(Problem("--curve", f"{word!r:.40}: write numbers of train rows, such as 24,75,all"))
        elif int(word) < FEWEST_TRAIN:
            problems.append(Problem("--curve", f"{word} rows are too few to train on; give at least {FEWEST_TRAIN}"))
        elif int(word) > train:
            problems.append(Problem("--curve", f"{word} rows: there are only {train} train rows; write {ALL}"))
        elif int(word) < train:
            sizes.add(int(word))
    return sorted(sizes), problems


def first_rows(task: Task, count: int, seed: int) -> Task:
    """Return the task with the first `count` train rows of a stratified order."""
    field = task.signature.outputs[0]
    labels = [label_text(row.labels[field.name]) if field.choices else "" for row in task.train]
    return replace(task, train=tuple(stratified(task.train, labels, random.Random(seed))[:count]))


def rows_a_label(task: Task) -> dict[str, int]:
    """Count the train rows of each choice; other answers count together under ""."""
    output = task.signature.outputs[0]
    if len(task.signature.outputs) != 1 or not output.choices:
        return {"": len(task.train)}
    counts = dict.fromkeys(output.choices, 0)
    for row in task.train:
        counts[str(row.labels[output.name])] += 1
    return counts


def curve_lines(points: Sequence[CurvePoint]) -> tuple[CurveScore, ...]:
    """Return the points grouped by arm, each arm's rows ascending."""

    def line(point: CurvePoint) -> CurveScore:
        scored, took = summary(point.scores), round(point.train_s, 1)
        return CurveScore(arm=point.arm, labels=point.labels, test=scored.mean, ci95=scored.ci95, train_s=took)

    arms = list(dict.fromkeys(point.arm for point in points))
    return tuple(map(line, sorted(points, key=lambda point: (arms.index(point.arm), point.labels))))


def curve_text(points: Sequence[CurvePoint], seed: int) -> str:
    """Describe which arm leads with how many rows, and whether more would pay.

    "" for a single size. `points`: one per arm and size; of equals the first leads.
    """
    sizes = sorted({point.labels for point in points})
    if len(sizes) < 2:
        return ""
    by_size = {size: [point for point in points if point.labels == size] for size in sizes}
    leaders = [max(by_size[size], key=lambda point: _mean(point.scores)) for size in sizes]
    changes = [leader for at, leader in enumerate(leaders) if not at or leader.arm != leaders[at - 1].arm]
    before = dict(zip(sizes[1:], sizes, strict=False))
    passed = "".join(f", {each.arm} passes it between {before[each.labels]} and {each.labels}" for each in changes[1:])
    first = f"Of the arms that learn {changes[0].arm} leads with {sizes[0]} train rows"
    first += passed or f" and with all others up to {sizes[-1]}: no arm passes it"
    return f"{first}; {_last_step(points, leaders[-1].arm, seed)}."


def _last_step(points: Sequence[CurvePoint], leader: str, seed: int) -> str:
    own = sorted((point for point in points if point.arm == leader), key=lambda point: point.labels)
    if len(own) < 2 or (step := scored_difference(own[-1].scores, own[-2].scores, seed)) is None:
        return f"{leader} has one point, so what more rows bring is not known"
    low, high = (100 * end for end in step.ci95)
    rows, so = own[-1].labels - own[-2].labels, "it is not shown that more labels pay"
    if low > 0:
        so = "it still climbs, so more labels are likely to pay"
    elif high < 0:
        so = "it got worse, so more labels of this kind are unlikely to pay"
    return (
        f"from {own[-2].labels} to {own[-1].labels} rows {leader} gains {100 * step.diff:+.1f} points (95 % CI "
        f"{low:+.1f} to {high:+.1f}), {1000 * step.diff / rows:+.1f} for 10 rows: {so}; each point is one training"
    )
