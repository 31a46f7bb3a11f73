"""What a plain install leaves out: the optional extras of pyproject.toml, and how a missing one is told."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from agent.errors import InputError

MODULES: Mapping[str, str] = {"dspy": "dspy", "langchain": "langchain", "notebook": "pandas", "ui": "datasette"}
"""By extra, the module that is not there without it. (`exports` has one for each format, see `release/formats/`.)"""


def is_here(extra: str) -> bool:
    return find_spec(MODULES[extra]) is not None


def command(extra: str) -> str:
    """What brings it."""
    return f'pip install "promptassay[{extra}]"'


def brings(module: str | None) -> str:
    """The command that brings a module which could not be imported, or one inside it; "" where no extra does."""
    root = (module or "").split(".")[0]
    return next((f"; {command(extra)}" for extra, name in MODULES.items() if root.startswith(name)), "")


def require(extra: str, what: str) -> None:
    """Raises InputError where `what`, as the user knows it, needs an extra that is not installed. Imports nothing."""
    if not is_here(extra):
        raise InputError(f"{what} needs {MODULES[extra]}, which is not installed; {command(extra)}")
