"""A run's result as text: verdict, scores, cost and where the prompt is; then parts that not every run has: what holds
the winner back, was it worth a search, the score by metric and by slice, how steady and how varied the answers are, the
judges, what carried the gain, the Pareto front. A run of an older version lacks some of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.cli import ending_blocks, score_blocks
from agent.cli.common import plain
from agent.release.result import RunResult
from agent.report import facts
from agent.report.excerpts import Excerpts
from agent.report.facts import points, promotion, sealed_score, ships_prompt
from agent.run.locations import LEDGER, ledger_option
from agent.task.words import counted

MOST_LINES = 60
"""Of the end of a run; a screen."""
LONG = (
    "Pareto front",
    "slices",
    "variety",
    "repeated answers",
    "what carried the gain",
    "before the search",
    "metrics",
    "yardsticks",
)
"""Parts that are left to `optimize show` where a screen is too short for all, the first to go first."""


def report(
    result: RunResult,
    db: Path = LEDGER,
    promoted: dict[str, Any] | None = None,
    excerpts: Excerpts | None = None,
    whole: bool = True,
) -> str:
    """The result of a search as text: the verdict first, then the details, what to type next last.

    Args:
        result: of the run.
        db: the ledger, as commands are to name it.
        promoted: the promotion, since the run, of a winner that it had held back (`trail.promoted_since`).
        excerpts: texts that the ledger holds; None: they are left out.
        whole: all of it; else long blocks are left to `optimize show` where they do not fit a screen.
    """
    parts = _details(result, promoted, excerpts, whole)
    last = [*_ending(result, promoted), "", *ending_blocks.steps(result, db, promoted, excerpts, whole)]
    first = [*_verdict(result), *_prompt(result, None if whole else excerpts, db), *_counts(result)]
    left_out: list[str] = []
    for name in LONG if not whole else ():
        if len(_joined(first, parts, last)) <= MOST_LINES:
            break
        left_out += [name] * bool(parts.pop(name, None))
    if left_out:
        last = [f"left out here: {', '.join(left_out)}; optimize show has them", *last]
    return "\n".join(_joined(first, parts, last))


def _joined(first: list[str], parts: Mapping[str, list[str]], last: list[str]) -> list[str]:
    return [*first, *_spaced(parts), *last]


def _spaced(parts: Mapping[str, list[str]]) -> list[str]:
    """The parts that are there, an empty line before each and after the last."""
    return [line for part in parts.values() if part for line in ("", *part)] + [""] * any(parts.values())


def _verdict(result: RunResult) -> list[str]:
    lift, winner, base = result.lift, result.winner, result.baseline
    looks_up = f"{facts.looks_up(winner.passages)}, " if winner.passages else ""
    design = (
        f"{winner.technique}, format {winner.format}, {winner.n_demos} demos{facts.picked(winner.picks)}, {looks_up}"
        f"{facts.prompt_size(result)} ({winner.candidate_id})"
    )
    if result.is_own:
        return [
            "",
            facts.verdict(result),
            *[plain(line) for line in [facts.untested(result)] if line],
            *ending_blocks.absolute(result),
            "",
            f"{'':12}{'dev':>8}{'sealed test':>14}",
            f"{'your prompt':12}{points(base.dev):>8}{points(sealed_score(result, 'baseline')):>14}",
            "",
            f"your prompt: {design}",
        ]
    corrected = points(winner.dev_corrected)
    (_, one), (_, other) = facts.sides(result)
    own = facts.baseline_words(result).phrase
    return [
        "",
        f"{facts.verdict(result)}  ({facts.certainty(result)})",
        *ending_blocks.absolute(result),
        "",
        f"{'':12}{'dev':>8}{'corrected':>12}{'sealed test':>14}",
        f"{one:12}{points(base.dev):>8}{'':>12}{points(sealed_score(result, 'baseline')):>14}",
        f"{other:12}{points(winner.dev):>8}{corrected:>12}{points(sealed_score(result, 'winner')):>14}",
        *([f"{own} was compared on {base.dev_rows} dev rows, which was enough"] if base.dev_rows else []),
        "",
        f"{other}: {design}",
        f"test rows: {facts.tally(lift.wins, lift.losses, lift.ties)}",
    ]


def _prompt(result: RunResult, excerpts: Excerpts | None, db: Path) -> list[str]:
    """What changed, and the winner's prompt in short; an empty line before and after both."""
    parts = (ending_blocks.changes(result), ending_blocks.new_prompt(result, excerpts, ledger_option(db)))
    lines = [line for part in parts if part for line in ("", *part)]
    return [*lines, ""] if lines else []


def _counts(result: RunResult) -> list[str]:
    """Trials, calls and cost, and what ended the search."""
    cost = result.cost
    with_kept = " (with those of replies from the ledger)" * bool(cost.cached)
    lines = [
        "trials: " + ", ".join(f"{n} {state}" for state, n in result.trials.items() if n or state != "incomplete"),
        f"calls: {', '.join(f'{role} {count}' for role, count in cost.calls.items())}, from the ledger {cost.cached}",
        f"cost: {cost.prompt_tokens + cost.completion_tokens:,} tokens{with_kept}, "
        f"{facts.spent(cost.usd, cost.unpriced, cost.lost_usd)}, {cost.seconds:.0f} s",
        *ending_blocks.proposer(result),
    ]
    if result.failed_because:
        failed = counted(result.trials["failed"], "candidate")
        lines.insert(1, plain(f"{failed} failed: {result.failed_because}"))
    if facts.stopped_before_search(result):
        lines.append("--anyway searches all the same")
    if cost.overspent:
        lines.append(plain(f"the run {cost.overspent}"))
    if result.search_ended:
        lines.append(plain(f"the search ended before its plan was done: {result.search_ended}"))
    return lines


def _ending(result: RunResult, promoted: Mapping[str, Any] | None) -> list[str]:
    """Which prompt is released, and the ledger's head."""
    own = "the prompt of the old model" if result.migration else "your own prompt"
    released = "the best found" if promoted or result.decision == "promote" else own
    parameters = ", ".join(f"{name}={value}" for name, value in result.parameters.items())
    sets_no_parameters = bool(parameters) and not ships_prompt(result)  # the released state of a program does not
    return [
        plain(f"released ({released}{f', {promotion(promoted)}' if promoted else ''}): {result.release.path}"),
        *[f"scored with {parameters}; give the same to the model of your program"] * sets_no_parameters,
        f"ledger head {result.ledger_head[:16]}",
    ]


def blocks(result: RunResult, promoted: Mapping[str, Any] | None = None) -> list[str]:
    """The parts that not every run has, an empty line before each and after the last; `promoted` as in `report`."""
    return _spaced(_details(result, promoted, None, whole=True))


def _details(
    result: RunResult, promoted: Mapping[str, Any] | None, excerpts: Excerpts | None, whole: bool
) -> dict[str, list[str]]:
    """The parts that not every run has, by what they are called where they are left out."""
    before = facts.before_search(result)
    title, *steady = facts.steadiness(result) or [""]
    return {
        "why it is held back": _held_back(result, promoted),
        "remarks": [plain(line) for line in _remarks(result) if line],
        "yardsticks": score_blocks.yardsticks(result),
        "before the search": [plain(f"before the search: {before}")] * bool(before),
        "metrics": score_blocks.metrics(result),
        "labels": ending_blocks.labels(result, whole),
        "unreadable replies": ending_blocks.unreadable(result, excerpts),
        "slices": score_blocks.slices(result),
        "retrieval": [plain(line) for line in facts.retrieval(result)],
        "repeated answers": [title, *(f"  {line}" for line in steady)] if steady else [],
        "variety": [plain(line) for line in facts.variety(result)],
        "judges": score_blocks.judges(result),
        "confidence": [plain(line) for line in facts.confidence(result)],
        "what carried the gain": score_blocks.attribution(result),
        "Pareto front": score_blocks.pareto(result),
    }


def _remarks(result: RunResult) -> tuple[str, ...]:
    left_out = "" if result.is_own else facts.untested(result)
    return left_out, facts.recorded(result), facts.cheaper(result), facts.uncorrected(result), facts.uneven(result)


def _held_back(result: RunResult, promoted: Mapping[str, Any] | None) -> list[str]:
    reasons = [plain(f"  {why}") for why in facts.held_back(result)]
    if not reasons:
        return []
    if promoted is not None:
        return ["the best found was held back:", *reasons]
    own = "the prompt of the old model" if result.migration else "your own prompt"
    return [f"the best found is held back, and {own} is released:", *reasons]


def detectable_line(gains: Mapping[float, float]) -> str:
    """The smallest gain (0 to 1; inf: none) that the sealed test can show, by the baseline's score (0 to 1)."""
    words = [
        f"{f'{100 * gain:.0f} points' if math.isfinite(gain) else 'none'} if your prompt scores {100 * rate:.0f}"
        for rate, gain in gains.items()
    ]
    return f"the smallest gain that the sealed test can show (80 % power): {', '.join(words)}"
