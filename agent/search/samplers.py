"""What proposes the next candidate and what ends a losing one, by the names that the command line takes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec

from agent.errors import InputError
from agent.search.registered import DEFAULT

BANDIT = "bandit"
"""Ours: a bandit draws the operator, and TPE the places of new designs."""
STUDY_SAMPLERS = ("tpe", "gp", "cmaes", "random")
"""Samplers of the run's study, which then decides all."""
SAMPLERS = (BANDIT, *STUDY_SAMPLERS)
RACE = "race"
"""Ours: paired, and valid at every look (`stats/racing.py`)."""
WILCOXON = "wilcoxon"
PRUNERS = (RACE, WILCOXON)
NEEDS = {"gp": "torch", "cmaes": "cmaes"}
"""By sampler, the package that it takes; no extra brings it."""


def require_search(strategy: str, sampler: str, pruner: str) -> None:
    """Raise InputError for a sampler or pruner that is unknown, lacks a package, or is not for the strategy."""
    for option, name, known, usual in (("sampler", sampler, SAMPLERS, BANDIT), ("pruner", pruner, PRUNERS, RACE)):
        if name not in known:
            raise InputError(f"--{option} {name}: write one of {', '.join(known)}")
        if name != usual and strategy != DEFAULT:
            raise InputError(f"--{option} {name}: {strategy} goes by none; leave it out, or take --strategy {DEFAULT}")
    package = NEEDS.get(sampler)
    if package is not None and find_spec(package) is None:
        raise InputError(f"--sampler {sampler} needs {package}, which is not installed; pip install {package}")


P_VALUE = 0.1
"""Optuna's own default: how sure the test must be that a candidate is worse than the best one."""


def behind_by_wilcoxon(scores: Mapping[str, Sequence[float | None]], rungs: Sequence[int]) -> dict[str, str]:
    """Find candidates that a signed-rank test on common rows finds worse than the best, with the reason.

    `scores`: by candidate its score on each of the first rows; None: no score. `rungs`: rising row counts; the best is
    the one with the best mean of those that are on the highest rung.

    Source: Wilcoxon 1945, "Individual Comparisons by Ranking Methods"; `optuna.pruners.WilcoxonPruner`.
    """
    import optuna
    from optuna.trial import TrialState, create_trial

    given = {name: {i: v for i, v in enumerate(row) if v is not None} for name, row in scores.items()}
    given = {name: steps for name, steps in given.items() if steps}
    means = {name: sum(steps.values()) / len(steps) for name, steps in given.items()}
    highest = max((sum(len(scores[name]) >= rung for rung in rungs) for name in given), default=0)
    top = [name for name in given if sum(len(scores[name]) >= rung for rung in rungs) == highest]
    if not highest or len(given) < 2:
        return {}
    best = max(top, key=lambda name: means[name])
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize")
    study.add_trial(create_trial(value=means[best], intermediate_values=given[best]))
    reasons = dict[str, str]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # optuna marks it as experimental
        pruner = optuna.pruners.WilcoxonPruner(p_threshold=P_VALUE, n_startup_steps=rungs[0])
        for name, steps in given.items():
            common = {row: value for row, value in steps.items() if row in given[best]}
            trial = create_trial(state=TrialState.RUNNING, intermediate_values=common)
            if name != best and pruner.prune(study, trial):
                rival = f"{means[name]:.2f}, the best of them has {means[best]:.2f}"
                reasons[name] = f"behind after {len(steps)} paired rows by a signed-rank test: {rival}"
    return reasons
