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

Search = Callable[["SearchContext"], Coroutine[Any, Any, None]]
Function = TypeVar("Function", bound=Search)

DEFAULT = "bayes"
DSPY = ("dspy-mipro", "dspy-gepa", "dspy-bootstrap")


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """A registered search. `kinds`: of candidates that it works on; without any, all that have moves (`Program.moves`).
    `counts_trials`: whether it asks `SearchContext.more` before each trial, and so heeds --trials."""

    name: str
    about: str
    search: Search
    kinds: tuple[str, ...] = ()
    counts_trials: bool = True

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
)


def strategy(
    name: str, *, about: str, kinds: tuple[str, ...] = (), counts_trials: bool = True
) -> Callable[[Function], Function]:
    """Registers the search below as the strategy `name`; see `Strategy`."""

    def register(search: Function) -> Function:
        made = Strategy(name=name, about=about, search=search, kinds=kinds, counts_trials=counts_trials)
        STRATEGIES.add(name, made, search.__module__)
        return search

    return register
