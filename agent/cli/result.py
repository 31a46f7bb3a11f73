"""A run's result as text: verdict, scores, cost and where the prompt is; then parts that not every run has: what holds
the winner back, was it worth a search, the score by metric and by slice, how steady and how varied the answers are, the
judges, what carried the gain, the Pareto front. A run of an older version lacks some of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.cli.common import plain
from agent.release.result import RunResult
from agent.release.result_breakdown import Group, MetricPart
from agent.report import facts
from agent.report.facts import amount, carried, gain, points, promotion, sealed_score, ships_prompt, sides
from agent.run.locations import LEDGER, ledger_option


def report(result: RunResult, db: Path = LEDGER, promoted: dict[str, Any] | None = None) -> str:
    """The result of a search as text: verdict, scores, cost, and where the released prompt is.

    `promoted`: the promotion, since the run, of a winner that it had held back (`trail.promoted_since`).
    """
    lift, winner, base, cost = result.lift, result.winner, result.baseline, result.cost
    released = "the best found" if promoted or result.decision == "promote" else "your own prompt"
    looks_up = f"{facts.looks_up(winner.passages)}, " if winner.passages else ""
    design = (
        f"{winner.technique}, format {winner.format}, {winner.n_demos} demos{facts.picked(winner.picks)}, {looks_up}"
        f"{winner.prompt_tokens} prompt tokens ({winner.candidate_id})"
    )
    if result.is_own:
        lines = [
            "",
            facts.verdict(result),
            "",
            f"{'':12}{'dev':>8}{'sealed test':>14}",
            f"{'your prompt':12}{points(base.dev):>8}{points(sealed_score(result, 'baseline')):>14}",
            "",
            f"your prompt: {design}",
        ]
    else:
        corrected = points(winner.dev_corrected)
        lines = [
            "",
            f"{facts.verdict(result)}  ({facts.certainty(result)})",
            "",
            f"{'':12}{'dev':>8}{'corrected':>12}{'sealed test':>14}",
            f"{'your prompt':12}{points(base.dev):>8}{'':>12}{points(sealed_score(result, 'baseline')):>14}",
            f"{'best found':12}{points(winner.dev):>8}{corrected:>12}{points(sealed_score(result, 'winner')):>14}",
            "",
            f"best found: {design}",
            f"test rows: {facts.tally(lift.wins, lift.losses, lift.ties)}",
        ]
    lines += [
        "trials: " + ", ".join(f"{n} {state}" for state, n in result.trials.items() if n or state != "incomplete"),
        f"calls: {', '.join(f'{role} {count}' for role, count in cost.calls.items())}, from the ledger {cost.cached}",
        f"cost: {cost.prompt_tokens + cost.completion_tokens:,} tokens, "
        f"{facts.spent(cost.usd, cost.unpriced, cost.lost_usd)}, {cost.seconds:.0f} s",
    ]
    if facts.stopped_before_search(result):
        lines.append("--anyway searches all the same")
    if cost.overspent:
        lines.append(plain(f"the run {cost.overspent}"))
    if result.search_ended:
        lines.append(plain(f"the search ended before its plan was done: {result.search_ended}"))
    parameters = ", ".join(f"{name}={value}" for name, value in result.parameters.items())
    sets_no_parameters = bool(parameters) and not ships_prompt(result)  # the released state of a program does not
    lines += [
        *blocks(result, promoted),
        plain(f"released ({released}{f', {promotion(promoted)}' if promoted else ''}): {result.release.path}"),
        *[f"scored with {parameters}; give the same to the model of your program"] * sets_no_parameters,
        f"ledger head {result.ledger_head[:16]}; look closer: optimize show {result.run_id}{ledger_option(db)}",
        f"to read and to send: optimize report {result.run_id}{ledger_option(db)}",
    ]
    return "\n".join(lines)


def blocks(result: RunResult, promoted: Mapping[str, Any] | None = None) -> list[str]:
    """The parts that not every run has, an empty line before each and after the last; `promoted` as in `report`."""
    before = facts.before_search(result)
    title, *steady = facts.steadiness(result) or [""]
    parts = (
        _held_back(result, promoted),
        [plain(line) for line in (facts.uncorrected(result), facts.uneven(result)) if line],
        _yardsticks(result),
        [plain(f"before the search: {before}")] * bool(before),
        _metrics(result),
        _slices(result),
        [plain(line) for line in facts.retrieval(result)],
        [title, *(f"  {line}" for line in steady)] if steady else [],
        [plain(line) for line in facts.variety(result)],
        _judges(result),
        _attribution(result),
        _pareto(result),
    )
    return [line for part in parts if part for line in ("", *part)] + [""] * any(parts)


def _yardsticks(result: RunResult) -> list[str]:
    if not result.yardsticks:
        return []
    rows = facts.yardsticks(result)
    width = max(12, *(len(name) + 2 for name, _, _ in rows))
    lines = [f"without a language model, trained on {result.yardsticks[0].trained_on} rows:"]
    lines += [f"{'  ' + plain(name):<{width}}{dev:>8}{'':>{24 - width}}{test:>14}" for name, dev, test in rows]
    return [*lines, *([plain(better)] if (better := facts.against_yardsticks(result)) else [])]


def _held_back(result: RunResult, promoted: Mapping[str, Any] | None) -> list[str]:
    reasons = [plain(f"  {why}") for why in facts.held_back(result)]
    if not reasons:
        return []
    if promoted is not None:
        return ["the best found was held back:", *reasons]
    how = f"  to promote it all the same: optimize promote {result.run_id} --override --reason WHY"
    return ["the best found is held back, and your own prompt is released:", *reasons, *[how] * ships_prompt(result)]


def _metrics(result: RunResult) -> list[str]:
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


def _slices(result: RunResult) -> list[str]:
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


def _judges(result: RunResult) -> list[str]:
    lines = []
    for judge in result.judges:
        trust = "; ".join(filter(None, (facts.judge_trust(judge), facts.judge_order(judge))))
        lines.append(plain(f"judge {', '.join(judge.models)} ({judge.mode}): {trust}"))
    return lines


def _attribution(result: RunResult) -> list[str]:
    if not result.attribution:
        return []
    width = max(len(plain(row.part)) for row in result.attribution)
    lines = ["what carried the gain: points lost with your prompt's part in its place (95 % CI)"]
    for row in result.attribution:
        share, interval, source = carried(row)
        lines.append(f"  {plain(row.part):<{width}} {share:>6}   {interval}, {source}")
    return lines


def _pareto(result: RunResult) -> list[str]:
    if not result.pareto:
        return []
    lines = ["Pareto front: nothing that saw the whole of dev is better in all of these (* chosen)"]
    lines.append(f"  {'dev':>7}{'prompt tokens':>15}{'$ per 1000':>12}{'latency':>10}  candidate")
    for row in result.pareto:
        costs = f"{row.prompt_tokens:>15,}{amount(row.usd_per_1000):>12}{facts.latency(row.latency_s):>10}"
        lines.append(f"{'*' if row.chosen else ' '} {points(row.dev):>7}{costs}  {plain(row.candidate_id)}")
    return lines


def detectable_line(gains: Mapping[float, float]) -> str:
    """The smallest gain (0 to 1; inf: none) that the sealed test can show, by the baseline's score (0 to 1)."""
    words = [
        f"{f'{100 * gain:.0f} points' if math.isfinite(gain) else 'none'} if your prompt scores {100 * rate:.0f}"
        for rate, gain in gains.items()
    ]
    return f"the smallest gain that the sealed test can show (80 % power): {', '.join(words)}"
