"""Published figures of two public claims, and what so few rows can show. Pure; makes no call.

Sources: github.com/intertwine/dspy-agent-skills at 5c3a71c, with results.json of its earlier commit 03c9b5b; and
glitchytales.com/articles/gepa-prompt-optimization-tiny-local-models, of which only the beginning was read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations_with_replacement, product

from agent.results.run_parts import PairedResult
from agent.stats.figures import bracketed, points
from agent.stats.intervals import Interval, mean_ci, paired_difference
from agent.stats.power import minimum_detectable_gain

ROUNDED = 6e-5
"""Figures are published with two decimals of a percent."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A gain on `rows` rows, in [0, 1]. `levels`: every score that a row can have; () when graded more finely."""

    name: str
    model: str
    rows: int
    before: float
    after: float | None = None
    levels: tuple[float, ...] = ()

    @property
    def smallest_gain(self) -> float:
        """Return the smallest true gain that these rows show in 80 % of runs; inf without any."""
        return minimum_detectable_gain(self.rows, self.before)

    def best_case(self) -> PairedResult | None:
        """Compare before and after by the rows most favourable to the gain that give both published scores."""
        if not self.levels or self.after is None:
            return None
        found: dict[tuple[float, ...], PairedResult] = {}
        wanted, reached = self.before * self.rows, self.after * self.rows
        for rows in combinations_with_replacement(tuple(product(self.levels, repeat=2)), self.rows):
            before, after = zip(*rows, strict=True)
            if max(abs(sum(before) - wanted), abs(sum(after) - reached)) > ROUNDED * self.rows:
                continue
            differences = tuple(sorted(round(b - a, 9) for a, b in rows))
            if differences not in found:
                found[differences] = paired_difference(after, before, seed=0)
        return min(found.values(), key=lambda result: result.p_value) if found else None


MATH_SCORES = (0.0, 0.2, 1.0)
"""Wrong, within 10 % of the label, right."""
CLAIMS = (
    Claim("math", "LFM2.5-1.2B", 12, 0.45, 0.70, MATH_SCORES),
    Claim("invoices", "LFM2.5-1.2B", 9, 0.83333, 0.93148),
    Claim("questions", "GLM 4.5 Air", 10, 0.8115, 1.0),
    Claim("math, later", "Ministral 3B", 12, 0.85, 0.93333, MATH_SCORES),
    Claim("questions, later", "Ministral 3B", 10, 0.8047, 1.0),
    Claim("sentiment", "SmolLM2-135M", 22, 0.5),
)
REPEATED = {
    "invoices, LFM2.5-1.2B, first prompt": (0.8333, 0.7389, 0.9444),
    "questions, Ministral 3B, first prompt": (0.7577, 0.8610, 0.8047),
    "questions, Ministral 3B, optimized": (1.0, 0.9175, 1.0),
}
"""The same program, rows and model, scored in separate runs, with DSPy 3.1.3 or 3.2.0."""


def interval(score: float, rows: int) -> Interval:
    """Return the 95 % interval of a mean of which no row is known: rows are right or wrong, and one is in between.

    No scores in [0, 1] with this mean vary more, so the interval is cautious for graded ones.

    >>> [round(end, 3) for end in interval(0.5, 22)]
    [0.307, 0.693]
    """
    right, rest = divmod(score * rows, 1)
    values = [1.0] * int(right) + [rest] * (rest > ROUNDED * rows)
    return mean_ci(values + [0.0] * (rows - len(values)))[1:]


def with_interval(score: float | None, rows: int) -> str:
    return "not read" if score is None else points(score) + bracketed(interval(score, rows))


def lines() -> Iterator[str]:
    """Yield the table of the published figures, as Markdown, and the spread of repeated runs."""
    yield "| claim | model | rows | before | after | smallest gain that such rows show | best case of the rows |"
    yield "|---|---|---|---|---|---|---|"
    for claim in CLAIMS:
        gain, best = claim.smallest_gain, claim.best_case()
        yield " | ".join(
            (
                f"| {claim.name}",
                claim.model,
                str(claim.rows),
                with_interval(claim.before, claim.rows),
                with_interval(claim.after, claim.rows),
                f"{100 * gain:.1f}" if math.isfinite(gain) else "none",
                f"p = {best.p_value:.3f} |" if best else "row scores not published |",
            )
        )
    for what, scores in REPEATED.items():
        spread = 100 * (max(scores) - min(scores))
        yield f"{what}: {', '.join(f'{100 * score:.1f}' for score in scores)}; a spread of {spread:.1f}"
