"""The metrics `judge` and `python`: declared here, built by a run, since they take models to ask or a folder.

`scoring/llm_judge.py` and `scoring/user_metrics.py` have the code.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field as Option
from pydantic import StringConstraints

from agent.metrics.metric_registry import METRICS
from agent.metrics.metric_rule import MetricRule, Options


class JudgeOptions(Options):
    mode: Literal["rubric", "reference", "pairwise", "faithfulness"] = Option(
        "rubric",
        description="Rate by a rubric, compare with the row's label, compare with your prompt's answer, or say which "
        "claims of the answer are supported by the passages that the prompt showed.",
    )
    rubric: Annotated[str, StringConstraints(pattern=r"^[^\r\n]*\S[^\r\n]*$")] = Option(
        "rubric.md", description="The file of its criteria in the task folder."
    )


for _rule in (
    MetricRule(
        name="judge",
        about="A model rates the answer: by a rubric, against the label or your prompt's, or by the passages shown.",
        types=("text", "choice", "number", "json"),
        options=JudgeOptions,
        needs_label=False,
    ),
    MetricRule(
        name="python",
        about="Your own function in metric.py of the task folder, in a process of its own.",
        types=("text", "choice", "number", "json"),
        needs_label=False,
    ),
):
    METRICS.add(_rule.name, _rule, __name__)
