"""Virtual time: a five-minute wait takes no time, and a wait for nothing is an error."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from agent.gateway.retries import Clock

T = TypeVar("T")


class _Jump(selectors.DefaultSelector):
    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("all tasks wait, and nothing will ever wake one")
        if not ready and timeout is not None:
            self.now += max(0.0, timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` starts at 0 and jumps to the next timer once all tasks wait."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now


class LoopClock(Clock):
    """The time of the running loop; real time outside of one."""

    def now(self) -> float:
        try:
            return asyncio.get_running_loop().time()
        except RuntimeError:
            return super().now()


class HurryClock(Clock):
    """For tests with a real server: sleeps end at once, and the time jumps by what they would have taken."""

    def __init__(self) -> None:
        self._slept = 0.0

    def now(self) -> float:
        return super().now() + self._slept

    async def sleep(self, seconds: float) -> None:
        self._slept += seconds
        await asyncio.sleep(0)


class Inline:
    """An executor that works at once, so that no other thread is waited for."""

    def __init__(self, *_: Any, **__: Any) -> None:
        return

    def submit(self, work: Callable[[], T]) -> Future[T]:
        done: Future[T] = Future()
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)
        return done

    def shutdown(self) -> None:
        return
