"""`optimize learn`: corrected answers of production as train rows of a new version of a task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.check import by_key, column_options
from agent.cli.common import PATH, SETTINGS, json_option, print_result

if TYPE_CHECKING:
    pass

LINES = 8  # lines of the log that are named for a reason


@click.command(context_settings=SETTINGS)
@click.argument("task")
@click.argument("log", type=PATH)
@click.option("-o", "--output", type=PATH, help="The new folder. Default: TASK-2 (or -3 ...) beside the task's.")
@click.option("--in-place", is_flag=True, help="Add the rows to TASK itself.")
@click.option("--dry-run", is_flag=True, help="Say what would be taken, and write nothing.")
@column_options("inputs", "answer")
@json_option
def learn_command(
    task: str, log: Path, output: Path | None, in_place: bool, dry_run: bool, as_json: bool, **columns: str
) -> None:
    """Take the corrected answers of LOG into the train rows of TASK, as a new version of the task.

    LOG is a .jsonl or .csv file, a row for each answer that a person has confirmed or corrected: the inputs by their
    names (or in `inputs`), and the right answer as `answer` or by the name of the output. Other keys are ignored. Left
    out, with a count, are rows that are equal or near to a row of dev or test, rows that are in train, rows that
    contradict each other or hold what looks like a key, and what does not fit the task, such as an unknown label. Dev
    and test stay as they are; learned.jsonl says where each row came from. No model is asked.
    """
    from agent.run.learn import learn

    if output is not None and in_place:
        raise click.UsageError("-o and --in-place exclude each other; name a new folder, or add to the task itself")
    result = learn(task, log, output, by_key(columns), in_place=in_place, dry_run=dry_run)
    print_result(result, as_json)
