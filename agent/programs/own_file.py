"""A Python file of the user's own: its module, an error while it is loaded, and what its functions return.

Imports little, as child processes do.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

from agent.errors import AgentError, one_line
from agent.extras import brings
from agent.scoring.task_metrics import line_in
from agent.types import canonical


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


def plain(value: Any) -> Any:
    """Convert a typed output to JSON: models and dataclasses to objects, Enum members to values.

    >>> plain({"b", "a"})
    ['a', 'b']
    """
    models: Any = getattr(sys.modules.get("pydantic"), "BaseModel", ())  # not loaded: no value is such a model
    if isinstance(value, models):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(plain, value), key=canonical)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
