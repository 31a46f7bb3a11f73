"""Which candidates to try next: Optuna's TPE by ask and tell over a round's pool. The only importer of optuna.

A categorical parameter cannot change within a study, so each round has a study of its
own, warm-started with every candidate of the pool that was scored before. Ask and tell only; nothing is stored here.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

STARTUP_TRIALS = 4
ASKS_PER_TRIAL = 6
PRIOR_ROWS = 8.0


@dataclass(frozen=True, slots=True)
class Point:
    """A candidate of the pool as coordinates: layout, instruction and kind of demo set. Several may share a place."""

    candidate_id: str
    coordinates: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a candidate: its mean over n rows."""

    mean: float
    n: int


def shrunk(seen: Seen, prior: float) -> float:
    """A mean drawn towards `prior` as if `PRIOR_ROWS` rows had shown it: few rows count little."""
    return (seen.mean * seen.n + prior * PRIOR_ROWS) / (seen.n + PRIOR_ROWS)


def choose(points: Sequence[Point], known: Mapping[str, Seen], count: int, seed: int) -> list[str]:
    """Up to `count` candidate ids to try next, none of them known. Same arguments, same answer.

    `points` holds the pool and what was tried before. TPE (Bergstra et al. 2011) proposes a place; its first untried
    candidate is taken. A place with none left is told back and asked again; what is then missing is drawn at random.
    """
    import optuna

    fresh = list({point.candidate_id: point for point in points if point.candidate_id not in known}.values())
    if len(fresh) <= count:
        return [point.candidate_id for point in fresh]
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    names = sorted(points[0].coordinates)
    space: dict[str, Any] = {
        name: optuna.distributions.CategoricalDistribution(sorted({point.coordinates[name] for point in points}))
        for name in names
    }
    waiting: dict[tuple[str, ...], list[str]] = {}
    for point in fresh:
        waiting.setdefault(tuple(point.coordinates[name] for name in names), []).append(point.candidate_id)
    prior = sum(seen.mean for seen in known.values()) / len(known) if known else 0.0
    chosen: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # optuna marks multivariate and constant_liar as experimental
        sampler = optuna.samplers.TPESampler(
            seed=seed % 2**32, n_startup_trials=STARTUP_TRIALS, multivariate=True, constant_liar=True
        )
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for point in points:
            if seen := known.get(point.candidate_id):
                study.add_trial(
                    optuna.trial.create_trial(
                        params=dict(point.coordinates), distributions=space, value=shrunk(seen, prior)
                    )
                )
        for _ in range(ASKS_PER_TRIAL * count):
            trial = study.ask(space)
            here = waiting.get(tuple(trial.params[name] for name in names))
            if here:
                chosen.append(here.pop(0))
            else:
                study.tell(trial, prior)
            if len(chosen) == count:
                return chosen
    rest = [point.candidate_id for point in fresh if point.candidate_id not in chosen]
    return chosen + random.Random(seed).sample(rest, count - len(chosen))
