"""The optional extras of pyproject.toml, and the error for one that is missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from agent.errors import InputError

MODULES: Mapping[str, str] = {
    "agents": "uvicorn",
    "clearml": "clearml",
    "dspy": "dspy",
    "embedding": "wordllama",
    "knowledge": "pypdf",
    "langchain": "langchain",
    "mlflow": "mlflow",
    "notebook": "pandas",
    "otel": "opentelemetry.exporter.otlp.proto.http",
    "ray": "ray",
    "team": "psycopg",
    "tune": "peft",
    "ui": "datasette",
    "wandb": "wandb",
}
"""The module that each extra installs. (`exports` has one per format, see `release/formats/`.)"""


def is_here(extra: str) -> bool:
    """Return whether an extra is installed, without importing it."""
    try:
        return find_spec(MODULES[extra]) is not None
    except ModuleNotFoundError:  # of a package that it would lie in
        return False


@cache
def version_of(distribution: str) -> str:
    """Return the installed version; "" if none is. Asked once in a process."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def command(extra: str) -> str:
    """Return the command that installs an extra.

    >>> command("ui")
    'pip install "promptassay[ui]"'
    """
    return f'pip install "promptassay[{extra}]"'


def not_tried(layouts: Iterable[str]) -> str:
    """Return the message for prompt layouts that are skipped because their extra is missing."""
    return f"layout {', '.join(layouts)} is not tried without dspy: {command('dspy')}"


def brings(module: str | None) -> str:
    """Return `; ` and the command that installs a module; "" without an extra."""
    root = (module or "").split(".")[0]
    return next((f"; {command(extra)}" for extra, name in MODULES.items() if root.startswith(name)), "")


def missing(extra: str) -> str:
    """Return the message for an extra that is needed and not installed.

    >>> missing("ui")
    'needs datasette, which is not installed; pip install "promptassay[ui]"'
    """
    return f"needs {MODULES[extra]}, which is not installed; {command(extra)}"


def require(extra: str, what: str) -> None:
    """Raise InputError if `what`, in the user's words, needs an extra that is not installed."""
    if not is_here(extra):
        raise InputError(f"{what} {missing(extra)}")
