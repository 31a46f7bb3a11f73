"""What a job that asks models prepares: checked, and ready to start."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from agent.ledger.provenance import new_run_id
from agent.options.shared import SpendingOptions
from agent.results.base import CostedResult
from agent.types import LM, Budget, Task

if TYPE_CHECKING:
    from agent.gateway.prices import Price
    from agent.jobs.session import Session
    from agent.search.program import Describes

R = TypeVar("R", bound=CostedResult)


@dataclass(frozen=True, slots=True)
class Work(Generic[R]):
    """A job that asks models, checked and ready to start.

    `kind` is "" for a search, `done` the event of its result ("": none), `chained` the keys of the result in that event
    or a function that makes them. The run is named after the first of `lms`. `prices` are those of an earlier run,
    `stored` its options for the ledger (None: the command), and `programs` describe its candidates. `ended` is called
    on the command line once the result is printed, for the exit code.
    """

    kind: str
    done: str
    perform: Callable[[Session[R]], Awaitable[R]]
    task: Task
    lms: Sequence[LM]
    options: SpendingOptions
    planned: int
    budget: Budget
    command: str = ""
    models: Sequence[str] = ()
    chained: Sequence[str] | Callable[[R], Mapping[str, Any]] = ()
    use_cache: bool = True
    prices: Mapping[str, Price] = field(default_factory=dict)
    seed: int = 0
    after_interrupt: str = "interrupted; the same command continues, as every reply is in the ledger"
    opening: str = ""
    ended: Callable[[R], int] | None = None
    programs: Sequence[Describes] = ()
    stored: Mapping[str, Any] | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    plan: Mapping[str, Any] | None = None
    proposer: str = ""
    parent: str | None = None
    run_id: str = field(default_factory=new_run_id)
    is_resumed: bool = False
    params: Mapping[str, Any] | None = None
