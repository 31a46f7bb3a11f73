"""What a run waits for at a moment: the calls that were sent and not answered yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class InFlight:
    """The calls that were sent and are not answered.

    Args:
        calls: how many, at least 0.
        models: the names of their models, each once.
        oldest: seconds since the first of them was sent, at least 0.
        outage: the model whose provider does not answer, why, and for how long it is tried; "" where all answer.
    """

    calls: int = 0
    models: tuple[str, ...] = ()
    oldest: float = 0.0
    outage: str = ""


def in_flight(sent: Sequence[tuple[str, float]], now: float, outage: str) -> InFlight:
    """The calls in flight, from their models and the times at which they were sent (monotonic, in seconds)."""
    models = tuple(sorted({model for model, _ in sent}))
    return InFlight(len(sent), models, max((now - since for _, since in sent), default=0.0), outage)
