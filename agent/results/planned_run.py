"""The result of `--dry-run`: what a run may cost, and what its sealed test can show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.results.base import Result, absent, hidden


class PlannedRole(Result):
    """The most that one role may call; `usd` is None if the price is unknown."""

    model: str
    calls: int
    tokens: int
    usd: float | None


class PlannedRun(Result):
    """The priced plan of a run.

    `detectable_gain` is the smallest that the sealed test can show (None: none), also by baseline score;
    `smallest_margin` of a migration is that of two equal models.
    """

    task: str
    model: str
    metrics: tuple[str, ...]
    scoring: str
    max_examples: int | None
    plan: Mapping[str, Any]
    roles: Mapping[str, PlannedRole]
    tokens_at_most: int
    cost_usd_at_most: float | None
    detectable_gain: float | None
    detectable_gains: Mapping[str, float]
    margin: float | None = absent()
    smallest_margin: float | None = absent()
    lines: tuple[str, ...] = hidden(())
