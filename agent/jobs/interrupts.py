"""How a run is interrupted: by a signal, or from another thread where an event loop runs already, as in a notebook."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, TypeVar

from agent.errors import Interrupted

if TYPE_CHECKING:
    from agent.gateway.in_flight import InFlight
    from agent.jobs.observers import Watcher
    from agent.jobs.session import Session
    from agent.observer import Observer
    from agent.results.base import CostedResult
    from agent.types import LM

_T = TypeVar("_T")
R = TypeVar("R", bound="CostedResult")
WAITS_SECONDS = 5.0
"""How often it is looked whether a run waits for a provider."""
BEAT_SECONDS = 0.5
"""How often a watcher is given what a run waits for."""

_SIGNAL_SECONDS = 0.2
"""How long the main thread waits without looking whether a signal came."""


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


def stopping(waiting: int) -> str:
    """What is said when a run is interrupted with that many calls in flight."""
    calls = "1 call in flight is" if waiting == 1 else f"{waiting} calls in flight are"
    return f"stopping{f': {calls} being finished' if waiting else ''}; press Ctrl-C again to leave at once"


@contextlib.contextmanager
def catch_signals(signals: Iterable[signal.Signals], stop: Stop) -> Iterator[None]:
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


async def watched(session: Session[R], new: Iterable[LM] = (), stop: Stop | None = None) -> R:
    """Ask about the models that are `new`, execute the session and close its models.

    The first Ctrl-C (or SIGTERM) lets what is in flight land, the second leaves at once and shows the command that
    continues from there. A closed terminal (SIGHUP) lets it land as well, and is no second press: the kernel and the
    shell both tell of it. Where it is ignored from the start, as under nohup, it stays ignored. `stop` does the same
    from another thread. Raises Interrupted.
    """
    from agent.models.model_registry import probe_models
    from agent.models.provider_jobs import check_batches

    loop, stop = asyncio.get_running_loop(), stop or Stop()
    watcher, lms, left = session.watcher, session.spec.lms, asyncio.Event()
    try:
        await probe_models(new)
        await check_batches(lms if session.options.is_batched else ())
        with catch_signals(watcher.signals, stop):
            execution = loop.create_task(session.execute())
            waits = loop.create_task(_report_waits(session.in_flight, watcher))
            beats = loop.create_task(_beat(session.in_flight, watcher))
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
                for each in (waits, beats, leaves):
                    each.cancel()
    finally:
        for lm in {id(lm): lm for lm in lms}.values():
            await lm.close()


async def _beat(in_flight: Callable[[], InFlight], watcher: Watcher) -> None:
    while True:
        watcher.on_heartbeat(in_flight())
        await asyncio.sleep(BEAT_SECONDS)


async def _report_waits(in_flight: Callable[[], InFlight], observer: Observer) -> None:
    is_reported = False
    while True:
        await asyncio.sleep(WAITS_SECONDS)
        if (why := in_flight().outage) and not is_reported:
            observer.on_message(f"waiting for {why}")
        is_reported = bool(why)


def run_blocking(work: Callable[[Stop | None], _T]) -> _T:
    """The result of `work`, which runs an event loop: here, or in a thread where one runs already.

    A Ctrl-C comes to the main thread, which then presses the `Stop` of the thread. That thread wakes now and then: the
    kernel may hand the signal to another thread, and one that waits for a lock without an end would never learn of it.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work(None)
    stop = Stop()
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


async def run_async(work: Callable[[Stop | None], _T]) -> _T:
    """The same for a caller that waits in an event loop: cancelled once, the calls in flight land; twice, not."""
    stop = Stop()
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


def _in_thread(work: Callable[[Stop | None], _T], stop: Stop) -> Future[_T]:
    result = Future[_T]()

    def call() -> None:
        try:
            result.set_result(work(stop))
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=call, name="promptassay", daemon=True).start()
    return result
