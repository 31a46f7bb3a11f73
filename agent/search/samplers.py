"""Optuna studies by ask and tell: of the places of one step (`Study`), or of a whole run (`AskTell`).

Optuna fixes the choices of a parameter and closes a trial that was told, but instructions come in and candidates climb:
so a study is built of the trials at each step (`built`), from the records that the ledger keeps. Import this module
where it is used: it loads Optuna.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as State

from agent.search.study import OPERATOR, PARENT, MeanScore, Params, Place, StudyTrial, prior_of, shrunk
from agent.types import FRESH, content_id

STARTUP_TRIALS = 4


@contextmanager
def _quiet() -> Iterator[None]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _tpe(seed: int, **more: bool) -> Any:
    """Source: Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization"."""
    return TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS, multivariate=True, constant_liar=True, **more)


class Study:
    """The study of one step: multivariate TPE, with a constant liar. `scored`: earlier designs."""

    def __init__(
        self, space: Mapping[str, Sequence[str]], scored: Sequence[tuple[Place, MeanScore]], seed: int
    ) -> None:
        with _quiet():
            self._space = {name: CategoricalDistribution(sorted(set(choices))) for name, choices in space.items()}
            self._study = optuna.create_study(direction="maximize", sampler=_tpe(seed % 2**32))
        self._prior = sum(score.mean for _, score in scored) / len(scored) if scored else 0.0
        for place, score in scored:
            if score.n and all(place.get(name) in space[name] for name in space):
                params, value = {name: place[name] for name in space}, shrunk(score, self._prior)
                self._study.add_trial(create_trial(params=params, distributions=self._space, value=value))
        self._trial: Any = None

    def ask(self) -> dict[str, str]:
        with _quiet():
            self._trial = self._study.ask(self._space)
        return dict(self._trial.params)

    def refuse(self) -> None:
        """Score the last place as average: no candidate could be made there."""
        self._study.tell(self._trial, self._prior)


def distributions_of(
    trials: Sequence[StudyTrial], choices: Mapping[str, Sequence[str]], ranks: int
) -> dict[str, BaseDistribution]:
    """Return the choices of each parameter: current ones and all chosen before. `ranks`: of parents."""
    words: dict[str, set[str]] = {name: set(each) for name, each in choices.items()}
    for trial in trials:
        for name, value in trial.params.items():
            if isinstance(value, int):
                ranks = max(ranks, value + 1)
            else:
                words.setdefault(name, set()).add(value)
    categories = {name: CategoricalDistribution(sorted(each)) for name, each in sorted(words.items()) if each}
    return {**categories, PARENT: IntDistribution(0, ranks - 1)}


def frozen(trial: StudyTrial, prior: float, distributions: Mapping[str, BaseDistribution]) -> FrozenTrial:
    """Convert the trial for Optuna.

    One that may still climb is complete with its mean so far, shrunk towards `prior`; a pruned one ranks behind all
    others; one that failed has no value.
    """
    value: float | None = shrunk(trial.last, prior)
    state = {"pruned": State.PRUNED, "failed": State.FAIL}.get(trial.state, State.COMPLETE)
    if state == State.PRUNED:
        value = trial.last.mean
    if state != State.FAIL and not trial.steps:
        state = State.RUNNING
    return create_trial(
        state=state,
        value=None if state in (State.FAIL, State.RUNNING) else value,
        params=dict(trial.params),
        distributions={name: distributions[name] for name in trial.params},
        intermediate_values=dict(trial.steps),
        user_attrs={"candidate_id": trial.candidate_id},
    )


def built(
    trials: Sequence[StudyTrial],
    distributions: Mapping[str, BaseDistribution] | None = None,
    **options: Any,
) -> optuna.Study:
    """Build the study of these trials. `options`: of `optuna.create_study`."""
    known, prior = distributions or distributions_of(trials, {}, 1), prior_of(trials)
    with _quiet():
        study = optuna.create_study(direction="maximize", **options)
    study.add_trials([frozen(trial, prior, known) for trial in trials])
    return study


FLAT = ("gp", "cmaes")  # samplers of all parameters at once


class AskTell:
    """The study of one run. The same trials and seed give the same proposals."""

    def __init__(self, sampler: str, seed: int) -> None:
        self._name, self._seed, self.asked = sampler, seed, 0
        self._space: Mapping[str, Sequence[str]] = {}
        self._trials: Sequence[StudyTrial] = ()
        self._known: dict[str, BaseDistribution] = {}
        self._study: Any = None
        self._trial: Any = None

    def tell(
        self, trials: Sequence[StudyTrial], space: Mapping[str, Sequence[str]], operators: Sequence[str], ranks: int
    ) -> None:
        """Tell all known trials; proposals that are not among them are dropped."""
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
        """Propose operator, and place of a design or rank of the parent. `by_chance`: at random."""
        with _quiet():
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
        """Choose a setting (OPERATOR.SETTING) of the latest operator out of `words` or earlier ones."""
        known = distributions_of(self._trials, {name: words}, 1)[name]
        with _quiet():
            sampler = self._random(name) if self._name in FLAT else self._sampler(name)
            pending = create_trial(state=State.RUNNING)
            return str(sampler.sample_independent(self._study, pending, name, known))

    def _word(self, name: str) -> str:
        return str(self._trial.suggest_categorical(name, self._known[name].choices))

    def _flat(self) -> dict[str, str | int]:
        ordinal = self._name == "cmaes"
        self._trial = self._study.ask(as_flat(self._known, ordinal))
        params = {name: _word_of(value, self._known[name], ordinal) for name, value in self._trial.params.items()}
        kept = (OPERATOR, *self._space) if params[OPERATOR] == FRESH else (OPERATOR, PARENT)
        return {name: params[name] for name in kept}

    def _seed_of(self, what: str) -> int:
        return int(content_id("s", [self._seed, self.asked, what])[2:], 16) % 2**32

    def _random(self, what: str = "") -> Any:
        return optuna.samplers.RandomSampler(seed=self._seed_of(what))

    def _sampler(self, what: str = "") -> Any:
        """CMA-ES starts at the best trials (Nomura et al. 2021), as its own state would have to be pickled."""
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
        return _tpe(seed, group=True)


def as_flat(known: Mapping[str, Any], ordinal: bool) -> dict[str, Any]:
    """Return distributions without conditions; `ordinal`: words become list positions."""
    if not ordinal:
        return dict(known)
    return {
        name: each if isinstance(each, IntDistribution) else IntDistribution(0, len(each.choices) - 1)
        for name, each in known.items()
    }


def flat_study(trials: Sequence[StudyTrial], known: Mapping[str, Any], ordinal: bool) -> Any:
    """Build a study without conditions; missing parameters get their first value."""
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


P_VALUE = 0.1  # optuna's default level for "worse than the best"


def behind_by_wilcoxon(scores: Mapping[str, Sequence[float | None]], rungs: Sequence[int]) -> dict[str, str]:
    """Return candidates behind the best of the highest rung by a signed-rank test, with reasons.

    Source: Wilcoxon 1945, "Individual Comparisons by Ranking Methods"; `optuna.pruners.WilcoxonPruner`.
    """
    given = {name: {i: v for i, v in enumerate(row) if v is not None} for name, row in scores.items()}
    given = {name: steps for name, steps in given.items() if steps}
    means = {name: sum(steps.values()) / len(steps) for name, steps in given.items()}
    highest = max((sum(len(scores[name]) >= rung for rung in rungs) for name in given), default=0)
    top = [name for name in given if sum(len(scores[name]) >= rung for rung in rungs) == highest]
    if not highest or len(given) < 2:
        return {}
    best = max(top, key=lambda name: means[name])
    study, reasons = built(()), dict[str, str]()
    study.add_trial(create_trial(value=means[best], intermediate_values=given[best]))
    with _quiet():
        pruner = optuna.pruners.WilcoxonPruner(p_threshold=P_VALUE, n_startup_steps=rungs[0])
        for name, steps in given.items():
            common = {row: value for row, value in steps.items() if row in given[best]}
            trial = create_trial(state=State.RUNNING, intermediate_values=common)
            if name != best and pruner.prune(study, trial):
                rival = f"{means[name]:.2f}, the best of them has {means[best]:.2f}"
                reasons[name] = f"behind after {len(steps)} paired rows by a signed-rank test: {rival}"
    return reasons
