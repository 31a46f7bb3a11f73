"""The registry of strategies, by the name that the command line takes; each is loaded only when it is used.

A strategy is one function that registers itself (see `context.py`):

    @strategy("random", about="Designs at random.")
    async def search(context: SearchContext) -> None: ...
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
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
FORMER = "bayes"
"""The former name of `evolve`, which still works."""
DSPY = ("dspy-mipro", "dspy-gepa", "dspy-bootstrap")


def always(task: Task, plan: Plan, calls_each: int) -> bool:
    """The `Enough` of a strategy that can do something with any plan."""
    return True


@dataclass(frozen=True, slots=True)
class Strategy:
    """A registered search.

    Args:
        name: in --strategy.
        about: a line of help.
        search: the search itself.
        kinds: of candidates that it works on; none: all that have moves (`Program.moves`).
        counts_trials: whether it heeds --trials, by `SearchContext.more` before each trial.
        uses_logprobs: whether log-probabilities of labels are requested, to rank equal scores.
        enough: whether a plan leaves it enough calls; a run with fewer is refused before its first call.
        lacks: what is missing where no number of calls is enough.
        races_baseline: whether the user's own prompt is raced as the candidates are; else it sees all of dev before.
        needs_proposer: whether it comes to nothing without a model that writes instructions.
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

    def suits(self, kind: str, moves: bool = True) -> bool:
        return kind in self.kinds or (moves and not self.kinds)

    def require(self, kind: str, trials: int | None, has_proposer: bool) -> None:
        """Raise InputError where it does not work on this kind, does not heed the number of trials, or lacks a
        proposer."""
        if not self.suits(kind):
            raise InputError(
                f"--strategy {self.name}: works on {', '.join(self.kinds)}, and this task's kind is {kind}"
            )
        if not self.counts_trials and (trials or 1) > 1:
            raise InputError(
                f"--trials: {self.name} tries as many programs as the budget buys; cap --max-calls instead"
            )
        if self.needs_proposer and not has_proposer and trials != 1:
            raise InputError(f"--strategy {self.name}: has a model write instructions; leave out --proposer none")


STRATEGIES: Registry[Strategy] = Registry(
    "strategy",
    "promptassay.strategies",
    {DEFAULT: "agent.search.evolve.evolve", **dict.fromkeys(DSPY, "agent.search.dspy.strategies")},
    aliases={FORMER: DEFAULT},
)


def strategy(name: str, *, about: str, **traits: Any) -> Callable[[Function], Function]:
    """Register the search below as the strategy `name`; `traits` are the other fields of `Strategy`."""

    def register(search: Function) -> Function:
        STRATEGIES.add(name, Strategy(name, about, search, **traits), search.__module__)
        return search

    return register
