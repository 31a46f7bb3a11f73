"""A Python file of the user's own: its module, and what an error while it is loaded says. Imports little."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from agent.errors import AgentError, one_line
from agent.extras import brings
from agent.scoring.task_metrics import line_in


def module_of(file: Path) -> ModuleType:
    """Load a file, even if it was loaded before. Raises whatever its code does."""
    spec = importlib.util.spec_from_file_location(f"optimize_task_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def why_broken(file: Path, problem: Exception) -> str:
    """Describe what went wrong in a file, as `LINE: what`."""
    words = str(problem) if isinstance(problem, AgentError) else one_line(problem)
    words += brings(problem.name) if isinstance(problem, ModuleNotFoundError) else ""
    line = problem.lineno if isinstance(problem, SyntaxError) else line_in(str(file), problem)
    return f"{line or 1}: {words}"
