"""A run from its start to its end in the ledger: weights, spending, event loop, interrupts. Knows no terminal."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from agent.errors import (
    AgentError,
    BudgetExhausted,
    InputError,
    Interrupted,
    LedgerError,
    ReleaseError,
    RunRefused,
    message_of,
)
from agent.gateway.batch_course import BatchSettings
from agent.gateway.batches import FRESH, Batches
from agent.gateway.budget import Account
from agent.gateway.gateway import CallSettings, Gateway
from agent.gateway.in_flight import InFlight, all_of, side_by_side
from agent.gateway.prices import Price, prices_for, prices_version
from agent.jobs.interrupts import StopSignal, watched
from agent.jobs.locations import ledger_option, releases_folder
from agent.jobs.models import fetch_weights, price_of, remarks, require_batches
from agent.jobs.observers import Changes, LedgerObserver, Watcher
from agent.jobs.tracking import NO_TRACKING, Tracking, run_params, tracked
from agent.jobs.work import Work
from agent.ledger.provenance import command_line, provenance
from agent.ledger.query import run_folder
from agent.ledger.store import Ledger, NewRun
from agent.models.model_registry import check_keys
from agent.observer import Observers
from agent.release.promotion import ReleaseRegistry
from agent.results.base import CostedResult
from agent.safe_text import counted
from agent.tracking.spans import NO_TRACER, CallTracer
from agent.types import CallRole

if TYPE_CHECKING:
    pass

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R", bound=CostedResult)

NOTHING_ANSWERED = "no call was made; fix this and run the same command again"
SEARCH_ROLES: tuple[CallRole, ...] = ("model", "proposer", "judge")
"""Roles whose calls a search reports even if there were none."""


class Session(Generic[R]):
    """One run: what it asks (`spec`), ledger, gateway, account and observers."""

    def __init__(
        self, spec: Work[R], ledger: Ledger, watcher: Watcher | None = None, prices: dict[str, Price] | None = None
    ) -> None:
        self.spec, self.ledger, self.options, self.seed = spec, ledger, spec.options, spec.seed
        self.watcher, self.prices = watcher or Watcher(), prices if prices is not None else {}
        self.id, self.folder = spec.run_id, run_folder(ledger.path.parent, spec.run_id)
        self.task = spec.options.applied_to(spec.task)
        self.models = list(spec.models) or [lm.name for lm in spec.lms[:1]]
        names = dict.fromkeys([*self.models, *(lm.name for lm in spec.lms)])
        self._unpriced = [name for name in names if name not in self.prices]
        self.account = Account(spec.budget, no_price=self._unpriced)
        if spec.kind and not spec.use_cache:
            since = (datetime.now(UTC) - FRESH).isoformat(timespec="milliseconds")
            self.account.past = ledger.left_by(spec.kind, self.task, ", ".join(self.models), since)
        self.report: Callable[[], None] = self._report
        self.observer = Observers(
            LedgerObserver(ledger, self.id, spec.programs), self.watcher, Changes(lambda: self.report())
        )
        self.tracer: CallTracer = NO_TRACER  # set before the run starts
        self.ends_as: Literal["complete", "budget"] = "complete"
        self.cancel_elsewhere: Callable[[], Awaitable[None]] | None = None
        """Cancels remote work when the user leaves at once. Quick, and raises nothing."""
        self.stopped = ""
        """Why the budget ended the calls; "" while it has not."""
        self._open_gateway: Gateway | None = None

    @property
    def gateway(self) -> Gateway:
        assert self._open_gateway is not None
        return self._open_gateway

    @property
    def model(self) -> str:
        """The name of the model that the run is named after."""
        return self.models[0]

    @property
    def status(self) -> Literal["complete", "budget"]:
        """Whether everything was asked, or the budget ended it early."""
        return "budget" if self.stopped else "complete"

    @property
    def resume_command(self) -> str:
        """The command that continues a search; "" for a job, which the same command continues."""
        return "" if self.spec.kind else f"optimize resume {self.id}{ledger_option(self.ledger.path)}"

    async def execute(self) -> R:
        """Run to the end; paid replies are kept. Raises Interrupted after `interrupt`, and whatever else ends it."""
        spec, options = self.spec, self.options
        self._begin()
        batches = None
        if options.is_batched:
            wait = None if options.batch_wait is None else float(options.batch_wait)
            how = BatchSettings(wait, options.batch_only, options.longest_wait, not spec.use_cache)
            batches = Batches(self.ledger, self.id, how, self.observer)
        jitter = random.Random(f"{self.seed}/{self.id}")
        settings = CallSettings(options, self.task.room(0), spec.use_cache, jitter)
        self._open_gateway = Gateway(self.ledger, self.id, self.account, self.prices, settings, self.observer, batches)
        self._open_gateway.tracer = self.tracer
        try:
            if spec.kind:
                self.report()
            result = await spec.perform(self)
            found = result.to_json()
            if spec.done:
                keys = spec.chained
                kept = keys(result) if callable(keys) else {key: found[key] for key in keys or found}
                self.observer.on_event(spec.done, kept)
            self.ledger.end_run(self.id, self.ends_as, self.account.seconds, found)
            await self.ledger.commit()
            return result
        except (Interrupted, asyncio.CancelledError, KeyboardInterrupt) as stop:
            await self._leave("interrupted", stop)
            raise Interrupted(spec.after_interrupt) from stop
        except Exception as error:
            await self._leave("failed", error)
            raise
        finally:
            for program in spec.programs:
                await program.close()
            await self.gateway.close()

    def _begin(self) -> None:
        spec, caps = self.spec, asdict(self.spec.budget)
        if spec.is_resumed:
            self.account = Account(spec.budget, self.ledger.resume_run(self.id, caps), self._unpriced)
            return
        self.ledger.begin_run(
            NewRun(
                self.id,
                self.task,
                ", ".join(self.models),
                spec.proposer,
                self.seed,
                caps,
                {"kind": spec.kind} if spec.kind else spec.tags,
                spec.parent,
                provenance(Path(self.task.folder), command_line()),
                {"command": spec.command or spec.kind} if spec.stored is None else spec.stored,
                prices_version(self._unpriced),
            )
        )
        if spec.plan is not None:
            self.ledger.set_plan(self.id, spec.plan)

    async def in_sets(self, sets: Sequence[Callable[[], Awaitable[S]]], in_turn: bool = False) -> list[S]:
        """Run groups of calls in order, or as one provider batch. `in_turn`: each needs the one before."""
        with self.gateway.together():
            if self.gateway.batches is None or in_turn:
                return [await each() for each in sets]
            return await all_of([each() for each in sets])

    async def ahead(self, sets: Sequence[Callable[[], Awaitable[object]]]) -> None:
        """Send sets of calls in advance, as one provider batch. The caller keeps the replies."""
        if self.gateway.batches is not None:
            with suppress(BudgetExhausted):  # told in its turn
                await self.in_sets(sets, in_turn=self.task.is_compared)

    async def gathered(self, calls: Sequence[Awaitable[T]]) -> list[T | None]:
        """Return the answers in order; None for those after the end of the budget."""
        answers = await side_by_side(calls)
        self.stopped = next((str(each) for each in answers if isinstance(each, BudgetExhausted)), self.stopped)
        return [None if isinstance(each, BudgetExhausted) else each for each in answers]

    def interrupt(self) -> int:
        """Stop new calls, so that `execute` ends after those in flight. Returns their number."""
        if (gateway := self._open_gateway) is None:
            return 0
        gateway.stop(Interrupted())
        return gateway.in_flight()

    def in_flight(self) -> InFlight:
        """Return the calls that it waits for."""
        return self._open_gateway.waiting() if self._open_gateway else InFlight()

    def spent(self) -> dict[str, Any]:
        """Return the fields of `CostedResult` so far."""
        account, usage = self.account, self.account.usage
        paid: dict[str, int] = {role: spend.calls for role, spend in sorted(account.paid.items())}
        return {
            "calls": {**({} if self.spec.kind else dict.fromkeys(SEARCH_ROLES, 0)), **paid, "cached": account.cached},
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

    def _report(self) -> None:
        used, retries = self.account.total_used.calls, self.gateway.retries.count
        self.watcher.on_job_progress(used, self.spec.planned, self.account, retries)

    async def _leave(self, status: str, why: BaseException) -> None:
        self.gateway.stop(why if isinstance(why, Exception) else Interrupted())
        await self.gateway.drain()  # so that calls in flight need not be bought again
        if (batches := self.gateway.batches) is not None:
            comes_back = f"`{self.resume_command}`" if self.resume_command else "the same command"
            if left := batches.left():
                ids = [each for several in left.values() for each in several]
                go, them = ("es go", "them") if len(ids) > 1 else (" goes", "it")
                ending = " and ".join(f"`optimize batch cancel {run}{ledger_option(self.ledger.path)}`" for run in left)
                self.watcher.warn(
                    f"{len(ids)} batch{go} on at the provider ({', '.join(ids)}): {comes_back} takes what comes, "
                    f"{ending} end{'s' if len(left) == 1 else ''} {them}"
                )
            if over := [each for several in batches.left(is_over=True).values() for each in several]:
                ended = f"{counted(len(over), 'batch has', 'batches have')} ended at the provider ({', '.join(over)})"
                self.watcher.warn(f"{ended}: {comes_back} takes the results")
        try:
            message = message_of(why)
            calls = {} if self.spec.kind else {"calls": self.account.total_paid.calls}
            self.observer.on_event("stopped", {"why": message, **calls})
            self.ledger.end_run(self.id, status, self.account.seconds, error=message if status == "failed" else "")
            await self.ledger.commit()
        except LedgerError:
            pass  # the disk is why it ends; the next opening of the ledger notes that the run was cut off


def run_work(
    spec: Work[R], db: Path, watcher: Watcher, stop: StopSignal | None = None, tracking: Tracking = NO_TRACKING
) -> R:
    """Download missing weights, announce the run, and run it in this thread.

    The first Ctrl-C, or `stop` from another thread, lets calls in flight finish, the second leaves at once; both raise
    Interrupted. Raises InputError if a file or a key is missing, or an option is wrong, before the first call. An error
    that ends a search early has its id (`run_id`) and the command that resumes it (`hint`).
    """
    lms, options = spec.lms, spec.options
    names = list(dict.fromkeys(lm.name for lm in lms))
    if options.is_batched:
        require_batches(lms)
    fetch_weights(names, watcher.download)
    if spec.opening:
        watcher.on_message(spec.opening)
    check_keys(lms)
    prices = prices_for(names, spec.budget, price_of(options), spec.prices)
    for line in remarks(lms, price_of(options), spec.prices) if spec.kind else ():
        watcher.on_message(line)
    with tracked(tracking, db, watcher.warn) as shown:
        with closing(Ledger(db)) as ledger:
            try:  # moves of aliases that a kill, or a busy ledger, kept out of the chain
                ReleaseRegistry(releases_folder(db)).catch_up(ledger)
            except ReleaseError as error:
                watcher.warn(f"warning: {error}")
            session = Session(spec, ledger, watcher, prices)
            is_continued = spec.is_resumed or bool(session.account.past.left)
            known = [lm for lm in lms if is_continued or (spec.use_cache and ledger.has_replies(lm.name, session.task))]
            new = [lm for lm in lms if lm not in known]
            shown.begin(
                session,
                spec.params or run_params(session.task, names, spec.budget, command=spec.command or spec.kind),
                spec.tags,
            )
            try:
                result = asyncio.run(watched(session, new, stop))
            except AgentError as error:
                if session.resume_command and not isinstance(error, InputError):
                    is_mistake = isinstance(error, RunRefused) and error.status and not session.account.total_used.calls
                    error.hint = NOTHING_ANSWERED if is_mistake else session.resume_command
                    error.run_id = session.id
                raise
        shown.finish(result)
    return result
