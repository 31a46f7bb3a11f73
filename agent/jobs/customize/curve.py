"""The label curve: how far each arm that learns gets with the first rows of train, and what more rows would bring.

The rows come in an order that spreads the labels, so that the first n of them hold each label as the whole does. One
order and one training for each point: the curve says where arms cross on these rows, not on rows in general.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from agent.errors import Problem
from agent.evaluate.breakdown import summary
from agent.prompt.template import label_text
from agent.results.customize import CurveScore
from agent.search.context import stratified
from agent.stats.advice import ArmScores
from agent.stats.intervals import scored_difference
from agent.types import Task

FEWEST_TRAIN = 16
"""Train rows below which nothing is trained."""
ALL = "all"


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """An arm that learnt from some of the train rows."""

    arm: str
    labels: int
    scores: Sequence[float | None]
    train_s: float = 0.0

    @property
    def scored(self) -> ArmScores:
        """What the rule of the advice compares."""
        return ArmScores(self.arm, "tuned", self.scores)


def curve_sizes(text: str, train: int) -> tuple[list[int], list[Problem]]:
    """The numbers of rows that `--curve` asks for besides all of train, ascending, and what is wrong with it.

    Args:
        text: such as "24,75,all"; "" asks for no curve.
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
    """The task with the first train rows of an order that spreads its labels."""
    field = task.signature.outputs[0]
    labels = [label_text(row.labels[field.name]) if field.choices else "" for row in task.train]
    return replace(task, train=tuple(stratified(task.train, labels, random.Random(seed))[:count]))


def curve_lines(points: Sequence[CurvePoint]) -> tuple[CurveScore, ...]:
    """The points, those of one arm together with its rows ascending."""
    arms = list(dict.fromkeys(point.arm for point in points))
    ordered = sorted(points, key=lambda point: (arms.index(point.arm), point.labels))
    return tuple(
        CurveScore(
            arm=point.arm,
            labels=point.labels,
            test=(scored := summary(point.scores)).mean,
            ci95=scored.ci95,
            train_s=round(point.train_s, 1),
        )
        for point in ordered
    )


def curve_text(points: Sequence[CurvePoint], seed: int) -> str:
    """Which arm leads with how many rows, and whether more rows would pay; "" where there is one number of rows.

    Args:
        points: of each arm for each number of rows; of equals the first leads.
    """
    sizes = sorted({point.labels for point in points})
    if len(sizes) < 2:
        return ""
    by_size = {size: [point for point in points if point.labels == size] for size in sizes}
    leaders = [max(by_size[size], key=lambda point: point.scored.mean) for size in sizes]
    changes = [leader for at, leader in enumerate(leaders) if not at or leader.arm != leaders[at - 1].arm]
    before = dict(zip(sizes[1:], sizes, strict=False))
    passed = "".join(f", {each.arm} passes it between {before[each.labels]} and {each.labels}" for each in changes[1:])
    first = f"Of the arms that learn {changes[0].arm} leads with {sizes[0]} train rows"
    first += passed or f" and with all others up to {sizes[-1]}: no arm passes it"
    return f"{first}; {_last_step(points, leaders[-1], seed)}."


def _last_step(points: Sequence[CurvePoint], leader: CurvePoint, seed: int) -> str:
    own = sorted((point for point in points if point.arm == leader.arm), key=lambda point: point.labels)
    if len(own) < 2 or (step := scored_difference(own[-1].scores, own[-2].scores, seed)) is None:
        return f"{leader.arm} has one point, so what more rows bring is not known"
    low, high = (100 * end for end in step.ci95)
    rows = own[-1].labels - own[-2].labels
    said = (
        f"from {own[-2].labels} to {own[-1].labels} rows {leader.arm} gains {100 * step.diff:+.1f} points (95 % CI "
        f"{low:+.1f} to {high:+.1f}), {1000 * step.diff / rows:+.1f} for 10 rows"
    )
    if low > 0:
        return f"{said}: it still climbs, so more labels are likely to pay; each point is one training"
    if high < 0:
        return f"{said}: it got worse, so more labels of this kind are unlikely to pay; each point is one training"
    return f"{said}: it is not shown that more labels pay; each point is one training"
