"""What stands between a winner and production, read from a run's result: a code and a sentence for each. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.stats.intervals import SIGNIFICANT

if TYPE_CHECKING:
    from agent.release.result import RunResult
    from agent.results.base import Interval
    from agent.results.breakdown import Gain, Group, MetricPart
    from agent.results.run_parts import BlockCode


@dataclass(frozen=True, slots=True)
class Block:
    """One thing in the way: `code` for programs, `message` for people."""

    code: BlockCode
    message: str


def blocked_by(result: RunResult) -> list[Block]:
    """Why the winner may not be promoted: its gain (of a migration: that it is not worse) is not shown or rests on rows
    without a score, it is not better than one constant answer, a part got worse, or a judge has not earned trust."""
    return [*_gain(result), *_constant(result), *_worse(result), *untrusted(result)]


def shown(ci95: Interval, p_value: float) -> int:
    """1 for a gain beyond chance, -1 for a loss, 0 where neither is shown.

    Both must say it, the test and the 95 % interval: of graded scores the test, by sign flips, also finds that the
    differences lie unevenly around 0, where their mean may be 0 all the same.
    """
    low, high = ci95
    if not p_value < SIGNIFICANT:
        return 0
    return int(low > 0) - int(high < 0)


def blocked_arm(ahead: Mapping[str, Gain]) -> list[str]:
    """Why an arm that is no prompt may not be promoted: a prompt is shown to be better on the sealed test.

    Args:
        ahead: how far each prompt is ahead of the arm, by what it is called.
    """
    blocked = []
    for prompt, by in ahead.items():
        if by.diff is None or by.diff_ci95 is None or by.p_value is None:
            blocked.append(f"it cannot be compared with {prompt}: no row has a score on both sides")
        elif shown(by.diff_ci95, by.p_value) > 0:
            low, high = (100 * end for end in by.diff_ci95)
            gained = f"{100 * by.diff:+.1f} points (95 % CI {low:+.1f} to {high:+.1f}), p = {by.p_value:.2g}"
            blocked.append(f"{prompt} is better on the sealed test: {gained}")
    return blocked


def _gain(result: RunResult) -> Iterator[Block]:
    lift = result.lift
    if result.migration is not None:
        test = result.migration.test
        if not test.shown:
            margin = f"{100 * test.margin:g} points against {result.migration.model}"
            figures = f"{100 * test.diff:+.1f} points on {test.n} rows, at worst {100 * test.low:+.1f}"
            yield Block("loss_not_ruled_out", f"a loss of more than {margin} is not ruled out: {figures}")
    elif shown(lift.ci95, lift.p_value) <= 0:
        low, high = (100 * end for end in lift.ci95)
        uneven = lift.p_value < SIGNIFICANT and low <= 0 <= high
        but = f", but the 95 % interval, {low:+.1f} to {high:+.1f}, holds 0" if uneven else ""
        gained = f"{100 * lift.diff:+.1f} points, p = {lift.p_value:.2g} on {lift.n} rows{but}"
        yield Block("gain_not_shown", f"the gain is not shown: {gained}")
    elif lift.lost and lift.diff_if_wrong is not None and lift.diff_if_wrong <= 0:
        yield Block(
            "gain_from_lost_rows",
            f"the gain may come from rows left out: {lift.lost} that your prompt got a score on have none with it; "
            f"counted as wrong, {100 * lift.diff_if_wrong:+.1f} points",
        )


def _constant(result: RunResult) -> Iterator[Block]:
    """A winner that answers every row alike, or is not better than the best that does, has not read the rows.

    That best is the first yardstick.
    """
    for one in result.yardsticks[:1]:
        if one.diff is None or one.diff_ci95 is None or one.p_value is None or one.test is None:
            break
        if shown(one.diff_ci95, one.p_value) <= 0:
            alike = f"answering every row alike ({one.name}: {100 * one.test:.1f})"
            gained = f"{100 * one.diff:+.1f} points, p = {one.p_value:.2g}"
            yield Block("no_better_than_constant", f"it is not shown to be better than {alike}: {gained}")
            return
    counts = result.answers.winner if result.answers else None
    if counts is not None and counts.different == 1 < counts.different_right:
        rows = f"all {counts.readable} rows, which have {counts.different_right} different right answers"
        yield Block("no_better_than_constant", f"it gives the same answer to {rows}")


def _worse(result: RunResult) -> Iterator[Block]:
    # Holm 1979: the step-down over all parts and slices
    parts: list[tuple[MetricPart | Group, str, BlockCode]] = [
        (part, f"metric {part.metric}{part.field and f' of {part.field}'}", "metric_worse") for part in result.metrics
    ]
    for cut in result.slices:
        parts += [(group, f"slice {cut.slice} = {group.value}", "slice_worse") for group in cut.groups]
    tested = sorted(
        (part.p_value, part.diff, name, code)
        for part, name, code in parts
        if part.p_value is not None and part.diff is not None
    )
    for place, (p_value, diff, name, code) in enumerate(tested):
        if p_value >= SIGNIFICANT / (len(tested) - place):
            return
        if diff < 0:
            yield Block(code, f"{name} got worse: {100 * diff:+.1f} points, p = {p_value:.2g}")


def untrusted(result: RunResult) -> Iterator[Block]:
    """What is against the judges that the score rests on."""
    for judge in result.judges:
        if not judge.trusted:
            models = ", ".join(judge.models)
            yield Block("judge_untrusted", f"the judge {models} ({judge.metric}) is not to be trusted: {judge.why}")
