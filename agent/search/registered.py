"""Which strategies there are, by the name that the command line takes. Each is loaded only when it is used.

A strategy is one function that registers itself:

    @strategy("random", about="Designs at random.")
    async def search(context: SearchContext) -> None: ...

What it may do, and how it ends, says `context.py`.
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
"""Whether the calls that a plan leaves to the search are enough for it, where a row takes so many calls of the target
for each that the plan counts."""
Function = TypeVar("Function", bound=Search)

DEFAULT = "evolve"
FORMER = "bayes"
"""What `evolve` was called; the name still works wherever a strategy is named."""
DSPY = ("dspy-mipro", "dspy-gepa", "dspy-bootstrap")


def always(task: Task, plan: Plan, calls_each: int) -> bool:
    """The `Enough` of a strategy that can do something with any plan."""
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """A registered search.

    Args:
        name: in --strategy.
        about: a line of help.
        search: the search itself.
        kinds: of candidates that it works on; without any, all that have moves (`Program.moves`).
        counts_trials: whether it asks `SearchContext.more` before each trial, and so heeds --trials.
        uses_logprobs: whether the log-probabilities of labels are asked for, to tell equal scores apart.
        enough: whether a plan leaves it enough calls; a run with fewer is refused before its first call.
        lacks: what is missing where no number of calls is enough.
    """

    name: str
    about: str
    search: Search
    kinds: tuple[str, ...] = ()
    counts_trials: bool = True
    uses_logprobs: bool = False
    enough: Enough = always
    lacks: str = ""

    def suits(self, kind: str, moves: bool = True) -> bool:
        """Whether it works on this kind, which has moves or not."""
        return kind in self.kinds or (moves and not self.kinds)

    def require(self, kind: str, trials: int | None) -> None:
        """Raises InputError where it does not work on this kind, or would not heed a number of trials."""
        if not self.suits(kind):
            raise InputError(
                f"--strategy {self.name}: works on {', '.join(self.kinds)}, and this task's kind is {kind}"
            )
        if not self.counts_trials and (trials or 1) > 1:
            raise InputError(
                f"--trials: {self.name} tries as many programs as the budget buys; cap --max-calls instead"
            )


STRATEGIES: Registry[Strategy] = Registry(
    "strategy",
    "promptassay.strategies",
    {DEFAULT: "agent.search.evolve.evolve", **dict.fromkeys(DSPY, "agent.search.dspy.strategies")},
    aliases={FORMER: DEFAULT},
)


def strategy(
    name: str,
    *,
    about: str,
    kinds: tuple[str, ...] = (),
    counts_trials: bool = True,
    uses_logprobs: bool = False,
    enough: Enough = always,
    lacks: str = "",
) -> Callable[[Function], Function]:
    """Registers the search below as the strategy `name`; see `Strategy`."""

    def register(search: Function) -> Function:
        made = Strategy(
            name=name,
            about=about,
            search=search,
            kinds=kinds,
            counts_trials=counts_trials,
            uses_logprobs=uses_logprobs,
            enough=enough,
            lacks=lacks,
        )
        STRATEGIES.add(name, made, search.__module__)
        return search

    return register
