"""Many cases in one test: each is checked, and each that fails is named."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

Test = Callable[..., None]


def each_case(names: str | Sequence[str], cases: Iterable[Any]) -> Callable[[Test], Test]:
    """`pytest.mark.parametrize` as one test, for checks that are faster than the overhead of a test.

    Args:
        names: of the arguments that a case gives.
        cases: their values, in this order; for a single name, the value itself.

    Returns:
        A decorator; the test raises a group with the error of each case that failed.
    """
    keys = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    given = [dict(zip(keys, case if len(keys) > 1 else (case,), strict=True)) for case in cases]

    def fold(test: Test) -> Test:
        @functools.wraps(test)
        def run(**others: Any) -> None:
            failed: list[BaseException] = []
            for case in given:
                try:
                    test(**case, **others)
                except (Exception, pytest.fail.Exception) as error:
                    error.add_note(f"the case: {case!r}")
                    failed.append(error)
            if failed:
                raise BaseExceptionGroup(f"{len(failed)} of {len(given)} cases failed", failed)

        kept = [each for name, each in inspect.signature(test).parameters.items() if name not in keys]
        run.__signature__ = inspect.Signature(kept)  # type: ignore[attr-defined]
        return run

    return fold
