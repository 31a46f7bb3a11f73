"""A run from its start to its end: weights, ledger, event loop, and what a Ctrl-C does. Knows no terminal.

`start` is how the command line and the functions of `api.py` start a run; `watched` is what every run that asks models
goes through.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from agent.errors import AgentError, InputError, Interrupted, ReleaseError, RunRefused
from agent.observer import Observer
from agent.run.launch import Launch, fixed, remarks, seconds
from agent.run.locations import LEDGER, releases_folder
from agent.run.watcher import Watcher

if TYPE_CHECKING:
    from agent.gateway.prices import Price
    from agent.ledger.store import Ledger
    from agent.release.result import RunResult
    from agent.run.job import Job, Means
    from agent.run.optimize import Resumed
    from agent.types import LM, Budget, Task

_T = TypeVar("_T", covariant=True)

NOTHING_ANSWERED = "nothing was answered: mend this, then type the same command again"
WAITS_SECONDS = 5.0
"""How often it is looked whether a run waits for a provider."""


class Stoppable(Protocol[_T]):
    """What can be run and interrupted: a search or a job."""

    async def execute(self) -> _T: ...

    def interrupt(self) -> int: ...

    def waits_for(self) -> str: ...


class Stop:
    """Ends what runs: the first `press` lets what is in flight land, the second leaves at once.

    `land` does as the first and is no press. Any thread may call them, also before anything runs.
    """

    def __init__(self) -> None:
        self._presses = 0
        self._landing = False
        self._left = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._to_land: Callable[[], None]
        self._to_leave: Callable[[], None]

    def attach(self, land: Callable[[], None], leave: Callable[[], None]) -> None:
        """What is to be called, in the running loop; at once where it was asked for before."""
        self._to_land, self._to_leave, self._loop = land, leave, asyncio.get_running_loop()
        if self._landing:
            land()
        if self._left:
            leave()

    def press(self) -> None:
        self._presses += 1
        if self._presses == 1:
            self.land()
        else:
            self._left = True
            self._call(lambda: self._to_leave())

    def land(self) -> None:
        self._landing = True
        self._call(lambda: self._to_land())

    def _call(self, what: Callable[[], None]) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended meanwhile
                self._loop.call_soon_threadsafe(what)


def fetch_weights(models: Iterable[str], download: Callable[[int, int], None]) -> None:
    """Fetches the weights of embedded models that are not here yet."""
    from agent.models.weights import fetch

    for name in models:
        if name.startswith("local/") and not name.endswith(".gguf"):
            fetch(name, download)


def start(
    launch: Launch, db: Path, watcher: Watcher, resumed: Resumed | None = None, stop: Stop | None = None
) -> RunResult:
    """Fetches weights that are not here yet, says what is about to run, and runs it (`run`)."""
    from agent.models.model_registry import require_files

    require_files(launch.models)
    fetch_weights(launch.models, watcher.download)
    watcher.on_message(launch.opening(resumed.plan if resumed else launch.plan()))
    return run(launch, db, watcher, resumed, stop)


def run(
    launch: Launch, db: Path, watcher: Watcher, resumed: Resumed | None = None, stop: Stop | None = None
) -> RunResult:
    """Runs to the end, in an event loop of this thread. The first Ctrl-C lets what is in flight land, the second leaves
    at once; both end in Interrupted.

    Whatever ends the run early carries its id (`run_id`) and the command that resumes it (`hint`).
    """
    from agent.ledger.store import Ledger
    from agent.models.model_registry import check_keys
    from agent.run.optimize import Run

    check_keys(launch.lms())
    ledger = Ledger(db)
    try:
        _catch_up(ledger, db, watcher)
        made = Run(
            launch.task,
            launch.target,
            launch.author,
            ledger,
            launch.settings,
            watcher,
            resumed,
            launch.judges,
            launch.program,
        )
        command = f"optimize resume {made.id}{at(db)}"
        new = [] if resumed else unknown(launch.lms(), ledger, launch.task, launch.settings.use_cache)
        try:
            return asyncio.run(watched(made, launch.lms(), watcher, command, new, stop))
        except AgentError as error:
            if isinstance(error, InputError):
                raise
            is_mistake = isinstance(error, RunRefused) and error.status and not made.account.total_used.calls
            error.hint = NOTHING_ANSWERED if is_mistake else command
            error.run_id = made.id
            raise
    finally:
        ledger.close()


@dataclass(frozen=True, slots=True)
class Ready:
    """A run that is no search, ready to start. `models`: the names whose weights may be fetched; `use_cache`: whether
    replies of the ledger count; `prices`: by model, those that the run behind it was given."""

    make: Callable[[Means], Job]
    lms: Sequence[LM]
    models: Sequence[str]
    budget: Budget
    use_cache: bool = True
    prices: Mapping[str, Price] = field(default_factory=dict)


def run_job(
    ready: Ready,
    options: Mapping[str, Any],
    db: Path,
    watcher: Watcher,
    stop: Stop | None = None,
) -> dict[str, Any]:
    """Runs what is no search to its end, or to a Ctrl-C as of a run."""
    from agent.gateway.gateway import MAX_WAIT
    from agent.gateway.prices import prices_for
    from agent.ledger.provenance import new_run_id
    from agent.ledger.store import Ledger
    from agent.models.model_registry import check_keys
    from agent.run.job import Means

    max_wait = seconds("--max-wait", options["max_wait"]) or MAX_WAIT
    fetch_weights(ready.models, lambda done, total: None)
    check_keys(ready.lms)
    given = fixed(options["price"])
    prices = prices_for([lm.name for lm in ready.lms], ready.budget, given, ready.prices)
    for line in remarks(ready.lms, given, ready.prices):
        watcher.on_message(line)
    ledger = Ledger(db)
    try:
        means = Means(
            new_run_id(),
            ledger,
            prices,
            ready.budget,
            options.get("seed") or 0,
            watcher,
            options["max_concurrency"],
            ready.use_cache,
            max_wait,
            options["thinking"],
        )
        job = ready.make(means)
        new = unknown(ready.lms, ledger, job.task, ready.use_cache)
        return asyncio.run(watched(job, ready.lms, watcher, new=new, stop=stop))
    finally:
        ledger.close()


def _catch_up(ledger: Ledger, db: Path, watcher: Watcher) -> None:
    """Moves of labels that a kill, or a busy ledger, kept out of the chain. No reason to stop a run."""
    from agent.release.promotion import ReleaseRegistry

    try:
        ReleaseRegistry(releases_folder(db)).catch_up(ledger)
    except ReleaseError as error:
        watcher.warn(f"warning: {error}")


def unknown(lms: Iterable[LM], ledger: Ledger, task: Task, use_cache: bool) -> list[LM]:
    """The models that a new run of the task asks about before anything is written down.

    Asking is no call: it costs nothing, so no call stands outside the ledger. Not asked about are those that have
    answered for this very task, as the ledger may hold all replies that are needed: then no model is. A run that is
    resumed is there already, and asks about nothing.
    """
    return [lm for lm in lms if not (use_cache and ledger.has_replies(lm.name, task))]


def stopping(waiting: int) -> str:
    """What is said when a run is interrupted with so many calls in flight."""
    calls = "1 call in flight is" if waiting == 1 else f"{waiting} calls in flight are"
    return f"stopping{f': {calls} being finished' if waiting else ''}; press Ctrl-C again to leave at once"


async def watched(
    run: Stoppable[_T],
    lms: Iterable[LM],
    watcher: Watcher,
    command: str = "",
    new: Iterable[LM] = (),
    stop: Stop | None = None,
) -> _T:
    """Asks about the models that are `new`, executes `run` and closes its models `lms`.

    The first Ctrl-C (or SIGTERM) lets what is in flight land, the second leaves at once and tells the `command` that
    goes on from there. A closed terminal (SIGHUP) lets it land as well, and is no second press: the kernel and the
    shell both tell of it. Where it is ignored from the start, as under nohup, it stays ignored. `stop` does the same
    from another thread. Raises Interrupted.
    """
    from agent.models.model_registry import probe_models

    loop, stop = asyncio.get_running_loop(), stop or Stop()
    left = asyncio.Event()

    def leave() -> None:
        watcher.leave(f"left at once; what was in flight counts as paid\n{command}".rstrip())
        left.set()

    try:
        await probe_models(new)
        with _caught(watcher.signals, stop):
            execution = loop.create_task(run.execute())
            waits = loop.create_task(_report_waits(run.waits_for, watcher))
            leaves = loop.create_task(left.wait())
            await asyncio.sleep(0)  # now there is something to interrupt
            stop.attach(lambda: watcher.warn(stopping(run.interrupt())), leave)
            try:
                await asyncio.wait((execution, leaves), return_when=asyncio.FIRST_COMPLETED)
                if execution.done():
                    return execution.result()
                others = asyncio.all_tasks() - {asyncio.current_task()}
                for task in others:
                    task.cancel()
                await asyncio.gather(*others, return_exceptions=True)
                raise Interrupted
            finally:
                waits.cancel()
                leaves.cancel()
    finally:
        for lm in {id(lm): lm for lm in lms}.values():
            await lm.close()


@contextlib.contextmanager
def _caught(signals: Iterable[signal.Signals], stop: Stop) -> Iterator[None]:
    """While it lasts, `signals` press `stop`; then they mean what they did before. Outside the main thread: nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop, before = asyncio.get_running_loop(), {number: signal.getsignal(number) for number in signals}
    caught = [number for number, handler in before.items() if number != signal.SIGHUP or handler != signal.SIG_IGN]
    for number in caught:
        loop.add_signal_handler(number, stop.land if number == signal.SIGHUP else stop.press)
    try:
        yield
    finally:
        for number in caught:
            loop.remove_signal_handler(number)
            if before[number] is not None:  # one that was not set in Python cannot be set again
                signal.signal(number, before[number])


async def _report_waits(waits_for: Callable[[], str], observer: Observer) -> None:
    """A message for each outage; ends when it is cancelled."""
    is_reported = False
    while True:
        await asyncio.sleep(WAITS_SECONDS)
        if (why := waits_for()) and not is_reported:
            observer.on_message(f"waiting for {why}")
        is_reported = bool(why)


def at(db: Path) -> str:
    """The words that a command needs to find the ledger, when it is not the usual one."""
    return "" if db == LEDGER else f" --db {shlex.quote(str(db))}"
