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
from typing import Any, Generic, TypeVar

from agent.errors import Problem
from agent.evaluate.breakdown import difference, summary
from agent.prompt.template import label_text
from agent.results.customize import AdviceVerdict, ArmAdvice, ComparedArm, CurveScore, Family, SeedScore, SeedSpread
from agent.results.run_parts import PairedResult
from agent.search.context import stratified
from agent.stats.figures import gain, gain_interval, points
from agent.stats.intervals import scored_difference
from agent.types import Task

L = TypeVar("L", ComparedArm, CurveScore)
ROWS_A_LABEL = 8
"""Mean train rows per label that a tuned arm's lead needs to count."""
FEW_ROWS = 5
"""A label with fewer train rows is named in the advice."""
WHOLE = ("full", "hosted")
"""Arms without an adapter to switch on."""
FEWEST_TRAIN = 16
"""Minimum train rows for a training."""
ALL = "all"
DECIMALS = {"train_s": 1, "tokens_per_call": 1, "latency_s": 3, "megabytes": 1}


@dataclass(frozen=True, slots=True)
class Scored(Generic[L]):
    """A line of the table or a point of the curve, with its sealed scores."""

    line: L
    scores: Sequence[float | None]

    @classmethod
    def of(cls, kind: type[L], scores: Sequence[float | None], **fields: Any) -> Scored[L]:
        found = summary(scores)
        counted: Any = {"unscored": found.unscored} if kind is ComparedArm else {}
        return cls(kind(test=found.mean, ci95=found.ci95, **counted, **fields), scores)

    @property
    def mean(self) -> float:
        """Mean of the scored rows; -inf without any."""
        return -math.inf if self.line.test is None else self.line.test


def table(
    arms: Sequence[Scored[ComparedArm]], rows: Mapping[str, int], expected_calls: int | None, seed: int
) -> tuple[tuple[ComparedArm, ...], ArmAdvice]:
    """Return the arms and the advice of the result.

    Args:
        arms: on the same rows, your prompt first.
        rows: as of `rows_a_label`.
        expected_calls: in the life of the prompt; None: enough to repay the training.
    """
    best = max((arm for arm in arms if arm.line.family == "prompt"), key=lambda arm: arm.mean).line
    lines = []
    for arm in arms:
        line, against = arm.line, {} if arm is arms[0] else dict(difference(arm.scores, arms[0].scores, seed))
        pays = break_even(line, best) if line.family == "tuned" else None
        rounded = {
            name: round(exact, to) for name, to in DECIMALS.items() if (exact := getattr(line, name)) is not None
        }
        lines.append(line.model_copy(update={**against, **rounded, "break_even_calls": pays}))
    paired = [replace(arm, line=line) for arm, line in zip(arms, lines, strict=True)]
    return tuple(lines), advise(paired, rows, expected_calls, seed)


def break_even(arm: ComparedArm, prompt: ComparedArm) -> int | None:
    """Return after how many calls the training pays, against the best prompt.

    Counts dollars where the training cost some, else seconds. None: never, or unknown.
    """
    paid, own, theirs = arm.train_usd, arm.usd_per_1000, prompt.usd_per_1000
    each = 1000
    if paid == 0.0:
        paid, own, theirs = arm.train_s, arm.latency_s, prompt.latency_s
        each = 1
    if not paid or own is None or theirs is None or theirs <= own:
        return None
    return math.ceil(paid / ((theirs - own) / each))


def advise(
    arms: Sequence[Scored[ComparedArm]], rows: Mapping[str, int], expected_calls: int | None = None, seed: int = 0
) -> ArmAdvice:
    """Apply the rule above; arguments as of `table`."""
    best = max(arms, key=lambda arm: arm.mean)  # of equals the first

    def best_of(family: Family) -> Scored[ComparedArm] | None:
        return max((arm for arm in arms if arm.line.family == family), key=lambda arm: arm.mean, default=None)

    def ahead_of(arm: Scored[ComparedArm]) -> PairedResult | None:
        return None if arm is best else scored_difference(best.scores, arm.scores, seed)

    def is_level(arm: Scored[ComparedArm]) -> bool:
        ahead = ahead_of(arm)
        return arm is best or (ahead is not None and ahead.ci95[0] <= 0)

    prompt, simplest, pays_from = best_of("prompt"), best_of("no model"), best.line.break_even_calls
    assert prompt is not None
    verdict: AdviceVerdict = "instruct"
    chosen = prompt
    if simplest is not None and is_level(simplest):
        verdict, chosen = "no model", simplest
    elif is_level(prompt):
        pass
    elif sum(rows.values()) < ROWS_A_LABEL * len(rows):
        verdict = "label more"
    elif expected_calls is None or (pays_from is not None and expected_calls >= pays_from):
        verdict, chosen = "customize", best
    scarce = [f"{label} ({count})" for label, count in sorted(rows.items()) if label and count < FEW_ROWS]
    text = _advice(
        verdict, chosen.line, best.line, ahead_of(chosen), "" if verdict == "no model" else ", ".join(scarce)
    )
    return ArmAdvice(verdict=verdict, arm=chosen.line.arm, text=text)


def _advice(verdict: AdviceVerdict, arm: ComparedArm, best: ComparedArm, behind: PairedResult | None, few: str) -> str:
    right = f"{arm.arm} reads {points(arm.test)} of 100 sealed rows right"
    parts = [
        {
            "no model": f"You need no language model: {right}",
            "instruct": f"Instruct: {right}",
            "customize": f"Customize: {right}, ahead of every prompt",
            "label more": f"Label more rows before you customize: {best.arm} leads with {points(best.test)}, on fewer "
            f"than {ROWS_A_LABEL} train rows a label; till then {arm.arm} ({points(arm.test)})",
        }[verdict]
    ]
    if behind is not None and verdict in ("no model", "instruct"):
        gap = f"{gain(behind.diff)} points (95 % CI {gain_interval(behind.ci95)})"
        noise = "within noise" if behind.ci95[0] <= 0 else "and fewer calls are expected than pay for its training"
        parts.append(f"{best.arm} is {gap} ahead, {noise}")
    if verdict == "customize" and arm.break_even_calls:
        parts.append(f"its training is paid for after {arm.break_even_calls:,} calls")
    if verdict == "customize" and (off := arm.elsewhere):
        when, so = ("once trained", "use it") if arm.arm in WHOLE else ("with the adapter on", "switch it on")
        parts.append(
            f"{when}, {off.same} of {off.n} general questions are answered as before, so {so} for this task alone"
        )
    if few:
        parts.append(f"labels with fewer than {FEW_ROWS} train rows: {few}")
    return "; ".join(parts) + "."


def seed_spread(trainings: Sequence[SeedScore]) -> SeedSpread | None:
    """Return the spread of one training over its seeds; None if no score is known."""
    known = [each.test for each in trainings if each.test is not None]
    if not known:
        return None
    mean = math.fsum(known) / len(known)
    return SeedSpread(n=len(known), mean=mean, min=min(known), max=max(known), each=tuple(trainings))


# -- the label curve --------------------------------------------------------------------------------------------------


def curve_sizes(text: str, train: int) -> tuple[list[int], list[Problem]]:
    """Parse `--curve`, such as "24,75,all", into numbers of rows below `train`, ascending, and problems.

    "" asks for no curve.
    """
    sizes, problems = set(), []
    for word in filter(None, (word.strip() for word in text.split(","))):
        if word == ALL:
            continue
        if not word.isascii() or not word.isdigit() or not FEWEST_TRAIN <= int(word) <= train:
            what = f"write numbers of train rows from {FEWEST_TRAIN} to {train}, such as 24,75,all"
            problems.append(Problem("--curve", f"{word!r:.40}: {what}"))
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


def curve_lines(points: Sequence[Scored[CurveScore]]) -> tuple[CurveScore, ...]:
    """Return the points grouped by arm, each arm's rows ascending."""
    arms = list(dict.fromkeys(point.line.arm for point in points))
    return tuple(sorted((point.line for point in points), key=lambda line: (arms.index(line.arm), line.labels)))


def curve_text(points: Sequence[Scored[CurveScore]], seed: int) -> str:
    """Describe which arm leads with how many rows, and whether more would pay.

    "" for a single size. `points`: one per arm and size; of equals the first leads.
    """
    sizes = sorted({point.line.labels for point in points})
    if len(sizes) < 2:
        return ""
    leaders = [
        max((point for point in points if point.line.labels == size), key=lambda point: point.mean).line.arm
        for size in sizes
    ]
    passed = "".join(
        f", {arm} passes it between {sizes[at - 1]} and {sizes[at]}"
        for at, arm in enumerate(leaders)
        if at and arm != leaders[at - 1]
    )
    first = f"Of the arms that learn {leaders[0]} leads with {sizes[0]} train rows"
    first += passed or f" and with all others up to {sizes[-1]}: no arm passes it"
    return f"{first}; {_last_step(points, leaders[-1], seed)}."


def _last_step(points: Sequence[Scored[CurveScore]], leader: str, seed: int) -> str:
    own = sorted((point for point in points if point.line.arm == leader), key=lambda point: point.line.labels)
    if len(own) < 2 or (step := scored_difference(own[-1].scores, own[-2].scores, seed)) is None:
        return f"{leader} has one point, so what more rows bring is not known"
    low, high = step.ci95
    before, now, so = own[-2].line.labels, own[-1].line.labels, "it is not shown that more labels pay"
    if low > 0:
        so = "it still climbs, so more labels are likely to pay"
    elif high < 0:
        so = "it got worse, so more labels of this kind are unlikely to pay"
    return (
        f"from {before} to {now} rows {leader} gains {gain(step.diff)} points (95 % CI {gain_interval(step.ci95)}), "
        f"{gain(10 * step.diff / (now - before))} for 10 rows: {so}; each point is one training"
    )
