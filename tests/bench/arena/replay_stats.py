"""Do the statistics hold? Replays of recorded outcomes, in which the truth is known.

    python -m tests.bench.arena.replay_stats [--seeds 1000] [--matrix FILE ...]

A matrix holds what many candidates did on many rows. Its rows are taken for the whole world: a candidate's true score
is its mean over all of them, and each replay draws dev or test rows from them with replacement. Without a recorded
matrix, two are made up: hard and easy rows, good and bad candidates, candidates that collapse on labels, in families.
"Made equal" means that on each row the candidates' outcomes change places at random, so that all are equally good.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from agent.search.plan import DETECT
from agent.stats.intervals import mean_ci, paired_difference
from agent.stats.preflight import rows_to_detect
from agent.stats.racing import behind
from agent.stats.selection import selection_corrected
from tests.bench.arena.replay import plan_of

FOLDER = Path(__file__).parent / "matrix"
BLOCK = 8
TEST_ROWS = (40, 100, 200)
FIELD = 60
HALVING = ((8, 30), (16, 15), (32, 7))
Table = Any


@dataclass(frozen=True, slots=True)
class Matrix:
    """0/1 outcomes, one line a candidate; what is true of each is its mean."""

    name: str
    hits: Table

    @property
    def truth(self) -> Table:
        return self.hits.mean(axis=1)

    def drawn(self, rng: np.random.Generator, candidates: int, rows: int, equal: bool = False) -> tuple[Table, Table]:
        """Outcomes of some candidates on drawn rows, and their true scores."""
        chosen = rng.permutation(len(self.hits))[:candidates]
        scores = self.hits[chosen][:, rng.integers(0, self.hits.shape[1], rows)]
        truth = self.truth[chosen]
        if equal:
            scores, truth = rng.permuted(scores, axis=0), np.full(len(chosen), truth.mean())
        return scores, truth


def read(path: Path) -> Matrix:
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    body = json.loads(text)
    hits = np.array([[float(letter) for letter in line] for line in body["hits"]])
    return Matrix(f"{body['set']}, {body['model']}", hits)


def synthetic(
    seed: int = 0, candidates: int = 150, rows: int = 150, middle: float = 0.5, spread: float = 0.1, labels: int = 8
) -> Matrix:
    """True scores around `middle`, standard deviation `spread`; which rows are hit hangs on row, label and family."""
    rng = np.random.default_rng(seed)
    label, family = rng.integers(0, labels, rows), rng.integers(0, 12, candidates)
    leaning = 0.7 * rng.normal(size=(12, labels))[family] + 0.9 * rng.normal(size=(candidates, labels))
    easy = leaning[:, label] + rng.normal(size=rows) + rng.logistic(size=(candidates, rows))
    wanted = np.rint(np.clip(rng.normal(middle, spread, candidates), 0.02, 0.98) * rows)
    rank = np.argsort(np.argsort(-easy, axis=1), axis=1)
    return Matrix(f"made up, {middle:.0%} +- {spread:.0%}", (rank < wanted[:, None]).astype(float))


# ---- intervals and the sealed test


@cache
def _mean(hits: int, rows: int) -> tuple[float, float]:
    _, low, high = mean_ci([1.0] * hits + [0.0] * (rows - hits))
    return low, high


@cache
def _paired(wins: int, losses: int, rows: int) -> tuple[float, float, bool]:
    ties = [0.0] * (rows - wins - losses)
    found = paired_difference([1.0] * wins + [0.0] * losses + ties, [0.0] * wins + [1.0] * losses + ties, 0)
    return *found.ci95, found.diff > 0 and found.p_value < 0.05


def intervals(matrix: Matrix, seeds: int, rows: int) -> tuple[float, float, float]:
    """Coverage of the mean's and of the difference's interval, and how often one of two equal prompts is promoted."""
    means = pairs = promoted = 0
    for seed in range(seeds):
        rng = np.random.default_rng([1, seed])
        scores, truth = matrix.drawn(rng, 2, rows)
        low, high = _mean(int(scores[0].sum()), rows)
        means += low <= truth[0] + 1e-12 and truth[0] - 1e-12 <= high
        first, second = scores
        low, high, _ = _paired(int((first > second).sum()), int((first < second).sum()), rows)
        pairs += low <= truth[0] - truth[1] + 1e-12 and truth[0] - truth[1] - 1e-12 <= high
        first, second = rng.permuted(scores, axis=0)
        promoted += _paired(int((first > second).sum()), int((first < second).sum()), rows)[2]
    return means / seeds, pairs / seeds, promoted / seeds


@cache
def _tested(hits: int) -> int:
    """Test rows of 700 calls on a file of 330 rows, by how many of its first dev rows the own prompt has right."""
    plan = plan_of(700, 78, 130)
    rows = plan.first_rows
    return plan.tested_for(rows_to_detect(DETECT, [1.0] * hits + [0.0] * (rows - hits))).test_rows


def by_the_plan(matrix: Matrix, seeds: int) -> tuple[float, float, float, float]:
    """As `intervals`, where the number of test rows follows from one prompt's dev rows: coverage of the difference's
    interval, how often one of two equal prompts is promoted, and the least and the most rows."""
    pairs = promoted = 0
    used = []
    for seed in range(seeds):
        rng = np.random.default_rng([4, seed])
        scores, truth = matrix.drawn(rng, 2, 22 + 130)
        rows = _tested(int(scores[1, :22].sum()))
        used.append(rows)
        first, second = scores[:, 22 : 22 + rows]
        low, high, _ = _paired(int((first > second).sum()), int((first < second).sum()), rows)
        pairs += low <= truth[0] - truth[1] + 1e-12 and truth[0] - truth[1] - 1e-12 <= high
        first, second = rng.permuted(scores[:, 22 : 22 + rows], axis=0)
        promoted += _paired(int((first > second).sum()), int((first < second).sum()), rows)[2]
    return pairs / seeds, promoted / seeds, min(used), max(used)


# ---- the winner's curse


def chosen(scores: Table, rungs: Sequence[tuple[int, int]], rng: np.random.Generator) -> tuple[list[list[float]], int]:
    """What a run leaves: everybody's scores on the rows that it saw, and who won. Equal ones go on by lot."""
    lengths, alive = np.zeros(len(scores), dtype=int), rng.permutation(len(scores))
    for rows, keep in [*rungs, (scores.shape[1], 1)]:
        lengths[alive] = rows
        alive = alive[np.argsort(-scores[alive, :rows].mean(axis=1), kind="stable")][:keep]
    return [row[:length].tolist() for row, length in zip(scores, lengths, strict=True)], int(alive[0])


def curse(
    matrix: Matrix, seeds: int, rows: int, rungs: Sequence[tuple[int, int]], equal: bool = False
) -> tuple[float, float, float]:
    """Mean error of the winner's dev mean and of its corrected score, and the corrected one's spread, in points."""
    raw, corrected = [], []
    for seed in range(seeds):
        rng = np.random.default_rng([2, seed])
        scores, truth = matrix.drawn(rng, FIELD, rows, equal)
        outcomes, winner = chosen(scores, rungs, rng)
        raw.append(scores[winner].mean() - truth[winner])
        corrected.append(selection_corrected(outcomes, winner, seed) - truth[winner])
    return 100 * float(np.mean(raw)), 100 * float(np.mean(corrected)), 100 * math.sqrt(np.mean(np.square(corrected)))


# ---- racing


def raced(scores: Table) -> Table:
    """Rows that each candidate saw, when the race is looked at after every block."""
    lengths = np.full(len(scores), scores.shape[1])
    for rows in range(BLOCK, scores.shape[1], BLOCK):
        out = behind([row[: min(rows, length)].tolist() for row, length in zip(scores, lengths, strict=True)])
        lengths[out] = rows
    return lengths


def spaced(matrix: Matrix, count: int = 8, gap: float = 0.1) -> Matrix:
    """Candidates whose true scores stand a gap apart, from the best down, as far as there are such."""
    truth, picked = matrix.truth, [int(np.argmax(matrix.truth))]
    while len(picked) < count:
        near = int(np.argmin(abs(truth - (truth[picked[0]] - gap * len(picked)))))
        if truth[picked[-1]] - truth[near] < gap / 2:
            break
        picked.append(near)
    return Matrix(matrix.name, matrix.hits[picked])


def racing(matrix: Matrix, seeds: int, rows: int, candidates: int = 8, equal: bool = False) -> tuple[float, float]:
    """How often the best was out (of equal ones: any one of them), and the part of the calls that was saved."""
    lost, saved = [], []
    for seed in range(seeds):
        scores, truth = matrix.drawn(np.random.default_rng([3, seed]), candidates, rows, equal)
        lengths = raced(scores)
        lost.append(float((lengths < rows)[truth >= truth.max() - 1e-12].mean()))
        saved.append(1 - float(lengths.mean()) / rows)
    return float(np.mean(lost)), float(np.mean(saved))


# ---- the table


def lines(matrix: Matrix, seeds: int) -> Iterator[tuple[str, str, str]]:
    """What was asked, what was found, what it should be."""
    for rows in TEST_ROWS:
        mean, pair, promoted = intervals(matrix, seeds, rows)
        yield f"interval of a mean covers, {rows} rows", f"{mean:.1%}", "93 to 97 %"
        yield f"interval of a difference covers, {rows} rows", f"{pair:.1%}", "93 to 97 %"
        yield f"promoted though equal, {rows} rows", f"{promoted:.1%}", "<= 5 %"
    pair, promoted, least, most = by_the_plan(matrix, seeds)
    yield f"interval of a difference covers, {least:.0f} to {most:.0f} rows by the plan", f"{pair:.1%}", "93 to 97 %"
    yield f"promoted though equal, {least:.0f} to {most:.0f} rows by the plan", f"{promoted:.1%}", "<= 5 %"
    runs: dict[str, Callable[[], tuple[float, float, float]]] = {
        "all on 60 rows": lambda: curse(matrix, seeds, 60, ()),
        "all on 60 rows, made equal": lambda: curse(matrix, seeds, 60, (), equal=True),
        "halving to 100 rows": lambda: curse(matrix, seeds, 100, HALVING),
        "halving to 100 rows, made equal": lambda: curse(matrix, seeds, 100, HALVING, equal=True),
    }
    for name, run in runs.items():
        raw, corrected, spread = run()
        told = f"raw {raw:+.1f}, corrected {corrected:+.1f} (one: {spread:.1f})"
        yield f"dev score of the best of {FIELD}, {name}", told, "within 1 point"
    apart = spaced(matrix)
    for rows in (100, 200):
        lost, saved = racing(apart, seeds, rows, len(apart.hits))
        told = f"best out {lost:.1%}, calls saved {saved:.0%}"
        yield f"race of {len(apart.hits)}, 10 points apart, {rows} rows", told, "<= 5 %, >= 50 %"
    lost, saved = racing(matrix, seeds, 100)
    yield "race of any 8, 100 rows", f"best out {lost:.1%}, calls saved {saved:.0%}", "<= 5 %"
    lost, _ = racing(matrix, seeds, 100, equal=True)
    yield "race of 8 made equal, 100 rows", f"one out {lost:.1%}", "<= 5 %"
    lost, saved = racing(matrix, max(1, seeds // 5), 100, FIELD)
    yield f"race of any {FIELD}, 100 rows", f"best out {lost:.1%}, calls saved {saved:.0%}", "<= 5 %"


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.arena.replay_stats", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seeds", type=int, default=1000, help="replays for each line; 1000 without it")
    parser.add_argument("--matrix", type=Path, nargs="+", help=f"recorded outcomes; all of {FOLDER.name}/ without it")
    given = parser.parse_args(words)
    paths = given.matrix or sorted(FOLDER.glob("*.json*"))
    for matrix in [read(path) for path in paths] or [synthetic(), synthetic(1, spread=0.3)]:
        candidates, rows = matrix.hits.shape
        truth = matrix.truth
        print(
            f"{matrix.name}: {candidates} candidates x {rows} rows, true scores {truth.mean():.2f} +- {truth.std():.2f}"
        )
        for asked, told, wanted in lines(matrix, given.seeds):
            print(f"  {asked:66} {told:42} {wanted}", flush=True)


if __name__ == "__main__":
    main()
