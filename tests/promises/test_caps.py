"""No job makes a call beyond a cap on calls, tokens or dollars, however small or large the cap is."""

from __future__ import annotations

import pytest

from tests.promises.asking import CASES, has, typed
from tests.promises.conftest import Fresh

CAPPED = [name for name in CASES if has(name, "max_calls")]
REFUSED = (2, 3)
"""The cap is too small to begin."""


@pytest.mark.parametrize("name", CAPPED)
def test_no_cap_is_passed(name: str, again: Fresh) -> None:
    whole = again()
    assert typed(name).exit_code == 0
    caps = {
        "--max-calls": (1, whole.calls // 3, whole.calls - 1),
        "--max-tokens": (1, whole.tokens // 3, whole.tokens - 1),
        "--max-cost": (0, whole.usd / 3, whole.usd * 0.99),
    }
    spent = {"--max-calls": lambda: asked.calls, "--max-tokens": lambda: asked.tokens, "--max-cost": lambda: asked.usd}
    for flag, values in caps.items():
        for value in values:
            asked = again()
            done = typed(name, flag, str(value))
            assert done.exit_code in (0, 1, *REFUSED, 100), (flag, value, done.output)
            assert spent[flag]() <= value, (flag, value)
            assert asked.calls == 0 or done.exit_code not in REFUSED, (flag, value)
            assert done.stderr or done.exit_code in (0, 100)
