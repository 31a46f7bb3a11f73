"""A closed ledger with two whole runs, made once; each test gets a copy."""

from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path

import pytest

from agent.ledger import connect
from agent.ledger.verify import verify
from tests.ledger import ledgers


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be written to."""
    return ledgers.make(tmp_path_factory.mktemp("ledger") / "ledger.db")


@pytest.fixture
def whole(original: Path, tmp_path: Path) -> Path:
    return ledgers.copy(original, tmp_path / "ledger.db")


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The connections whose ledger is verified whole from now on."""
    seen: list[object] = []
    monkeypatch.setattr(connect, "verify", lambda db: seen.append(db) or verify(db))  # type: ignore[func-returns-value]
    return seen


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> type[ledgers.Disk]:
    """Every connection that is opened from now on counts its commits and can be made to run full."""
    monkeypatch.setattr(ledgers.Disk, "commits", 0)
    monkeypatch.setattr(ledgers.Disk, "full", False)
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=ledgers.Disk))
    return ledgers.Disk
