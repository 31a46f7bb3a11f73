"""Virtual time for tests of the gateway without a server: sleeps end at once, in order; the ledger needs no thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest

from agent.ledger import writer
from tests.gateway.virtual import Inline, VirtualLoop


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"real": asyncio.SelectorEventLoop} if "wire" in item.path.stem else {"virtual": VirtualLoop}


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "ThreadPoolExecutor", Inline)
