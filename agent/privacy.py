"""Switches off third parties' tracing, telemetry and gateways, which a shell may have switched on for other work.

Knows the environment variables of the packages that come along (LangChain, DSPy, LiteLLM, OpenTelemetry and friends)
and imports none of them. It must run before they are imported: some read their variables only once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping

ALLOW_TRACING = "OPTIMIZE_ALLOW_TRACING"

_SENDS = re.compile(
    r"(LANGSMITH|LANGCHAIN)_(.*TRACING.*|HANDLER|OTEL_.*|ENDPOINT|RUNS_ENDPOINTS)"
    r"|LANGSMITH_GATEWAY"  # sends the calls themselves through LangSmith
    r"|OTEL_(EXPORTER_.*|.*_EXPORTER|INSTRUMENTATION_GENAI_.*)"
    r"|LITELLM_(.*CALLBACKS?|TELEMETRY)"
    r"|MLFLOW_(TRACKING|REGISTRY)_URI|OPIK_URL_OVERRIDE|WANDB_BASE_URL|LANGFUSE_HOST|PHOENIX_COLLECTOR_ENDPOINT|SENTRY_DSN"
)
_OFF: Mapping[str, str] = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "LANGFUSE_TRACING_ENABLED": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it fetches its price list when it is imported
    "MLFLOW_DISABLE_TELEMETRY": "true",  # it does not take "1" for DO_NOT_TRACK
    "OPIK_TRACK_DISABLE": "true",
    "OTEL_SDK_DISABLED": "true",
    "WANDB_MODE": "disabled",
}


def silence_tracing(environ: MutableMapping[str, str]) -> tuple[str, ...]:
    """Takes tracing variables out of `environ`, sets opt-outs such as DO_NOT_TRACK; returns the removed names, sorted.

    With OPTIMIZE_ALLOW_TRACING=1 it changes nothing.
    """
    if environ.get(ALLOW_TRACING) == "1":
        return ()
    removed = tuple(sorted(name for name in environ if _SENDS.fullmatch(name)))
    for name in removed:
        del environ[name]
    environ.update(_OFF)
    return removed
