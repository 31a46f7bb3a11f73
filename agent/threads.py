"""Long work beside the event loop: what is short is done at once, what is long in a thread, while other calls go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

LONG = 20_000
"""Characters or bytes from which a text is read in a thread: some ten milliseconds of the slowest reading."""

_T = TypeVar("_T")


async def aside(size: int, call: Callable[[], _T]) -> _T:
    """The result of `call`, which reads a text of `size` and touches nothing that the loop's other tasks change."""
    return await asyncio.to_thread(call) if size >= LONG else call()
