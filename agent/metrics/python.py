"""The metric `python`: metric.py of the task folder. A run makes it (`scoring/user_metric.py`): it takes a folder."""

from __future__ import annotations

from agent.metrics.base import MetricRule
from agent.metrics.catalog import METRICS

PYTHON = MetricRule(
    name="python",
    about="Your own function in metric.py of the task folder, in a process of its own.",
    types=("text", "choice", "number", "json"),
    needs_label=False,
)
METRICS.add(PYTHON.name, PYTHON, __name__)
