"""Where no prompt makes the model read its input, no run says "Better": a few runs of `tests.bench.arena.blind`."""

from __future__ import annotations

import asyncio

import pytest

from tests.bench.arena.blind import KINDS, run_once, tallied


@pytest.mark.parametrize("metric", KINDS)
def test_a_winner_that_does_not_read_its_input_is_held_back(metric: str) -> None:
    results = [asyncio.run(run_once(metric, seed, 200)) for seed in range(3)]
    tally = tallied(metric, results)
    assert tally.above, "a winner that gains over the user's own prompt is what is to be held back"
    assert tally.better == 0
    for result in results:
        assert result.yardsticks[0].name in ("largest class", "constant set", "constant record", "constant answer")
