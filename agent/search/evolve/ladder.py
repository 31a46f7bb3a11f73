"""How far each candidate is taken: rungs of dev rows, climbed by the best of each. Pure: knows no model, no SQL.

Asynchronous successive halving (Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning", algorithm 2)
over one common order of rows: all that stand on a rung have seen the same rows, so their means are paired. A candidate
that is not promoted now may be when more have come in below it; none is thrown away for one unlucky look.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pull:
    """Take this candidate to its first `rows` rows."""

    candidate_id: str
    rows: int


@dataclass(frozen=True, slots=True)
class Ladder:
    """`rungs` are row counts, rising, the last one the whole of dev. One of `eta` climbs from each to the next."""

    rungs: tuple[int, ...]
    eta: float = 3.0

    def level(self, rows: int) -> int:
        """The highest rung that `rows` rows reach; -1 for none."""
        return sum(rows >= rung for rung in self.rungs) - 1

    def promotions(
        self, scores: Mapping[str, Sequence[float]], out: Collection[str] = (), rows: Mapping[str, int] | None = None
    ) -> list[Pull]:
        """Which candidates climb now, the highest rungs first. `scores` are score vectors over the rows that each saw.

        `rows` is how many rows each saw, where some of them have no score. Those in `out` were pruned: they count in
        the rung but do not climb. Equal means go to the candidate that stands first.
        """
        seen = {i: self.level(rows[i] if rows else len(vector)) for i, vector in scores.items()}
        pulls = []
        for step in range(len(self.rungs) - 2, -1, -1):
            here = [i for i in scores if seen[i] >= step]
            allowed = int(len(here) / self.eta)
            best = sorted(here, key=lambda i: -mean(scores[i][: self.rungs[step]]))[:allowed]
            pulls += [Pull(i, self.rungs[step + 1]) for i in best if seen[i] == step and i not in out]
        return pulls


def mean(scores: Sequence[float]) -> float:
    return sum(scores) / len(scores) if scores else 0.0


def rungs_for(rows: int, first: int = 8, factor: float = 2.8) -> tuple[int, ...]:
    """Rungs up to `rows`: 8, 22, 63, ...; a rung that almost reaches the next is left out."""
    rungs: list[int] = []
    step = float(min(first, rows))
    while step * 1.4 < rows:
        rungs.append(int(step))
        step *= factor
    return (*rungs, rows)
