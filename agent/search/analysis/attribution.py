"""What each part of the winner contributes to its gain over the baseline.

It is what is lost when the baseline's part stands in its place and all else stays; the kind names the parts
(`Program.ablations`). Candidates without a part that were scored on the winner's rows are measured, paired; the others
are estimated from all scores of the run (`effects.py`). Where the interval holds both signs, no sign is claimed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from agent.search.analysis.effects import Feature, PartsModel, ScoredCandidate
from agent.search.program import Ablation
from agent.stats.intervals import paired_difference
from agent.types import Candidate

How = Literal["measured", "estimated", "unknown"]

FEWEST_ROWS = 10
WIDTH = 1.96


@dataclass(frozen=True, slots=True)
class PartContribution:
    """What one part contributes, in points (hundredths of score), with its 95 % interval.

    `rows` is 0 where it was estimated; `how` is "unknown" where the interval holds 0.
    """

    part: str
    points: float
    ci95: tuple[float, float]
    how: How
    rows: int

    def as_dict(self) -> dict[str, Any]:
        """The fields, JSON-ready, rounded to hundredths of a point."""
        return {**asdict(self), "points": round(self.points, 2), "ci95": [round(value, 2) for value in self.ci95]}


def attribution(
    winner: Candidate,
    ablations: Sequence[Ablation],
    table: Sequence[ScoredCandidate],
    features: Callable[[Candidate], Mapping[Feature, float]],
    optimism: float = 0.0,
    seed: int = 0,
) -> list[PartContribution]:
    """What each part of the winner contributes.

    Args:
        winner: the candidate that won.
        ablations: the winner without each part in turn.
        table: every candidate of the run with its scores.
        features: a candidate as columns of the model; none for a kind of which nothing can be estimated.
        optimism: how much choosing the best flatters the winner on these rows, in score, at least 0: measured intervals
            reach down by it. Estimates shrink by themselves.
        seed: of the bootstrap.

    Returns:
        The parts that were measured or can be estimated, the largest contribution first.
    """
    rows = {scored.candidate_id: scored for scored in table}
    model: PartsModel | None = None
    parts = []
    for ablation in ablations:
        pairs = _pairs(rows.get(winner.id), rows.get(ablation.candidate.id))
        if pairs:
            diff = paired_difference([mine for mine, _ in pairs], [theirs for _, theirs in pairs], seed)
            points, low, high = diff.diff, diff.ci95[0] - max(0.0, optimism), diff.ci95[1]
        elif not features(winner):
            continue
        else:
            model = model or PartsModel(table)
            points, error = model.difference(features(winner), features(ablation.candidate))
            low, high = points - WIDTH * error, points + WIDTH * error
        how: How = "unknown" if low <= 0 <= high else "measured" if pairs else "estimated"
        parts.append(PartContribution(ablation.part, 100 * points, (100 * low, 100 * high), how, len(pairs)))
    return sorted(parts, key=lambda part: -part.points)


def _pairs(winner: ScoredCandidate | None, other: ScoredCandidate | None) -> list[tuple[float, float]]:
    """Both scores on each row of the winner's; empty unless the other has them all and they are enough."""
    if winner is None or other is None or len(other.values) < len(winner.values):
        return []
    both = zip(winner.values, other.values, strict=False)
    pairs = [(mine, theirs) for mine, theirs in both if mine is not None and theirs is not None]
    return pairs if len(pairs) >= FEWEST_ROWS else []
