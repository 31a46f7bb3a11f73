"""Checks by a regular expression, which may take for ever on a text: in a child process, with a time limit each.

In this process such a search could not be stopped: not by a time limit, and not by Ctrl-C.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

from agent.metrics.values import Check, as_text, short
from agent.worker import Verdict, Worker

SECONDS = 2.0
MOST_LATE = 3
"""Timeouts after which a check is given up: what is still to be scored at the end of a run must not take hours."""

_SCRIPT = """
import importlib, signal
alarm = getattr(signal, "alarm", lambda seconds: None)  # ends this process, also when whoever asked is gone
sys.path[:], module, name, arguments = opening
check = getattr(importlib.import_module(module), name)(*arguments)
answer(1, "ready")
for line in pipe_in:
    alarm(10)
    answer(*check(json.loads(line), None))
    alarm(0)
"""


class Bounded:
    """The check that `make(*arguments)` gives, made and asked in a child process. It sees no label."""

    def __init__(self, what: str, make: Callable[..., Check], *arguments: Any) -> None:
        opening = (sys.path, make.__module__, make.__name__, arguments)
        self._worker = Worker(what, _SCRIPT, opening, SECONDS, most_late=MOST_LATE)

    async def __call__(self, got: Any, label: Any) -> Verdict:
        return await self._worker.ask(got)


def pattern_check(source: str) -> Check:
    """`source` is found in the text."""
    pattern = re.compile(source)

    def check(got: Any, label: Any) -> Verdict:
        return (1.0, "") if pattern.search(as_text(got)) else (0.0, f"{short(got)} does not match {source}")

    return check
