"""The metrics by their name in task.toml. Each is imported only when its name is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.registry import Registry

if TYPE_CHECKING:
    from agent.metrics.metric_rule import MetricRule

_HOMES = (
    ("text_match", "exact_match choice"),
    ("number_metrics", "numeric ordinal agreement quantity"),
    ("text_match", "set_f1 contains regex goal"),
    ("text_similarity", "token_f1"),
    ("json_values", "json_schema json_fields"),
    ("tool_calls", "tool_calls tool_choice right_tool"),
    ("text_similarity", "rouge1 rouge2 rougeL bleu chrf edit_similarity embedding_similarity"),
    ("reference_free", "no_repeat length judge python reported calls"),
)
"""Modules and their metrics, in listing order."""
METRICS: Registry[MetricRule] = Registry(
    "metric",
    "promptassay.metrics",
    {name: f"agent.metrics.{module}" for module, names in _HOMES for name in names.split()},
)
