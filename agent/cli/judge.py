"""`optimize judge`: is a judge to be trusted, and what do people say of the answers?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agent.cli.common import SEED, SETTINGS, db_option, json_option, print_json
from agent.cli.errands import run_errand, spending_options
from agent.cli.judge_rate import rate_command
from agent.launch import silence


@click.group(context_settings=SETTINGS)
def judge_command() -> None:
    """Measure a judge against people (calibrate), and collect blinded ratings (rate)."""


@click.command(context_settings=SETTINGS)
@click.argument("task", required=False)
@click.option("--labels", type=click.Path(path_type=Path), help="Ratings of people, .jsonl or .csv.")
@click.option(
    "--judge",
    multiple=True,
    help="The model that judges; repeat it for a panel. Default: the task's, else the task's model, else the embedded.",
)
@click.option(
    "--input", "inputs", multiple=True, help="Without TASK: a column that the answer was made from; repeatable."
)
@click.option("--output", help="The column of the answer; with TASK the field that its judge rates.")
@click.option("--pair", help="Two columns, A,B: answers that were compared; ratings are then 1, 2 or tie.")
@click.option(
    "--rating", default="rating", show_default=True, help="The column of the rating, or of comma-separated votes."
)
@click.option("--scale", help="Lowest and highest rating of the people. Default: those of the rubric, else 1-5.")
@click.option(
    "--mode",
    type=click.Choice(["rubric", "reference", "pairwise"]),
    help="With TASK: which of its judges, where several rate the same field.",
)
@click.option("--rubric", type=click.Path(path_type=Path), help="Without TASK: what the judge goes by.")
@click.option("--about", default="", help="Without TASK: in a sentence, what the answers are for.")
@click.option("--limit", type=click.IntRange(1), help="Use the first so many items.")
@click.option("--repeats", type=click.IntRange(1, 10), default=3, show_default=True, help="How often an item is asked.")
@spending_options
@click.option("--seed", type=SEED, default=0, show_default=True, help="For the intervals.")
@click.option("--gate", is_flag=True, help="End with 100 when the judge is not to be trusted.")
@click.option("--dry-run", is_flag=True, help="Print what would be asked; call nothing.")
@db_option
@json_option
def calibrate_command(db: Path, gate: bool, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Measure a judge against ratings of people, and write into the ledger whether it may promote prompts.

    With TASK its judge, rubric and fields are taken, and its calibration.jsonl without --labels. Without TASK name the
    columns: --labels FILE --input COLUMN --output COLUMN, or --pair A,B for pairs. A judge is trusted when it agrees
    with people (kappa 0.6 or more on 30 items or more), its verdicts can be read, and answers that are none do not fool
    it. Each line says what was measured, with its 95 % interval.
    """
    from agent.cli.calibrate import report
    from agent.run.calibrating import calibrating

    silence()
    quiet = bool(options["quiet"] or as_json)
    made = calibrating(options)
    if dry_run:
        click.echo(made.opening)
        return
    if not quiet:
        click.echo(made.opening, err=True)
    result = run_errand(made.ready, options, db, quiet)
    if as_json:
        print_json(result)
    else:
        click.echo(report(result))
    if gate and not result["trusted"]:
        raise SystemExit(100)


judge_command.add_command(calibrate_command, "calibrate")
judge_command.add_command(rate_command, "rate")
