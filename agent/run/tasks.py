"""The tasks that are here, and a new one out of a file of the user."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import InputError, ProblemsError
from agent.run.locations import find_task
from agent.task.asked import NOTHING, Asked
from agent.task.load import load_task

if TYPE_CHECKING:
    from agent.task.from_file import Reading


def listed(task: str | None) -> list[dict[str, Any]]:
    """What there is to know of each task under tasks/, or of the one that is named.

    Raises ProblemsError with all that is wrong with the one that is named.
    """
    folders = [find_task(task)] if task else sorted(path.parent for path in Path("tasks").glob("*/task.toml"))
    found: list[dict[str, Any]] = []
    for folder in folders:
        try:
            loaded = load_task(folder)
        except ProblemsError:
            if task:
                raise
            found.append({"name": folder.name, "problem": "broken: `optimize tasks " + folder.name + "` says where"})
            continue
        found.append(
            {
                "name": loaded.name,
                "signature": str(loaded.signature),
                "description": loaded.description,
                "rows": {"train": len(loaded.train), "dev": len(loaded.dev), "test": len(loaded.test)},
                "metrics": [metric.name for metric in loaded.metrics],
                "techniques": list(loaded.space.techniques),
                "formats": list(loaded.space.formats),
            }
        )
    return found


def make_task(
    name: str, source: Path, target: str, prompt: str | None, seed: int, asked: Asked = NOTHING
) -> tuple[Path, Reading]:
    """Makes a task folder out of a file.

    Args:
        name: the folder, under tasks/ where it is no path.
        source: a data file, or promptfoo's tests.
        target: the column to predict; "" for promptfoo's tests.
        prompt: the prompt of today, as a file or a text. None: a plain one is written.
        seed: decides which rows go to which split.
        asked: what else the user says of the file; not with promptfoo's tests, which say it themselves.

    Returns:
        The folder, and how the file was read.

    Raises:
        InputError: the name is none, the target is missing, or the file cannot be made a task.
    """
    from agent.run.launch import prompt_text
    from agent.task.from_file import write_task
    from agent.task.promptfoo_tests import EXPECTED, is_promptfoo, promptfoo_tests

    if not re.fullmatch(r"[^\W_][\w.-]*", Path(name).name):
        raise InputError(f"{name!r}: a task's folder has a name of letters, digits, dots, dashes and underscores")
    folder = Path(name) if len(Path(name).parts) > 1 else Path("tasks") / name
    instruction = prompt_text(prompt) if prompt else ""
    tests = not target and is_promptfoo(source)
    if not target and not tests:
        raise InputError(f"{source}: name the column to predict with --target COLUMN")
    if tests and asked.is_any:
        raise InputError(f"{source}: --metric, --type, --input and --ignore do not go with promptfoo's tests")
    table, metric = promptfoo_tests(source) if tests else (None, None)
    column = EXPECTED if tests else target
    _, reading = write_task(folder, source, column, instruction, seed, folder.name, table, metric, asked)
    return folder, reading
