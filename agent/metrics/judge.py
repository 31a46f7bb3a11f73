"""The metric `judge`: a model rates the answer. A run makes it (`scoring/judge.py`), since it takes models to ask."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field as Option
from pydantic import StringConstraints

from agent.metrics.base import MetricRule, Options
from agent.metrics.catalog import METRICS


class JudgeOptions(Options):
    mode: Literal["rubric", "reference", "pairwise"] = Option(
        "rubric", description="Rate by a rubric, compare with the row's label, or compare with your prompt's answer."
    )
    rubric: Annotated[str, StringConstraints(pattern=r"^[^\r\n]*\S[^\r\n]*$")] = Option(
        "rubric.md", description="The file of its criteria in the task folder."
    )


JUDGE = MetricRule(
    name="judge",
    about="A model rates the answer: by a rubric, against the label, or against your prompt's.",
    types=("text", "choice", "number", "json"),
    options=JudgeOptions,
    needs_label=False,
)
METRICS.add(JUDGE.name, JUDGE, __name__)
