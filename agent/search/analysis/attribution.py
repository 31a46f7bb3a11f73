"""Which parts of the winner carry its gain over the baseline. Pure: knows no model, no SQL.

A part carries what is lost when the baseline's stands in its place and all else stays: the instruction, the demos (with
the technique that needs them), reasoning before the answer, the format, the role. `leave_one_out` gives these prompts.
Those that were tried on the winner's rows are measured, paired; the rest is estimated from all that the run has seen
(`effects.py`). Where the interval holds both signs no sign is claimed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from agent.prompt.prompt_candidate import PromptCandidate
from agent.prompt.techniques import TECHNIQUES
from agent.search.analysis.effects import Observed, PartsModel
from agent.search.program import Ablation
from agent.stats.intervals import paired_difference
from agent.types import Candidate, Demo, TechniqueName

How = Literal["measured", "estimated", "unknown"]

FEWEST_ROWS = 10
WIDTH = 1.96


@dataclass(frozen=True, slots=True)
class Carried:
    """What one part carries, in points (hundredths of score), with its 95 % interval. `rows`: 0 unless it was tried.

    "unknown": the interval holds 0, so that the sign cannot be told.
    """

    part: str
    points: float
    ci95: tuple[float, float]
    how: How
    rows: int

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "points": round(self.points, 2), "ci95": [round(value, 2) for value in self.ci95]}


def leave_one_out(winner: PromptCandidate, baseline: PromptCandidate) -> list[Ablation]:
    """One candidate for each part that the winner does not share with the baseline; they may break hard rules."""
    found = []
    if winner.instruction != baseline.instruction:
        found.append(Ablation("instruction", replace(winner, instruction=baseline.instruction)))
    if winner.demos != baseline.demos:
        found.append(Ablation("demos", _laid_out(winner, baseline.demos, TECHNIQUES[winner.technique].reasoning)))
    reasoning = TECHNIQUES[baseline.technique].reasoning
    if TECHNIQUES[winner.technique].reasoning != reasoning:
        found.append(Ablation("technique", _laid_out(winner, winner.demos, reasoning)))
    if winner.format != baseline.format:
        found.append(Ablation("format", replace(winner, format=baseline.format)))
    if winner.role != baseline.role:
        found.append(Ablation("role", replace(winner, role=baseline.role)))
    return found


def _laid_out(winner: PromptCandidate, demos: Sequence[Demo], reasoning: bool) -> PromptCandidate:
    """The winner with these demos, under the technique that goes with them."""
    kept = demos if reasoning else [Demo(demo.example_id, demo.inputs, demo.outputs) for demo in demos]
    names: dict[tuple[bool, bool], TechniqueName] = {
        (technique.demos, technique.reasoning): name for name, technique in TECHNIQUES.items()
    }
    return replace(winner, technique=names[bool(demos), reasoning], demos=tuple(kept))


def attribution(
    winner: Candidate, ablations: Sequence[Ablation], table: Sequence[Observed], optimism: float = 0.0, seed: int = 0
) -> list[Carried]:
    """What each part that was taken out carries, the largest first.

    `table` holds every candidate of the run with its scores. `optimism` (>= 0, in score) is how much choosing the best
    flatters the winner on these rows: measured intervals reach down by it. Estimates shrink by themselves.
    """
    rows = {seen.candidate.id: seen for seen in table}
    model: PartsModel | None = None
    found = []
    for ablation in ablations:
        pairs = _pairs(rows.get(winner.id), rows.get(ablation.candidate.id))
        if pairs:
            told = paired_difference([mine for mine, _ in pairs], [theirs for _, theirs in pairs], seed)
            points, low, high = told.diff, told.ci95[0] - max(0.0, optimism), told.ci95[1]
        elif ablation.measured_only:
            continue
        else:
            model = model or PartsModel(table)
            points, error = model.difference(winner, ablation.candidate)
            low, high = points - WIDTH * error, points + WIDTH * error
        how: How = "unknown" if low <= 0 <= high else "measured" if pairs else "estimated"
        found.append(Carried(ablation.part, 100 * points, (100 * low, 100 * high), how, len(pairs)))
    return sorted(found, key=lambda carried: -carried.points)


def _pairs(winner: Observed | None, other: Observed | None) -> list[tuple[float, float]]:
    """Both scores on each row of the winner's; empty unless the other saw them all and they are enough."""
    if winner is None or other is None or len(other.values) < len(winner.values):
        return []
    both = zip(winner.values, other.values, strict=False)
    pairs = [(mine, theirs) for mine, theirs in both if mine is not None and theirs is not None]
    return pairs if len(pairs) >= FEWEST_ROWS else []
