"""Registry of strategies, samplers and pruners; a strategy is loaded on first use.

A strategy is one function that registers itself (see `context.py`):

    @strategy("random", about="Designs at random.")
    async def search(context: SearchContext) -> None: ...
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

from agent.errors import InputError
from agent.registry import Registry

if TYPE_CHECKING:
    from agent.search.context import SearchContext
    from agent.search.plan import Plan
    from agent.types import Task

Search = Callable[["SearchContext"], Coroutine[Any, Any, None]]
Enough = Callable[["Task", "Plan", int], bool]
"""Whether a plan leaves the search enough calls; the number is `Plan.calls_each`."""
Function = TypeVar("Function", bound=Search)

DEFAULT = "evolve"
FORMER = "bayes"  # the former name of `evolve`; still accepted
DSPY = ("dspy-mipro", "dspy-gepa", "dspy-bootstrap")


def always(task: Task, plan: Plan, calls_each: int) -> bool:
    """Accept any plan: the `Enough` of a strategy without a minimum."""
    return True


@dataclass(frozen=True, slots=True)
class Strategy:
    """A registered search.

    `kinds`: of candidates; none: all. `counts_trials`: whether it heeds --trials. `uses_logprobs`: of
    labels, to rank equal scores. `enough`: whether a plan leaves it enough calls, and what it `lacks` if none does.
    `races_baseline`: the user's own prompt is raced like the others; else it sees all of dev first. `needs_proposer`:
    it is useless without a model that writes instructions.
    """

    name: str
    about: str
    search: Search
    kinds: tuple[str, ...] = ()
    counts_trials: bool = True
    uses_logprobs: bool = False
    enough: Enough = always
    lacks: str = ""
    races_baseline: bool = False
    needs_proposer: bool = False

    def suits(self, kind: str) -> bool:
        return kind in self.kinds or not self.kinds

    def require(self, trials: int | None, has_proposer: bool) -> None:
        """Raise InputError for an unsuitable number of trials, or a missing proposer."""
        if not self.counts_trials and (trials or 1) > 1:
            what = "tries as many programs as the budget buys; cap --max-calls instead"
            raise InputError(f"--trials: {self.name} {what}")
        if self.needs_proposer and not has_proposer and trials != 1:
            raise InputError(f"--strategy {self.name}: has a model write instructions; leave out --proposer none")


STRATEGIES: Registry[Strategy] = Registry(
    "strategy",
    "promptassay.strategies",
    {DEFAULT: "agent.search.evolve.evolve", **dict.fromkeys(DSPY, "agent.search.dspy.sizes")},
    aliases={FORMER: DEFAULT},
)


def strategy(name: str, *, about: str, **traits: Any) -> Callable[[Function], Function]:
    """Register the search below as the strategy `name`; `traits` are the other fields of `Strategy`."""

    def register(search: Function) -> Function:
        STRATEGIES.add(name, Strategy(name, about, search, **traits), search.__module__)
        return search

    return register


# -- samplers and pruners of the default strategy ---------------------------------------------------------------------

BANDIT = "bandit"  # the default: a bandit draws operators, TPE proposes new designs
STUDY_SAMPLERS = ("tpe", "gp", "cmaes", "random")  # samplers of the run's study, which decides everything
SAMPLERS = (BANDIT, *STUDY_SAMPLERS)
RACE = "race"  # the default: paired, and valid at every look (`stats/racing.py`)
WILCOXON = "wilcoxon"
PRUNERS = (RACE, WILCOXON)
NEEDS = {"gp": "torch", "cmaes": "cmaes"}  # the package that a sampler needs; no extra installs it


def require_search(strategy: str, sampler: str, pruner: str) -> None:
    """Raise InputError for an unknown, unavailable or unsuitable sampler or pruner."""
    for option, name, known, usual in (("sampler", sampler, SAMPLERS, BANDIT), ("pruner", pruner, PRUNERS, RACE)):
        if name not in known:
            raise InputError(f"--{option} {name}: write one of {', '.join(known)}")
        if name != usual and strategy != DEFAULT:
            raise InputError(f"--{option} {name}: {strategy} uses none; leave it out, or use --strategy {DEFAULT}")
    package = NEEDS.get(sampler)
    if package is not None and find_spec(package) is None:
        raise InputError(f"--sampler {sampler} needs {package}, which is not installed; pip install {package}")
