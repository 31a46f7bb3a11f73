"""A run that is no search: it opens in the ledger, asks models through its own gateway, and closes whatever ends it.

A calibration, a check of a released prompt, a look at other models are errands; each says what it asks (`work`). What
was paid for is in the ledger however it ends. Knows no prompt, no metric and no command.
"""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from agent.errors import BudgetExhausted, Interrupted, LedgerError, message_of
from agent.gateway.budget import Account
from agent.gateway.concurrency import side_by_side
from agent.gateway.gateway import MAX_WAIT, Gateway
from agent.gateway.prices import Price, prices_version
from agent.ledger.origin import command_line, origin
from agent.ledger.store import Ledger
from agent.types import Budget, Task

Tell = Callable[[int, int, Account], None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Means:
    """What an errand is given to spend, and where it is written down. `use_cache` lets settled calls answer; `thinking`
    stands for the task's own where there is one."""

    run_id: str
    ledger: Ledger
    prices: dict[str, Price]
    budget: Budget
    seed: int = 0
    tell: Tell = lambda done, planned, account: None
    max_concurrency: int | None = None
    use_cache: bool = True
    max_wait: float = MAX_WAIT
    thinking: int | None = None
    say: Callable[[str], None] = lambda line: None


class Job(ABC):
    """`execute` returns the object of the command line's --json."""

    command = ""
    """The words of the command, as the ledger shows them."""
    kind = ""
    """What the run is; a tag of it."""
    done = ""
    """The event that says what came of it."""
    after_interrupt = "interrupted; the same command goes on, as every reply is in the ledger"

    def __init__(self, task: Task, models: Sequence[str], means: Means) -> None:
        task = task if means.thinking is None else replace(task, thinking=means.thinking)
        self.id, self.task, self._models, self._means = means.run_id, task, models, means
        self._ledger = means.ledger
        self._account = Account(means.budget, no_price=[name for name in models if name not in means.prices])
        self._gateway = Gateway(
            means.ledger,
            means.run_id,
            self._account,
            means.prices,
            means.max_concurrency,
            means.use_cache,
            self._on_call,
            means.say,
            jitter=random.Random(f"{means.seed}/{means.run_id}"),
            max_wait=means.max_wait,
            thinking=task.thinking,
        )
        self._stopped = ""

    @property
    @abstractmethod
    def planned(self) -> int:
        """Calls, at most."""

    @abstractmethod
    async def work(self) -> dict[str, Any]:
        """Asks, and says what came of it."""

    def noted(self, result: Mapping[str, Any]) -> Mapping[str, Any]:
        """What of the result goes into the chain for good; the whole of it is kept with the run."""
        return result

    async def execute(self) -> dict[str, Any]:
        """Raises Interrupted after `interrupt`, and what ends any run; replies that were bought are kept."""
        means = self._means
        self._ledger.begin_run(
            self.id,
            self.task,
            ", ".join(self._models),
            "",
            means.seed,
            asdict(means.budget),
            {"kind": self.kind},
            origin=origin(Path(self.task.folder), command_line()),
            options={"command": self.command},
            prices=prices_version(self._account.no_price),
        )
        try:
            result = await self.work()
            self._ledger.event(self.id, self.done, self.noted(result))
            self._ledger.end_run(self.id, "complete", self._account.seconds, result)
            await self._ledger.commit()
            return result
        except (Interrupted, asyncio.CancelledError, KeyboardInterrupt) as stop:
            await self._leave("interrupted", stop)
            raise Interrupted(self.after_interrupt) from stop
        except Exception as error:
            await self._leave("failed", error)
            raise

    def interrupt(self) -> int:
        """Lets no more calls out; `execute` ends when those in flight have landed. Returns how many these are."""
        self._gateway.stop(Interrupted())
        return self._gateway.in_flight()

    def waits_for(self) -> str:
        """Whom it waits for, and why; "" for nobody."""
        return self._gateway.waits_for()

    async def gathered(self, asked: Sequence[Awaitable[T]]) -> list[T | None]:
        """The answers in order; None where the budget had ended."""
        found = await side_by_side(asked)
        self._stopped = next((str(each) for each in found if isinstance(each, BudgetExhausted)), self._stopped)
        return [None if isinstance(each, BudgetExhausted) else each for each in found]

    def cost(self) -> dict[str, Any]:
        """What it took: calls by role, tokens, dollars, seconds; `lost_usd` are those of failed calls, at most,
        `limited` the requests that were refused as too many (429), which are no calls, `overspent` whether and why it
        passes a cap."""
        paid, usage = self._account.total_paid, self._account.usage
        calls = {role: spend.calls for role, spend in sorted(self._account.paid.items())}
        return {
            "calls": {**calls, "cached": self._account.cached},
            "tokens": {"prompt": usage.prompt_tokens, "completion": usage.completion_tokens},
            "limited": self._account.limited,
            "overspent": self._account.overspent(),
            "cost_usd": paid.usd,
            "lost_usd": self._account.lost_usd,
            "unpriced": list(self._account.unpriced),
            "seconds": round(self._account.seconds, 1),
        }

    async def _leave(self, status: str, why: BaseException) -> None:
        self._gateway.stop(why if isinstance(why, Exception) else Interrupted())
        await self._gateway.drain()
        try:
            words = message_of(why)
            self._ledger.event(self.id, "stopped", {"why": words})
            self._ledger.end_run(self.id, status, self._account.seconds, error=words if status == "failed" else "")
            await self._ledger.commit()
        except LedgerError:
            pass  # the disk is why it ends

    def _on_call(self) -> None:
        self._means.tell(self._account.total_used.calls, self.planned, self._account)
