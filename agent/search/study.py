"""The next place in the space of designs, by Optuna's TPE (ask and tell).

The choices of a categorical parameter cannot change within a study, so each step of a search has a study of its own,
warm-started with every design that was scored before.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

STARTUP_TRIALS = 4
PRIOR_ROWS = 8.0

Place = Mapping[str, str]
"""A choice for each coordinate of the space; candidates with other rows of the same kind of demo set share one."""


@dataclass(frozen=True, slots=True)
class MeanScore:
    """The mean of a candidate's scores over `n` rows."""

    mean: float
    n: int


def shrunk(score: MeanScore, prior: float) -> float:
    """A mean shrunk towards `prior`, which counts for `PRIOR_ROWS` rows.

    >>> shrunk(MeanScore(1.0, 8), 0.5)
    0.75
    """
    return (score.mean * score.n + prior * PRIOR_ROWS) / (score.n + PRIOR_ROWS)


class Study:
    """The study of one step: TPE, multivariate, with a constant liar between the places of the step.

    `scored`: the designs that were scored before; those outside of the space are left out.

    Source: Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization".
    """

    def __init__(
        self, space: Mapping[str, Sequence[str]], scored: Sequence[tuple[Place, MeanScore]], seed: int
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space: dict[str, Any] = {
            name: optuna.distributions.CategoricalDistribution(sorted(set(choices))) for name, choices in space.items()
        }
        self._prior = sum(score.mean for _, score in scored) / len(scored) if scored else 0.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # optuna marks multivariate and constant_liar as experimental
            sampler = optuna.samplers.TPESampler(
                seed=seed % 2**32, n_startup_trials=STARTUP_TRIALS, multivariate=True, constant_liar=True
            )
            self._study = optuna.create_study(direction="maximize", sampler=sampler)
        for place, score in scored:
            if score.n and all(place.get(name) in space[name] for name in space):
                params = {name: place[name] for name in space}
                value = shrunk(score, self._prior)
                self._study.add_trial(optuna.trial.create_trial(params=params, distributions=self._space, value=value))
        self._trial: Any = None

    def ask(self) -> dict[str, str]:
        """The next place."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._trial = self._study.ask(self._space)
        return dict(self._trial.params)

    def refuse(self) -> None:
        """Scores the last place as an average one: no candidate could be made there."""
        self._study.tell(self._trial, self._prior)
