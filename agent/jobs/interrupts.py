"""Interrupt a run: by a signal, or from another thread if an event loop runs already, as in a notebook."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, TypeVar

from agent.errors import Interrupted
from agent.gateway.in_flight import InFlight
from agent.models.model_registry import probe_models
from agent.models.provider_jobs import check_batches
from agent.results.base import CostedResult
from agent.types import LM

if TYPE_CHECKING:
    from agent.jobs.observers import Watcher
    from agent.jobs.session import Session
_T = TypeVar("_T")
R = TypeVar("R", bound="CostedResult")
BEAT_SECONDS = 0.5
"""Interval of heartbeats to the watcher."""
WAIT_BEATS = 10
"""Heartbeats between two checks whether a run waits for a provider."""
_SIGNAL_SECONDS = 0.2
"""Interval in which the main thread checks for signals."""


class StopSignal:
    """Stops a run: the first `press` (or `land`) lets calls in flight finish, the second press leaves at once.

    Thread-safe, also before anything runs.
    """

    def __init__(self) -> None:
        self._presses = 0
        self._landing = False
        self._left = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._to_land: Callable[[], None]
        self._to_leave: Callable[[], None]

    def attach(self, land: Callable[[], None], leave: Callable[[], None]) -> None:
        """Set the callbacks of the running loop. A stop that was requested before calls them at once."""
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


def stopping(waiting: int) -> str:
    """Return the message of an interrupt with that many calls in flight."""
    calls = "1 call in flight is" if waiting == 1 else f"{waiting} calls in flight are"
    return f"stopping{f': {calls} being finished' if waiting else ''}; press Ctrl-C again to leave at once"


@contextlib.contextmanager
def catch_signals(signals: Iterable[signal.Signals], stop: StopSignal) -> Iterator[None]:
    """Make `signals` press `stop` within the block; outside of the main thread do nothing."""
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


async def watched(session: Session[R], new: Iterable[LM] = (), stop: StopSignal | None = None) -> R:
    """Ask about the models that are `new`, execute the session and close its models. Raises Interrupted.

    SIGTERM counts as a Ctrl-C. A closed terminal (SIGHUP) lets calls in flight finish and does not count as a second
    press, as both kernel and shell send it; if it is ignored from the start, as under nohup, it stays ignored.
    """
    loop, stop = asyncio.get_running_loop(), stop or StopSignal()
    watcher, lms, left = session.watcher, session.spec.lms, asyncio.Event()
    try:
        await probe_models(new)
        await check_batches(lms if session.options.is_batched else ())
        with catch_signals(watcher.signals, stop):
            execution = loop.create_task(session.execute())
            beats = loop.create_task(_watch(session.in_flight, watcher))
            leaves = loop.create_task(left.wait())
            await asyncio.sleep(0)  # now there is something to interrupt
            stop.attach(lambda: watcher.warn(stopping(session.interrupt())), left.set)
            try:
                await asyncio.wait((execution, leaves), return_when=asyncio.FIRST_COMPLETED)
                if execution.done():
                    return execution.result()
                if session.cancel_elsewhere is not None:
                    await session.cancel_elsewhere()
                watcher.leave(f"left at once; what was in flight counts as paid\n{session.resume_command}".rstrip())
                others = asyncio.all_tasks() - {asyncio.current_task()}
                for task in others:
                    task.cancel()
                await asyncio.gather(*others, return_exceptions=True)
                raise Interrupted
            finally:
                for each in (beats, leaves):
                    each.cancel()
    finally:
        for lm in {id(lm): lm for lm in lms}.values():
            await lm.close()


async def _watch(in_flight: Callable[[], InFlight], watcher: Watcher) -> None:
    is_reported, beats = False, 0
    while True:
        watcher.on_heartbeat(in_flight())
        await asyncio.sleep(BEAT_SECONDS)
        beats += 1
        if beats % WAIT_BEATS == 0:
            if (why := in_flight().outage) and not is_reported:
                watcher.on_message(f"waiting for {why}")
            is_reported = bool(why)


def run_blocking(work: Callable[[StopSignal | None], _T]) -> _T:
    """Run `work`, which runs an event loop, in a thread if a loop runs already.

    The main thread polls for Ctrl-C: one that waits for a lock without a timeout would never notice it.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work(None)
    stop = StopSignal()
    if threading.current_thread() is not threading.main_thread():
        return _in_thread(work, stop).result()
    before = signal.signal(signal.SIGINT, lambda number, frame: stop.press())
    try:
        result = _in_thread(work, stop)
        while not result.done():
            wait((result,), _SIGNAL_SECONDS)
        return result.result()
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler if before is None else before)


async def run_async(work: Callable[[StopSignal | None], _T]) -> _T:
    """Await `work` from an event loop. Cancelled once, the calls in flight finish; twice, they do not."""
    stop = StopSignal()
    result = asyncio.wrap_future(_in_thread(work, stop))
    cancelled: asyncio.CancelledError | None = None
    while not result.done():
        try:
            await asyncio.wait({result})
        except asyncio.CancelledError as error:
            cancelled = error
            stop.press()
    if cancelled is not None:
        result.exception()  # the cancellation is raised in its place
        raise cancelled
    return result.result()


def _in_thread(work: Callable[[StopSignal | None], _T], stop: StopSignal) -> Future[_T]:
    result = Future[_T]()

    def call() -> None:
        try:
            result.set_result(work(stop))
        except BaseException as error:
            result.set_exception(error)

    # a daemon, unlike the threads of a pool: the process can end while it waits for a provider
    threading.Thread(target=call, name="promptassay", daemon=True).start()
    return result
