"""Order of the suite: what needs the embedded engine comes last, so that a plain mistake is seen in seconds."""

from __future__ import annotations

import contextlib
import gc
import signal

import pytest
from hypothesis import settings

settings.register_profile("suite", deadline=None, max_examples=60)  # a busy machine is not a failure
settings.load_profile("suite")


with contextlib.suppress(ValueError):  # not the main thread
    signal.signal(
        signal.SIGHUP, signal.SIG_DFL
    )  # a nohup around the suite is not meant for the commands that it starts


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("engine") is not None)


def pytest_collection_finish() -> None:
    """What the imports made stays and cycles are looked for less often: both took a tenth of the suite's time each."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
