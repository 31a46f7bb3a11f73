"""A task folder out of traces: confirmed answers are its rows, the others lie beside them without a label."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from agent.errors import InputError
from agent.files import new_file
from agent.run.tasks import make_task
from agent.task.asked import NOTHING, Asked
from agent.task.clean_rows import MIN_ROWS
from agent.task.traces import read_traces
from agent.task.words import shown

UNLABELLED = "unlabelled.jsonl"
"""The rows of a trace file without a right answer, in the folder of its task."""


def task_from_traces(
    name: str, source: Path, prompt: str | None, seed: int, asked: Asked = NOTHING
) -> tuple[Path, list[str]]:
    """Makes a task folder out of a trace file.

    Args:
        name: as of `make_task`.
        source: the trace file.
        prompt: as of `make_task`. None: the system text of most traces, else a plain one.
        seed: decides which rows go to which split.
        asked: what else the user says of the rows.

    Returns:
        The folder, and what was read of the file, in lines.

    Raises:
        InputError: fewer than 30 answers are confirmed (the rows are then kept in a file to be labelled), or what
            `make_task` refuses.
    """
    found = read_traces(source)
    lines = list(found.lines())
    if len(found.labelled) < MIN_ROWS:
        file = Path(f"{Path(name).name}-{UNLABELLED}")
        if file.exists():
            raise InputError(f"{shown(file)} exists, and the rows to label would be written there; move it away")
        _write(file, [*found.labelled, *found.unlabelled])
        raise InputError(
            "\n".join(
                [
                    *lines,
                    f"{shown(source)}: {len(found.labelled)} answers are confirmed by a score or feedback, and a task "
                    f"needs {MIN_ROWS}; wrote the rows to {shown(file)}: fill in {found.column!r}, then "
                    f"`optimize init {name} --from {shown(file)} --target {found.column}`",
                ]
            )
        )
    if prompt is None and found.instruction:
        prompt = f"{found.instruction}\n"  # with the end of a line it is never taken as the name of a file
        lines.append("prompt: the system text of most traces")
    folder, reading = make_task(name, source, found.column, prompt, seed, asked, found.labelled)
    if found.unlabelled:
        _write(folder / UNLABELLED, found.unlabelled)
        lines.append(f"{folder / UNLABELLED}: {len(found.unlabelled)} rows without a label, which no run reads")
    return folder, [*lines, *reading.lines()]


def _write(path: Path, rows: Sequence[dict[str, str]]) -> None:
    with new_file(path, private=True) as file:
        file.write("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode("utf-8"))
