"""Checks by a regular expression: in a child process with a time limit, as neither that nor Ctrl-C stops `re` here."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

from agent.metrics.comparison import Check, as_text, short
from agent.worker import Verdict, Worker

TIMEOUT_SECONDS = 2.0
MAX_TIMEOUTS = 3
"""Timeouts after which a check is given up: the rows that remain at the end of a run must not take hours."""

_SCRIPT = """
import importlib, signal
alarm = getattr(signal, "alarm", lambda seconds: None)  # ends this process, also when its parent is gone
sys.path[:], module, name, arguments = opening
check = getattr(importlib.import_module(module), name)(*arguments)
answer(1, "ready")
for line in pipe_in:
    alarm(10)
    answer(*check(json.loads(line), None))
    alarm(0)
"""


class BoundedCheck:
    """The check that `make(*arguments)` returns, made and called in a child process, which sees no label.

    `make` stands at the top of its module, `arguments` are JSON, and `what` is for the reason of a timeout.
    """

    def __init__(self, what: str, make: Callable[..., Check], *arguments: Any) -> None:
        opening = (sys.path, make.__module__, make.__name__, arguments)
        self._worker = Worker(what, _SCRIPT, opening, TIMEOUT_SECONDS, most_late=MAX_TIMEOUTS)

    async def __call__(self, got: Any, label: Any) -> Verdict:
        return await self._worker.ask(got)


def pattern_check(source: str) -> Check:
    """The check that the regular expression `source` is found in the text."""
    pattern = re.compile(source)

    def check(got: Any, label: Any) -> Verdict:
        return (1.0, "") if pattern.search(as_text(got)) else (0.0, f"{short(got)} does not match {source}")

    return check
