"""Promptassay: searches for the best prompt a budget can buy, and proves how much better it is."""

from agent.errors import AgentError
from agent.release.runtime import load_prompt
from agent.task.load import load_task

__all__ = ["AgentError", "load_prompt", "load_task"]
