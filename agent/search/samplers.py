"""What proposes the next candidate and what ends a losing one, by the names that the command line takes."""

from __future__ import annotations

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
    """Refuses a sampler or a pruner that cannot work.

    Args:
        strategy: the name of the run's strategy.
        sampler: one of `SAMPLERS`.
        pruner: one of `PRUNERS`.

    Raises:
        InputError: one is unknown, lacks a package, or is not what the strategy goes by.
    """
    for option, name, known, usual in (("sampler", sampler, SAMPLERS, BANDIT), ("pruner", pruner, PRUNERS, RACE)):
        if name not in known:
            raise InputError(f"--{option} {name}: write one of {', '.join(known)}")
        if name != usual and strategy != DEFAULT:
            raise InputError(f"--{option} {name}: {strategy} goes by none; leave it out, or take --strategy {DEFAULT}")
    package = NEEDS.get(sampler)
    if package is not None and find_spec(package) is None:
        raise InputError(f"--sampler {sampler} needs {package}, which is not installed; pip install {package}")
