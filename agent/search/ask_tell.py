"""Asks Optuna what to try next: one proposal of a run's study (`run_study.py`), by one of its samplers.

TPE takes the parameters as they are, conditional. A Gaussian process and CMA-ES know no conditions: they are asked over
all parameters at once, of which those are used that the operator has; CMA-ES takes the place of each word in its list.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agent.search.run_study import OPERATOR, PARENT, Params, StudyTrial, built, distributions_of
from agent.search.study import STARTUP_TRIALS
from agent.types import FRESH, content_id

if TYPE_CHECKING:
    import optuna

FLAT = ("gp", "cmaes")
"""Samplers that are asked over all parameters at once."""


class AskTell:
    """The study of one run, asked proposal by proposal; the same trials and seed give the same proposals.

    Args:
        sampler: one of `samplers.STUDY_SAMPLERS`.
        seed: of the run; each proposal is seeded by it and its own number.
    """

    def __init__(self, sampler: str, seed: int) -> None:
        self._name, self._seed, self.asked = sampler, seed, 0
        self._space: Mapping[str, Sequence[str]] = {}
        self._trials: Sequence[StudyTrial] = ()
        self._known: dict[str, optuna.distributions.BaseDistribution] = {}
        self._study: Any = None
        self._trial: Any = None

    def tell(
        self, trials: Sequence[StudyTrial], space: Mapping[str, Sequence[str]], operators: Sequence[str], ranks: int
    ) -> None:
        """Tells all that is known; proposals that were asked for before and are not among the trials are forgotten.

        Args:
            trials: the trials so far, in their order.
            space: the choices of each coordinate of a new design, as of now.
            operators: what can make a candidate beside a new design.
            ranks: how many parents there can be, at least 0.
        """
        choices = {**space, OPERATOR: (FRESH, *operators)}
        self._space, self._trials = space, trials
        self._known = distributions_of(trials, choices, max(1, ranks))
        if self._name in FLAT:
            self._known = {name: self._known[name] for name in (OPERATOR, PARENT, *space)}
            ordinal = self._name == "cmaes"
            self._study = flat_study(trials, self._known, ordinal)
        else:
            self._study = built(trials, self._known)

    def ask(self, by_chance: bool = False) -> Params:
        """The next proposal.

        Args:
            by_chance: draw it at random, as when the sampler proposes what cannot be made.

        Returns:
            The operator, and the coordinates of a new design or the rank of the parent.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # optuna marks some of its samplers as experimental
            self.asked += 1
            self._study.sampler = self._random() if by_chance else self._sampler()
            if self._name in FLAT:
                params = self._flat()
            else:
                self._trial = self._study.ask()
                params = {OPERATOR: self._word(OPERATOR)}
                if params[OPERATOR] == FRESH:
                    params |= {name: self._word(name) for name in self._space}
                else:
                    params[PARENT] = self._trial.suggest_int(PARENT, 0, self._known[PARENT].high)
        return params

    def setting(self, name: str, words: Sequence[str]) -> str:
        """The choice for a setting of the operator that was asked for last.

        Args:
            name: the parameter, OPERATOR.SETTING.
            words: what can be chosen now, at least one.

        Returns:
            One of the words, or one that was chosen before and cannot be chosen now.
        """
        from optuna.trial import TrialState, create_trial

        known = distributions_of(self._trials, {name: words}, 1)[name]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sampler = self._random(name) if self._name in FLAT else self._sampler(name)
            pending = create_trial(state=TrialState.RUNNING)
            return str(sampler.sample_independent(self._study, pending, name, known))

    def _word(self, name: str) -> str:
        return str(self._trial.suggest_categorical(name, self._known[name].choices))

    def _flat(self) -> dict[str, str | int]:
        """A proposal over all parameters, of which those are kept that the operator has."""
        ordinal = self._name == "cmaes"
        self._trial = self._study.ask(as_flat(self._known, ordinal))
        params = {name: _word_of(value, self._known[name], ordinal) for name, value in self._trial.params.items()}
        kept = (OPERATOR, *self._space) if params[OPERATOR] == FRESH else (OPERATOR, PARENT)
        return {name: params[name] for name in kept}

    def _seed_of(self, what: str) -> int:
        return int(content_id("s", [self._seed, self.asked, what])[2:], 16) % 2**32

    def _random(self, what: str = "") -> Any:
        import optuna

        return optuna.samplers.RandomSampler(seed=self._seed_of(what))

    def _sampler(self, what: str = "") -> Any:
        """The sampler of one proposal.

        Source: Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization" (TPE); Nomura et al. 2021, "Warm
        Starting CMA-ES": it begins at the best trials, as its own state would have to be pickled.
        """
        import optuna

        seed = self._seed_of(what)
        if self._name == "random":
            return self._random(what)
        if self._name == "gp":
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=STARTUP_TRIALS)
        if self._name == "cmaes":
            told = [trial for trial in self._study.trials if trial.state.name == "COMPLETE"]
            if len(told) < STARTUP_TRIALS:
                return self._random(what)
            return optuna.samplers.CmaEsSampler(seed=seed, source_trials=told)
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=STARTUP_TRIALS, multivariate=True, group=True, constant_liar=True
        )


def as_flat(known: Mapping[str, Any], ordinal: bool) -> dict[str, Any]:
    """The distributions of a study without conditions; `ordinal`: the place of each word in its list."""
    from optuna.distributions import IntDistribution

    if not ordinal:
        return dict(known)
    return {
        name: each if isinstance(each, IntDistribution) else IntDistribution(0, len(each.choices) - 1)
        for name, each in known.items()
    }


def flat_study(trials: Sequence[StudyTrial], known: Mapping[str, Any], ordinal: bool) -> Any:
    """The study of these trials, each with all parameters; what its operator does not have stands at the first."""
    from optuna.trial import create_trial

    study = built(())
    flat = as_flat(known, ordinal)
    for trial in built(trials).trials:
        if trial.state.name == "COMPLETE":
            params = {name: _value_of(trial.params.get(name), known[name], ordinal) for name in known}
            study.add_trial(create_trial(params=params, distributions=flat, value=trial.value))
    return study


def _value_of(value: str | int | None, known: Any, ordinal: bool) -> str | int:
    if not hasattr(known, "choices"):
        return value or 0
    word = known.choices[0] if value is None else value
    return int(known.choices.index(word)) if ordinal else str(word)


def _word_of(value: str | int, known: Any, ordinal: bool) -> str | int:
    return str(known.choices[int(value)]) if ordinal and hasattr(known, "choices") else value
