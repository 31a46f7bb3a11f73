"""Blocks of a run's result as text: the score taken apart by yardstick, metric, slice and part, and the judges. Each is
empty where a run has nothing of it."""

from __future__ import annotations

from agent.cli.common import plain
from agent.release.result import RunResult
from agent.release.result_breakdown import Group, MetricPart
from agent.report import facts
from agent.report.facts import amount, baseline_words, carried, gain, points, sides


def yardsticks(result: RunResult) -> list[str]:
    """What is reached without a language model."""
    if not result.yardsticks:
        return []
    rows = facts.yardsticks(result)
    width = max(12, *(len(name) + 2 for name, _, _ in rows))
    lines = [f"without a language model, trained on {result.yardsticks[-1].trained_on} rows:"]
    lines += [f"{'  ' + plain(name):<{width}}{dev:>8}{'':>{24 - width}}{test:>14}" for name, dev, test in rows]
    return [*lines, *([plain(better)] if (better := facts.against_yardsticks(result)) else [])]


def metrics(result: RunResult) -> list[str]:
    """The score by metric, where it says more than the score itself."""
    rows = facts.metric_parts(result)
    if not rows:
        return []
    names = [facts.metric_name(row) for row in rows]
    width = max(map(len, map(plain, names)))
    compared = "" if result.is_own else f"{'found':>8}   difference (95 % CI)"
    lines = [f"{'on the sealed test':<{width + 2}}{'weight':>8}{'yours':>8}{compared}"]
    for name, row in zip(names, rows, strict=True):
        weight = f"{row.weight:.2f}" if row.weight else ""
        lines.append(f"  {plain(name):<{width}}{weight:>8}{_scores(result, row)}{_unscored(result, row)}")
    return lines


def _scores(result: RunResult, row: MetricPart | Group) -> str:
    """One line of a comparison: each side's mean, and their difference where there are two."""
    means = "".join(f"{points(row.side(side).mean):>8}" for side, _ in sides(result))
    return means if result.is_own else f"{means}   {gain(row.diff, row.diff_ci95)}"


def _unscored(result: RunResult, row: MetricPart) -> str:
    lost = [row.side(side).unscored for side, _ in sides(result)]
    return f", unscored {' and '.join(map(str, lost))}" if any(lost) else ""


def slices(result: RunResult) -> list[str]:
    """The score by the groups of each slice."""
    lines = []
    for cut in result.slices:
        width = max(len(plain(group.value)) for group in cut.groups)
        compared = "" if result.is_own else "   found   difference (95 % CI)"
        lines.append(f"by {plain(cut.slice)}:  rows   yours{compared}")
        for group in cut.groups:
            lines.append(f"  {plain(group.value):<{width}}{group.winner.n:>6}{_scores(result, group)}")
        if apart := facts.gaps(result, cut):
            lines.append(f"  {apart}")
    return lines


def judges(result: RunResult) -> list[str]:
    """Whether each judge is to be trusted."""
    lines = []
    for judge in result.judges:
        trust = "; ".join(filter(None, (facts.judge_trust(judge), facts.judge_order(judge))))
        lines.append(plain(f"judge {', '.join(judge.models)} ({judge.mode}): {trust}"))
    return lines


def attribution(result: RunResult) -> list[str]:
    """What each part of the winner carries."""
    if not result.attribution:
        return []
    width = max(len(plain(row.part)) for row in result.attribution)
    own = baseline_words(result).phrase
    lines = [f"what carried the gain: points lost with {own}'s part in its place (95 % CI)"]
    for row in result.attribution:
        share, interval, source = carried(row)
        lines.append(f"  {plain(row.part):<{width}} {share:>6}   {interval}, {source}")
    return lines


def pareto(result: RunResult) -> list[str]:
    """The candidates that nothing beats; the chosen one has a star."""
    if not result.pareto:
        return []
    lines = ["Pareto front: nothing that saw the whole of dev beats these in score, prompt length and cost (* chosen)"]
    name, sizes = facts.sizes(result.pareto)
    width = len(name) + 2
    lines.append(f"  {'dev':>7}{name:>{width}}{'$ per 1000':>12}{'latency':>10}  candidate")
    for row, size in zip(result.pareto, sizes, strict=True):
        costs = f"{size:>{width},}{amount(row.usd_per_1000):>12}{facts.latency(row.latency_s):>10}"
        lines.append(f"{'*' if row.chosen else ' '} {points(row.dev):>7}{costs}  {plain(row.candidate_id)}")
    return lines
