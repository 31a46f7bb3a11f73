"""`optimize apply`: a released prompt on a file of rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.common import PATH, print_result
from agent.cli.declared import command
from agent.options.jobs import ApplyOptions
from agent.options.shared import ShownOptions

if TYPE_CHECKING:
    pass


@command(ApplyOptions, ShownOptions, output={"required": True})
@click.argument("prompt")
@click.argument("file", type=PATH)
def apply_command(options: ApplyOptions, output: ShownOptions, prompt: str, file: Path) -> None:
    """Ask a released PROMPT each row of FILE, and write the rows with the answers.

    PROMPT is the path of a prompt.md, NAME@ALIAS, or the id of a run. FILE is a data file (.csv, .tsv, .jsonl, .json,
    .xlsx, .parquet) with a column for each input of the prompt; other columns are carried through. The new columns are
    the prompt's outputs, and error, which says why a row has no answer. The file is written at the end, whole or not at
    all; every reply is in the ledger, so the same command goes on after a stop and asks only what is missing. In a .csv
    a model's text that a spreadsheet would run as a formula (it begins with = + - @) gets an apostrophe before it;
    .jsonl is exact.
    """
    from agent.cli.progress import run_shown
    from agent.run.apply import prepare_apply
    from agent.run.launch import silence

    silence()
    ready = prepare_apply(prompt, file, options, output.db)
    result = run_shown(ready, options, output, "asking each row of the file")
    print_result(result, output.as_json)
