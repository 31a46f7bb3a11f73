"""No keys and no proxies of the machine reach a test of the gateway, and each has a ledger of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.ledger.store import Ledger
from tests.models.conftest import clean_environment
from tests.toys import open_ledger

__all__ = ["clean_environment"]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    found = open_ledger(tmp_path / "ledger.db")
    yield found
    found.close()
