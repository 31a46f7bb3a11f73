"""Which metrics there are, by the name that task.toml takes. Each is imported only when its name is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.registry import Registry

if TYPE_CHECKING:
    from agent.metrics.metric_rule import MetricRule

METRICS: Registry[MetricRule] = Registry(
    "metric",
    "promptassay.metrics",
    {
        "exact_match": "agent.metrics.text_match",
        "choice": "agent.metrics.text_match",
        "numeric": "agent.metrics.number_metrics",
        "ordinal": "agent.metrics.number_metrics",
        "quantity": "agent.metrics.number_metrics",
        "set_f1": "agent.metrics.text_match",
        "contains": "agent.metrics.text_match",
        "regex": "agent.metrics.text_match",
        "goal": "agent.metrics.text_match",
        "token_f1": "agent.metrics.text_similarity",
        "json_schema": "agent.metrics.json_values",
        "json_fields": "agent.metrics.json_values",
        "tool_calls": "agent.metrics.tool_calls",
        "tool_choice": "agent.metrics.tool_calls",
        "rouge1": "agent.metrics.text_similarity",
        "rouge2": "agent.metrics.text_similarity",
        "rougeL": "agent.metrics.text_similarity",
        "bleu": "agent.metrics.text_similarity",
        "chrf": "agent.metrics.text_similarity",
        "edit_similarity": "agent.metrics.text_similarity",
        "embedding_similarity": "agent.metrics.text_similarity",
        "no_repeat": "agent.metrics.reference_free",
        "length": "agent.metrics.reference_free",
        "judge": "agent.metrics.reference_free",
        "python": "agent.metrics.reference_free",
    },
)
