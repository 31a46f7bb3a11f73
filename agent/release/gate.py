"""The gate: when `optimize promote` refuses the winner of a run. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from agent.evaluate.verdict import Reason, Verdict, bounded, gained
from agent.release.versions import noun_of
from agent.results.breakdown import Gain, Group, MetricPart
from agent.stats import figures
from agent.stats.power import SIGNIFICANT, shown

if TYPE_CHECKING:
    from agent.release.result import RunResult


def gate(result: RunResult) -> Verdict[RunResult]:
    """Decide whether the winner of a run may be promoted.

    Its gain (after a migration: non-inferiority) is significant and does not rest on unscored rows, it beats a constant
    answer, no part got worse, and its judges are trusted.
    """
    if (migrated := result.migration) is not None:
        first = bounded(migrated.test, migrated.model).reasons
    else:
        first = (*gained(result.lift, f"your {noun_of(result.release.path)}").reasons, *_behind(result))
    return Verdict(result, (*first, *_constant(result), *_worse(result), *untrusted(result)))


def no_prompt_ahead(ahead: Mapping[str, Gain]) -> Verdict[Mapping[str, Gain]]:
    """Refuse an arm without a prompt if a prompt leads it significantly. `ahead`: the comparisons by label."""
    reasons = []
    for prompt, by in ahead.items():
        if by.diff is None or by.diff_ci95 is None or by.p_value is None:
            why = f"it cannot be compared with {prompt}: no row has a score on both sides"
            reasons.append(Reason("not_compared", why))
        elif shown(by.diff_ci95, by.p_value) > 0:
            reasons.append(Reason("prompt_better", f"{prompt} is better on the sealed test: {_points(by)}"))
    return Verdict(ahead, tuple(reasons))


def gain_of_arm(gain: Gain) -> Verdict[Gain]:
    """Decide whether a tuned arm is significantly better than the user's prompt."""
    if gain.diff is None or gain.diff_ci95 is None or gain.p_value is None:
        why = "it cannot be compared with your prompt: no row has a score on both sides"
        return Verdict(gain, (Reason("not_compared", why),))
    if shown(gain.diff_ci95, gain.p_value) > 0:
        return Verdict(gain)
    return Verdict(gain, (Reason("gain_not_shown", f"its gain over your prompt is not significant: {_points(gain)}"),))


def _points(gain: Gain) -> str:
    assert gain.diff is not None
    assert gain.diff_ci95 is not None
    assert gain.p_value is not None
    return f"{figures.gain(gain.diff)} points ({figures.evidence(gain.diff_ci95, gain.p_value)})"


def _behind(result: RunResult) -> Iterator[Reason]:
    for one in result.references or ():
        if one.lift is not None and shown(one.lift.ci95, one.lift.p_value) < 0:
            yield Reason("gain_not_shown", f"{one.name} is better than it: {figures.gain(-one.lift.diff)} points")


def _constant(result: RunResult) -> Iterator[Reason]:
    for one in result.yardsticks[:1]:
        if one.diff is None or one.diff_ci95 is None or one.p_value is None or one.test is None:
            break
        if shown(one.diff_ci95, one.p_value) <= 0:
            alike = f"a constant answer ({one.name}: {figures.points(one.test)})"
            gained = f"{figures.gain(one.diff)} points, {figures.chance(one.p_value)}"
            yield Reason("no_better_than_constant", f"it is not significantly better than {alike}: {gained}")
            return
    counts = result.answers.winner if result.answers else None
    if counts is not None and counts.different == 1 < counts.different_right:
        rows = f"all {counts.readable} rows, which have {counts.different_right} different right answers"
        yield Reason("no_better_than_constant", f"it gives the same answer to {rows}")


def _worse(result: RunResult) -> Iterator[Reason]:
    # Holm 1979: the step-down over all parts and slices
    parts: list[tuple[MetricPart | Group, str, str]] = [
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
            yield Reason(code, f"{name} got worse: {figures.gain(diff)} points, {figures.chance(p_value)}")


def untrusted(result: RunResult) -> Iterator[Reason]:
    """Yield a reason for each judge that is not trusted."""
    for judge in result.judges:
        if not judge.trusted:
            models = ", ".join(judge.models)
            yield Reason("judge_untrusted", f"the judge {models} ({judge.metric}) is not trusted: {judge.why}")
