"""The prepared world, made once, and a copy of it for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from tests.promises.asking import Asked, fresh, prepare, typed

Fresh = Callable[[], Asked]
Whole = Callable[[str], int]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("promises") / "world"
    prepare(folder)
    return folder


@pytest.fixture
def again(prepared: Path, tmp_path: Path) -> Iterator[Fresh]:
    """Go to another fresh copy of the prepared world; returns its counted model."""
    with ExitStack() as stack:
        folders = (tmp_path / f"world{number}" for number in range(100))

        def leave_and_enter() -> Asked:
            stack.close()
            return stack.enter_context(fresh(prepared, next(folders)))

        yield leave_and_enter


@pytest.fixture(scope="session")
def whole(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Return how many calls a job makes that nothing stops."""

    @cache
    def count(name: str) -> int:
        with fresh(prepared, tmp_path_factory.mktemp("whole") / "world") as asked:
            assert typed(name, in_turn=True).exit_code == 0
        return asked.calls

    return count
