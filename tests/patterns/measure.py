"""Run patterns on hostile texts, each within a second of processor time; a child process prints the slow ones."""

from __future__ import annotations

import json
import re
import resource
import signal
import sys
import time
from collections.abc import Iterator

from tests.patterns.hostile import hostile

SIZE = 100_000
SECONDS = 1.0
SMALL = 2_500
SUSPECT = 0.0006
"""Seconds for a text of SMALL characters above which one of SIZE is tried: a square pattern takes SECONDS there."""
MOST = 900
"""Processor seconds of the whole child: the kernel ends it then."""


class TooSlow(Exception):
    """The second is over."""


def _over(*_: object) -> None:
    raise TooSlow


def slow(source: str, flags: int, methods: list[str]) -> Iterator[str]:
    """Method and text, each that takes more than a second."""
    pattern = re.compile(source, flags)
    for small, large in zip(hostile(source, flags, SMALL), hostile(source, flags, SIZE), strict=True):
        for method in methods:
            if seconds(pattern, method, small) > SUSPECT and seconds(pattern, method, large) >= SECONDS:
                yield f"{method} of {small[:30]!r}...{small[-5:]!r}"
                break
        else:
            continue
        return


def seconds(pattern: re.Pattern[str], method: str, text: str) -> float:
    """Processor time of one call; SECONDS where it is ended."""
    began = time.process_time()
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        found = getattr(pattern, method)(text)
        if method == "finditer":
            for _ in found:
                pass
    except TooSlow:
        return SECONDS
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return time.process_time() - began


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CPU, (MOST, MOST))
    signal.signal(signal.SIGVTALRM, _over)
    for line in sys.stdin:
        where, source, flags, methods = json.loads(line)
        for what in slow(source, flags, methods):
            print(json.dumps([where, source, what]), flush=True)
