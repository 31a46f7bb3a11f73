"""What every run that asks models shares: it opens in the ledger, spends through its own gateway, and ends in order.

A search (`optimize.py`) is such a run. A calibration, a check of a released prompt and a transfer to other models are
jobs: each says what it asks (`work`). What was paid for is in the ledger however a run ends.
"""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from agent.errors import BudgetExhausted, Interrupted, LedgerError, message_of
from agent.gateway.batch_course import BatchSettings
from agent.gateway.batches import Batches
from agent.gateway.budget import Account
from agent.gateway.concurrency import all_of, side_by_side
from agent.gateway.gateway import Gateway
from agent.gateway.in_flight import InFlight
from agent.gateway.prices import Price, prices_version
from agent.ledger.provenance import command_line, provenance
from agent.ledger.resume_state import ResumeState
from agent.ledger.store import Ledger
from agent.observer import Observer, Observers
from agent.options.shared import SpendingOptions
from agent.results.base import CostedResult
from agent.run.locations import ledger_option
from agent.run.observers import Changes, LedgerObserver, Watcher
from agent.search.program import Describes
from agent.task.words import counted
from agent.tracking.spans import NO_TRACER, CallTracer
from agent.types import Budget, CallRole, Task

T = TypeVar("T")
S = TypeVar("S")
R = TypeVar("R", bound=CostedResult)


@dataclass(frozen=True, slots=True)
class Resources:
    """What a run may spend, where it is written down, and what shows it.

    Args:
        run_id: the run's id in the ledger.
        ledger: open for writing.
        prices: of its models, by name.
        options: caps, and how models are asked.
        observer: shows the run.
        seed: at least 0.
        use_cache: lets settled calls of the ledger answer.
    """

    run_id: str
    ledger: Ledger
    prices: dict[str, Price]
    options: SpendingOptions
    observer: Watcher = field(default_factory=Watcher)
    seed: int = 0
    use_cache: bool = True
    budget: Budget | None = None
    """Other caps than those of the options."""

    @property
    def caps(self) -> Budget:
        """Hard caps over all its calls."""
        return self.options.budget if self.budget is None else self.budget


class LedgerRun(ABC, Generic[T]):
    """A run from its entry in the ledger to its end there.

    Args:
        task: what it is a run of.
        models: the names of its models, each once.
        resources: what it may spend, and where it is written down.
        programs: describe the candidates that it writes down.
    """

    after_interrupt = str(Interrupted())
    """The message of the Interrupted that it then raises."""
    roles: tuple[CallRole, ...] = ()
    """Roles whose calls are told even when there were none."""

    def __init__(
        self, task: Task, models: Sequence[str], resources: Resources, programs: Sequence[Describes] = ()
    ) -> None:
        self.id, self.task, self.ledger, self._resources = resources.run_id, task, resources.ledger, resources
        self._unpriced = [name for name in models if name not in resources.prices]
        self.account = Account(resources.caps, no_price=self._unpriced)
        records = LedgerObserver(self.ledger, self.id, programs)
        self._observer = Observers(records, resources.observer, Changes(self._report))
        self._open_gateway: Gateway | None = None
        self.tracer: CallTracer = NO_TRACER
        """Makes a span of each call; set before the run begins."""

    def observe(self, observer: Observer) -> None:
        """Has one more observer follow the run, which has not begun."""
        self._observer.add(observer)

    @property
    def _gateway(self) -> Gateway:
        assert self._open_gateway is not None
        return self._open_gateway

    async def execute(self) -> T:
        """Runs to the end. Raises Interrupted after `interrupt`, and whatever else ends it; paid replies are kept."""
        past, resources = self._begin(), self._resources
        options, batches = resources.options, None
        if options.is_batched:
            wait = None if options.batch_wait is None else float(options.batch_wait)
            how = BatchSettings(wait, options.batch_only)
            batches = Batches(self.ledger, self.id, how, self._observer, options.longest_wait, not resources.use_cache)
        self._open_gateway = Gateway(
            self.ledger,
            self.id,
            self.account,
            resources.prices,
            options.max_concurrency,
            resources.use_cache,
            self._observer,
            jitter=random.Random(f"{resources.seed}/{self.id}"),
            past=past,
            max_wait=options.longest_wait,
            thinking=self.task.thinking,
            batches=batches,
            tracer=self.tracer,
        )
        try:
            result = await self._perform()
            await self.ledger.commit()
            return result
        except (Interrupted, asyncio.CancelledError, KeyboardInterrupt) as stop:
            await self._leave("interrupted", stop)
            raise Interrupted(self.after_interrupt) from stop
        except Exception as error:
            await self._leave("failed", error)
            raise
        finally:
            await self._gateway.close()

    @property
    def comes_back(self) -> str:
        """The command that goes on with what was left at a provider."""
        return "the same command"

    async def _sets(self, sets: Sequence[Callable[[], Awaitable[S]]], in_turn: bool = False) -> list[S]:
        """The results of fixed sets of calls, one set after the other; where calls go as batches, all sets as one.

        Args:
            sets: each asks the calls of one.
            in_turn: whether a set needs what the one before it brought.
        """
        with self._gateway.together():
            if self._gateway.batches is None or in_turn:
                return [await each() for each in sets]
            return await all_of([each() for each in sets])

    def interrupt(self) -> int:
        """Lets no more calls out; `execute` ends when those in flight have landed. Returns how many these are."""
        if self._open_gateway is None:
            return 0
        self._open_gateway.stop(Interrupted())
        return self._open_gateway.in_flight()

    async def abandon(self) -> None:
        """Ends what it has started elsewhere and would go on: the user leaves at once. Quick, and raises nothing."""

    def in_flight(self) -> InFlight:
        """The calls that it waits for."""
        return self._open_gateway.waiting() if self._open_gateway else InFlight()

    @abstractmethod
    def _begin(self) -> ResumeState | None:
        """Opens the run in the ledger; what is known of it already, where it is resumed."""

    @abstractmethod
    async def _perform(self) -> T:
        """All between begin and end. Ends the run in the ledger when it is complete."""

    @abstractmethod
    def _report(self) -> None:
        """Shows the watcher how far it is."""

    def _begin_new(
        self, model: str, proposer: str, tags: Mapping[str, str], options: Mapping[str, Any], parent: str | None = None
    ) -> None:
        """Opens a new run in the ledger."""
        self.ledger.begin_run(
            self.id,
            self.task,
            model,
            proposer,
            self._resources.seed,
            asdict(self._resources.caps),
            tags,
            parent=parent,
            origin=provenance(Path(self.task.folder), command_line()),
            options=options,
            prices=prices_version(self._unpriced),
        )

    def spent(self) -> dict[str, Any]:
        """The fields of `CostedResult`, so far."""
        account, usage = self.account, self.account.usage
        paid: dict[str, int] = {role: spend.calls for role, spend in sorted(account.paid.items())}
        return {
            "calls": {**dict.fromkeys(self.roles, 0), **paid, "cached": account.cached},
            "tokens": {
                "prompt": usage.prompt_tokens,
                "cached_prompt": usage.cached_prompt_tokens,
                "completion": usage.completion_tokens,
            },
            "limited": account.limited,
            "overspent": account.overspent(),
            "cost_usd": account.total_paid.usd,
            "lost_usd": account.lost_usd,
            "unpriced": tuple(account.unpriced),
            "seconds": round(account.seconds, 1),
            "ledger_head": self.ledger.head(),
        }

    def _spent(self) -> Mapping[str, Any]:
        """What the event of an early end says beside why."""
        return {}

    async def _leave(self, status: str, why: BaseException) -> None:
        """Ends a run that did not finish: what is in flight lands first, so that it need not be bought again."""
        self._gateway.stop(why if isinstance(why, Exception) else Interrupted())
        await self._gateway.drain()
        if (batches := self._gateway.batches) is not None:
            if left := batches.left():
                self._resources.observer.warn(self._said_of(left))
            if over := [each for several in batches.left(is_over=True).values() for each in several]:
                verb, whose = ("have", "their") if len(over) > 1 else ("has", "its")
                self._resources.observer.warn(
                    f"{counted(len(over), 'batch', 'batches')} {verb} ended at the provider ({', '.join(over)}): "
                    f"{self.comes_back} takes {whose} results"
                )
        try:
            message = message_of(why)
            self._observer.on_event("stopped", {"why": message, **self._spent()})
            self.ledger.end_run(self.id, status, self.account.seconds, error=message if status == "failed" else "")
            await self.ledger.commit()
        except LedgerError:
            pass  # the disk is why it ends; the next opening of the ledger notes that the run was cut off

    def _said_of(self, left: Mapping[str, Sequence[str]]) -> str:
        """What is said of batches that go on, by the runs that began them."""
        ids = [each for several in left.values() for each in several]
        go, them = ("es go", "them") if len(ids) > 1 else (" goes", "it")
        ending = " and ".join(f"`optimize batch cancel {run}{ledger_option(self.ledger.path)}`" for run in left)
        return (
            f"{len(ids)} batch{go} on at the provider ({', '.join(ids)}): {self.comes_back} takes what comes, "
            f"{ending} end{'s' if len(left) == 1 else ''} {them}"
        )


class Job(LedgerRun[R]):
    """A run that is no search."""

    command = ""
    """The words of the command, as the ledger shows them."""
    kind = ""
    """What the run is; a tag of it."""
    done = ""
    """The event of its result."""
    chained: tuple[str, ...] = ()
    """Keys of the result that the event keeps in the chain for good; () for all."""
    after_interrupt = "interrupted; the same command goes on, as every reply is in the ledger"

    def __init__(self, task: Task, models: Sequence[str], resources: Resources) -> None:
        thinking = resources.options.thinking
        task = task if thinking is None else replace(task, thinking=thinking)
        super().__init__(task, models, resources)
        self._models, self._stopped = models, ""

    @property
    @abstractmethod
    def planned(self) -> int:
        """Calls, at most."""

    @abstractmethod
    async def work(self) -> R:
        """Asks, and returns the result."""

    def for_chain(self, result: R) -> Mapping[str, Any]:
        """What of the result goes into the chain for good; the whole of it is kept with the run."""
        found = result.to_json()
        return {key: found[key] for key in self.chained or found}

    def _begin(self) -> None:
        self._begin_new(", ".join(self._models), "", {"kind": self.kind}, {"command": self.command})

    async def _perform(self) -> R:
        self._report()
        result = await self.work()
        self._observer.on_event(self.done, self.for_chain(result))
        self.ledger.end_run(self.id, "complete", self.account.seconds, result.to_json())
        return result

    async def gathered(self, calls: Sequence[Awaitable[T]]) -> list[T | None]:
        """The answers in order; None where the budget had ended."""
        answers = await side_by_side(calls)
        self._stopped = next((str(each) for each in answers if isinstance(each, BudgetExhausted)), self._stopped)
        return [None if isinstance(each, BudgetExhausted) else each for each in answers]

    def _report(self) -> None:
        used, retries = self.account.total_used.calls, self._gateway.retries.count
        self._resources.observer.on_job_progress(used, self.planned, self.account, retries)
