"""Which export formats there are, by the name that `--format` takes. Each is loaded only when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.registry import Registry

if TYPE_CHECKING:
    from agent.release.formats.base import Format

FORMATS: Registry[Format] = Registry(
    "format",
    "promptassay.formats",
    {
        "md": "agent.release.formats.plain",
        "messages": "agent.release.formats.plain",
        "anthropic": "agent.release.formats.anthropic",
        "langchain": "agent.release.formats.langchain",
        "dspy": "agent.release.formats.dspy",
        "promptfoo": "agent.release.formats.promptfoo",
        "prompty": "agent.release.formats.prompty",
        "dotprompt": "agent.release.formats.dotprompt",
        "mlflow": "agent.release.formats.mlflow",
        "llm": "agent.release.formats.llm",
        "python": "agent.release.formats.python",
        "finetune-jsonl": "agent.release.formats.finetune",
    },
)
