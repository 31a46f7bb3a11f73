"""Every export format by the name that `--format` takes."""

from __future__ import annotations

from agent.release.formats.anthropic import ANTHROPIC
from agent.release.formats.base import Format
from agent.release.formats.dotprompt import DOTPROMPT
from agent.release.formats.dspy import DSPY
from agent.release.formats.finetune import FINETUNE
from agent.release.formats.langchain import LANGCHAIN
from agent.release.formats.llm import LLM
from agent.release.formats.mlflow import MLFLOW
from agent.release.formats.plain import MARKDOWN, MESSAGES
from agent.release.formats.promptfoo import PROMPTFOO
from agent.release.formats.prompty import PROMPTY
from agent.release.formats.python import PYTHON

_ALL = (
    MARKDOWN, MESSAGES, ANTHROPIC, LANGCHAIN, DSPY, PROMPTFOO, PROMPTY, DOTPROMPT, MLFLOW, LLM, PYTHON, FINETUNE,
)  # fmt: skip
FORMATS: dict[str, Format] = {form.name: form for form in _ALL}
