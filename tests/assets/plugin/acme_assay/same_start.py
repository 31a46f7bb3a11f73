"""The metric `same_start`: the first letters of the answer are those of the label."""

from __future__ import annotations

from typing import Any

from pydantic import Field as Option

from agent.metrics.comparison import Check
from agent.metrics.metric_rule import Options, metric
from agent.types import Field
from agent.worker import Verdict


class StartOptions(Options):
    letters: int = Option(3, ge=1, le=50, description="How many letters must agree.")


@metric("same_start", about="The first letters agree.", types=("text", "choice"), options=StartOptions)
def same_start(options: StartOptions, field: Field) -> Check:
    def check(got: Any, label: Any) -> Verdict:
        mine, wanted = (str(value)[: options.letters].casefold() for value in (got, label))
        return (1.0, "") if mine == wanted else (0.0, f"expected {wanted}..., got {mine}...")

    return check
