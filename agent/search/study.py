"""Where in the space of designs to look next: Optuna's TPE by ask and tell. The only importer of optuna but
for report/optuna_study.py.

A place names a technique, a format, an instruction, a role, a kind of demo set and its size. The choices of a
categorical parameter cannot change within a study, so each step has a study of its own, warm-started with every design
that was scored before. Ask and tell only; nothing is stored here.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

STARTUP_TRIALS = 4
PRIOR_ROWS = 8.0

Place = Mapping[str, str]
"""Several candidates may share one: other rows of the same kind of demo set."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a candidate: its mean over n rows."""

    mean: float
    n: int


def shrunk(seen: Seen, prior: float) -> float:
    """A mean drawn towards `prior` as if `PRIOR_ROWS` rows had shown it: few rows count little."""
    return (seen.mean * seen.n + prior * PRIOR_ROWS) / (seen.n + PRIOR_ROWS)


class Study:
    """One step's study over `space` (choices by coordinate), warm with `seen`. Same arguments, same places.

    TPE (Bergstra et al. 2011), multivariate, with a constant liar between the places of one step.
    """

    def __init__(self, space: Mapping[str, Sequence[str]], seen: Sequence[tuple[Place, Seen]], seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space: dict[str, Any] = {
            name: optuna.distributions.CategoricalDistribution(sorted(set(choices))) for name, choices in space.items()
        }
        self._prior = sum(known.mean for _, known in seen) / len(seen) if seen else 0.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # optuna marks multivariate and constant_liar as experimental
            sampler = optuna.samplers.TPESampler(
                seed=seed % 2**32, n_startup_trials=STARTUP_TRIALS, multivariate=True, constant_liar=True
            )
            self._study = optuna.create_study(direction="maximize", sampler=sampler)
        for place, known in seen:
            if known.n and all(place.get(name) in space[name] for name in space):
                params = {name: place[name] for name in space}
                value = shrunk(known, self._prior)
                self._study.add_trial(optuna.trial.create_trial(params=params, distributions=self._space, value=value))
        self._asked: Any = None

    def ask(self) -> dict[str, str]:
        """The next place."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._asked = self._study.ask(self._space)
        return dict(self._asked.params)

    def refuse(self) -> None:
        """The last place has no candidate left: it is told back as an average one, at no cost."""
        self._study.tell(self._asked, self._prior)
