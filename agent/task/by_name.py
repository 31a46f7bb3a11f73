"""Task folders by name: those here and the samples."""

from __future__ import annotations

from pathlib import Path

from agent.errors import InputError
from agent.safe_text import closest

SAMPLES = Path(__file__).parents[1] / "samples"
"""The tasks that ship with the package."""


def find_task(name: str) -> Path:
    """Return a task's folder by path, or by name under tasks/. Raises InputError."""
    for place in (Path(name), Path("tasks") / name):
        if (place / "task.toml").is_file():
            return place
    known = tasks_here()
    near = closest(name, known)
    hint = f"did you mean {near}" if near else f"tasks here: {', '.join(known) or 'none'}"
    more = f"`optimize init --sample {name}` copies it here" if name in samples() else "`optimize init` makes a new one"
    raise InputError(f"{name}: no task of this name and no folder with a task.toml; {hint}; {more}")


def tasks_here() -> list[str]:
    return sorted(path.parent.name for path in Path("tasks").glob("*/task.toml"))


def samples() -> list[str]:
    return sorted(path.parent.name for path in SAMPLES.glob("*/task.toml"))
