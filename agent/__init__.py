"""Promptassay: searches for the best prompt a budget can buy, and proves how much better it is."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.errors import AgentError
    from agent.programs.chain_file import load_chain
    from agent.release.runtime import load_prompt
    from agent.report.notebook import load_run
    from agent.task.load import load_task

__all__ = ["AgentError", "load_chain", "load_prompt", "load_run", "load_task"]

_HOMES = {
    "AgentError": "agent.errors",
    "load_chain": "agent.programs.chain_file",
    "load_prompt": "agent.release.runtime",
    "load_run": "agent.report.notebook",
    "load_task": "agent.task.load",
}


def __getattr__(name: str) -> Any:
    """Load a public name on first use, so that `import agent` is cheap (PEP 562)."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(
        f"module 'agent' has no attribute {name!r}: this package is Promptassay's; rename your module `agent`"
    )
