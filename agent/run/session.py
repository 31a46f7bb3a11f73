"""A run from its start to its end: weights, ledger, event loop, and what a Ctrl-C does. Knows no terminal.

The command line and `api.py` start a search with `start`, and all else that asks models with `run_job`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from agent.errors import AgentError, InputError, Interrupted, ReleaseError, RunRefused
from agent.observer import Observer
from agent.run.interrupts import Stop, catch_signals, stopping
from agent.run.launch import Launch, price_of, remarks, require_batches
from agent.run.locations import ledger_option, releases_folder
from agent.run.observers import Watcher
from agent.run.tracking import NO_TRACKING, TrackedRun, Tracking, job_params, search_params, tracked

if TYPE_CHECKING:
    from agent.gateway.in_flight import InFlight
    from agent.gateway.prices import Price
    from agent.ledger.store import Ledger
    from agent.options.shared import SpendingOptions
    from agent.release.result import RunResult
    from agent.results.base import CostedResult
    from agent.run.job import Job, LedgerRun, Resources
    from agent.run.optimize import Resumed
    from agent.types import LM, Budget, Task

_T = TypeVar("_T")
_R = TypeVar("_R", bound="CostedResult")

NOTHING_ANSWERED = "nothing was answered: mend this, then type the same command again"
WAITS_SECONDS = 5.0
"""How often it is looked whether a run waits for a provider."""
BEAT_SECONDS = 0.5
"""How often a watcher is given what a run waits for."""


def fetch_weights(models: Iterable[str], download: Callable[[int, int], None]) -> None:
    """Fetches the weights of embedded models that are not here yet, and checks the adapters that go with them.

    Raises InputError with all of the user's own files with which no call can work.
    """
    from agent.models.adapters import SUFFIX, split_adapter
    from agent.models.model_registry import require_files
    from agent.models.weights import fetch

    names = list(models)
    require_files(names)
    for name in names:
        kind, _, rest = name.partition("/")
        if kind == "local" and not (base := split_adapter(rest)[0]).endswith(SUFFIX):
            fetch(base, download)
    require_files(names)  # with the weights at hand


def start(
    launch: Launch,
    db: Path,
    watcher: Watcher,
    resumed: Resumed | None = None,
    stop: Stop | None = None,
    tracking: Tracking = NO_TRACKING,
) -> RunResult:
    """Fetches weights that are not here yet, says what is about to run, and runs it in an event loop of this thread.

    The first Ctrl-C lets what is in flight land, the second leaves at once; both end in Interrupted.

    Args:
        launch: the run.
        db: the ledger.
        watcher: shows the run while it goes on.
        resumed: the run to go on with. None: a new one.
        stop: interrupts it from another thread.
        tracking: where it is shown beside the ledger.

    Raises:
        InputError: a file or a key is missing; nothing was called.
        AgentError: whatever ends the run early, with its id (`run_id`) and the command that resumes it (`hint`).
    """
    from agent.models.model_registry import check_keys

    lms = launch.lms()
    fetch_weights(launch.models, watcher.download)
    watcher.on_message(launch.opening(resumed.plan if resumed else launch.plan()))
    check_keys(lms)
    with tracked(tracking, db, watcher.warn) as shown:
        result = _executed(launch, db, watcher, resumed, stop, shown)
        shown.finish(result.to_json())
    return result


def _executed(
    launch: Launch, db: Path, watcher: Watcher, resumed: Resumed | None, stop: Stop | None, shown: TrackedRun
) -> RunResult:
    """The run itself, from its entry in the ledger to its end there."""
    from agent.ledger.store import Ledger
    from agent.run.migration import run_of

    lms, options = launch.lms(), launch.options
    with closing(Ledger(db)) as ledger:
        _catch_up(ledger, db, watcher)
        run = run_of(launch, ledger, watcher, resumed)
        shown.begin(run, search_params(launch), options.tag)
        command = f"optimize resume {run.id}{ledger_option(db)}"
        new = [] if resumed else models_to_probe(lms, ledger, launch.task, options.cache)
        try:
            return asyncio.run(watched(run, lms, watcher, command, new, stop, options.is_batched))
        except AgentError as error:
            if isinstance(error, InputError):
                raise
            is_mistake = isinstance(error, RunRefused) and error.status and not run.account.total_used.calls
            error.hint = NOTHING_ANSWERED if is_mistake else command
            error.run_id = run.id
            raise


@dataclass(frozen=True, slots=True)
class PreparedJob(Generic[_R]):
    """A run that is no search, ready to start: what makes it, and all models that it asks. `use_cache`: whether replies
    of the ledger count; `prices`: by model, those that the run behind it was given."""

    make: Callable[[Resources], Job[_R]]
    lms: Sequence[LM]
    budget: Budget
    use_cache: bool = True
    prices: Mapping[str, Price] = field(default_factory=dict)
    seed: int = 0


def run_job(
    prepared: PreparedJob[_R],
    options: SpendingOptions,
    db: Path,
    watcher: Watcher,
    stop: Stop | None = None,
    tracking: Tracking = NO_TRACKING,
) -> _R:
    """Runs what is no search to its end, or to a Ctrl-C as of a search.

    Args:
        prepared: what to run.
        options: how models are asked, and the price.
        db: the ledger.
        watcher: shows the run while it goes on.
        stop: interrupts it from another thread.
        tracking: where it is shown beside the ledger.

    Raises:
        InputError: a key is missing, or an option cannot be read; nothing was called.
        AgentError: whatever ends the run early.
    """
    from agent.gateway.prices import prices_for
    from agent.ledger.provenance import new_run_id
    from agent.ledger.store import Ledger
    from agent.models.model_registry import check_keys
    from agent.run.job import Resources

    lms = prepared.lms
    if options.is_batched:
        require_batches(lms)
    names = list(dict.fromkeys(lm.name for lm in lms))
    fetch_weights(names, watcher.download)
    check_keys(lms)
    given = price_of(options)
    prices = prices_for(names, prepared.budget, given, prepared.prices)
    for line in remarks(lms, given, prepared.prices):
        watcher.on_message(line)
    with tracked(tracking, db, watcher.warn) as shown:
        with closing(Ledger(db)) as ledger:
            resources = Resources(
                new_run_id(),
                ledger,
                prices,
                options,
                watcher,
                prepared.seed,
                prepared.use_cache,
                prepared.budget,
            )
            job = prepared.make(resources)
            new = models_to_probe(lms, ledger, job.task, prepared.use_cache)
            shown.begin(job, job_params(job, names), {})
            result = asyncio.run(watched(job, lms, watcher, new=new, stop=stop, batches=options.is_batched))
        shown.finish(result.to_json())
    return result


def _catch_up(ledger: Ledger, db: Path, watcher: Watcher) -> None:
    """Moves of labels that a kill, or a busy ledger, kept out of the chain. No reason to stop a run."""
    from agent.release.promotion import ReleaseRegistry

    try:
        ReleaseRegistry(releases_folder(db)).catch_up(ledger)
    except ReleaseError as error:
        watcher.warn(f"warning: {error}")


def models_to_probe(lms: Iterable[LM], ledger: Ledger, task: Task, use_cache: bool) -> list[LM]:
    """The models whose providers a new run asks about them, at no cost, before anything is written down.

    Left out are those that have answered for this very task, as the ledger may hold all replies that are needed.
    """
    return [lm for lm in lms if not (use_cache and ledger.has_replies(lm.name, task))]


async def watched(
    run: LedgerRun[_T],
    lms: Iterable[LM],
    watcher: Watcher,
    command: str = "",
    new: Iterable[LM] = (),
    stop: Stop | None = None,
    batches: bool = False,
) -> _T:
    """Asks about the models that are `new`, with `batches` about the batch APIs, executes `run` and closes its models
    `lms`.

    The first Ctrl-C (or SIGTERM) lets what is in flight land, the second leaves at once and shows the `command` that
    goes on from there. A closed terminal (SIGHUP) lets it land as well, and is no second press: the kernel and the
    shell both tell of it. Where it is ignored from the start, as under nohup, it stays ignored. `stop` does the same
    from another thread. Raises Interrupted.
    """
    from agent.models.batch_jobs import check_batches
    from agent.models.model_registry import probe_models

    loop, stop = asyncio.get_running_loop(), stop or Stop()
    left = asyncio.Event()

    try:
        await probe_models(new)
        await check_batches(lms if batches else ())
        with catch_signals(watcher.signals, stop):
            execution = loop.create_task(run.execute())
            waits = loop.create_task(_report_waits(run.in_flight, watcher))
            beats = loop.create_task(_beat(run.in_flight, watcher))
            leaves = loop.create_task(left.wait())
            await asyncio.sleep(0)  # now there is something to interrupt
            stop.attach(lambda: watcher.warn(stopping(run.interrupt())), left.set)
            try:
                await asyncio.wait((execution, leaves), return_when=asyncio.FIRST_COMPLETED)
                if execution.done():
                    return execution.result()
                await run.abandon()
                watcher.leave(f"left at once; what was in flight counts as paid\n{command}".rstrip())
                others = asyncio.all_tasks() - {asyncio.current_task()}
                for task in others:
                    task.cancel()
                await asyncio.gather(*others, return_exceptions=True)
                raise Interrupted
            finally:
                waits.cancel()
                beats.cancel()
                leaves.cancel()
    finally:
        for lm in {id(lm): lm for lm in lms}.values():
            await lm.close()


async def _beat(in_flight: Callable[[], InFlight], watcher: Watcher) -> None:
    """Gives the watcher what the run waits for, again and again; ends when it is cancelled."""
    while True:
        watcher.on_heartbeat(in_flight())
        await asyncio.sleep(BEAT_SECONDS)


async def _report_waits(in_flight: Callable[[], InFlight], observer: Observer) -> None:
    """A message for each outage; ends when it is cancelled."""
    is_reported = False
    while True:
        await asyncio.sleep(WAITS_SECONDS)
        if (why := in_flight().outage) and not is_reported:
            observer.on_message(f"waiting for {why}")
        is_reported = bool(why)
