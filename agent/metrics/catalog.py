"""Which metrics there are, by the name that task.toml takes. Each is loaded only when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.registry import Registry

if TYPE_CHECKING:
    from agent.metrics.base import MetricRule

METRICS: Registry[MetricRule] = Registry(
    "metric",
    "promptassay.metrics",
    {
        "exact_match": "agent.metrics.exact",
        "choice": "agent.metrics.exact",
        "numeric": "agent.metrics.numeric",
        "contains": "agent.metrics.contains",
        "regex": "agent.metrics.regex",
        "token_f1": "agent.metrics.token_f1",
        "json_schema": "agent.metrics.json_values",
        "json_fields": "agent.metrics.json_values",
        "rouge1": "agent.metrics.rouge",
        "rouge2": "agent.metrics.rouge",
        "rougeL": "agent.metrics.rouge",
        "bleu": "agent.metrics.similarity",
        "chrf": "agent.metrics.similarity",
        "edit_similarity": "agent.metrics.similarity",
        "embedding_similarity": "agent.metrics.similarity",
        "no_repeat": "agent.metrics.no_repeat",
        "length": "agent.metrics.length",
        "judge": "agent.metrics.judge",
        "python": "agent.metrics.python",
    },
)
