"""From a released prompt and a log of production to what moved between them. Asks no model and writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.errors import InputError
from agent.release.production_logs import compare_windows, window_of_log, window_of_suite
from agent.release.runtime import Prompt, load_prompt
from agent.release.suite import SUITE_FILE, read_suite, require_fit
from agent.run.locations import find_task
from agent.run.released_files import prompt_path, task_folder
from agent.task.load import load_task
from agent.types import Drift


def monitored(
    prompt: str,
    log: Path,
    reference: Path | None,
    suite: Path | None,
    task: str | None,
    alpha: float | None,
    seed: int,
    columns: Mapping[str, str],
    db: Path,
) -> dict[str, Any]:
    """Compares answers of production with those of the reference.

    Args:
        prompt: the path of a prompt.md, NAME@LABEL, NAME@VERSION, or the id of a run.
        log: answers of production, .jsonl or .csv.
        reference: a log of good answers. None: the suite.
        suite: recorded answers. None: suite.json beside the prompt.
        task: whose limits hold. None: the prompt's own task, if it is here.
        alpha: false alarms of one look, in (0, 0.5]. None: as the task says.
        seed: of the permutation tests.
        columns: the names of keys of both logs that have others, by ours.
        db: the ledger.

    Returns:
        The object of `optimize monitor --json`; `drift` says whether there is an alarm.

    Raises:
        InputError: there is nothing to compare with, or a file cannot be read.
    """
    if reference and suite:
        raise InputError("--reference and --suite: give one of the two")
    path = prompt_path(prompt, db)
    loaded = load_prompt(path)
    if reference:
        was = window_of_log(reference, loaded, columns)
    else:
        file = suite or path.with_name(SUITE_FILE)
        if not suite and not file.exists():
            raise InputError(
                f"{file}: no recorded answers; record some with `optimize bless`, or give --reference FILE, a log of "
                "answers that were good"
            )
        recorded = read_suite(file)
        require_fit(recorded, loaded, str(file))
        was = window_of_suite(recorded, loaded)
    limits = _limits(loaded, task, db)
    if alpha:
        limits = replace(limits, alpha=alpha)
    found = compare_windows(was, window_of_log(log, loaded, columns), loaded, limits, seed)
    return {"name": loaded.name, "version": loaded.version, "log": str(log), **found}


def _limits(prompt: Prompt, task: str | None, db: Path) -> Drift:
    """The limits of the task that is named, else of the prompt's own, else the defaults."""
    try:
        folder = find_task(task) if task else task_folder(prompt.name, prompt, db)
    except InputError:
        if task:
            raise
        return Drift()
    return load_task(folder).monitor
