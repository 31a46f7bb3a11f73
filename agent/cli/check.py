"""`optimize check`, `bless`, `monitor` and `ab`: a released prompt against its reference, and A/B tests of two."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.common import (
    PATH,
    SETTINGS,
    F,
    Number,
    Registered,
    json_option,
    ledger_options,
    print_result,
)
from agent.cli.declared import command
from agent.options.jobs import BlessOptions, CheckOptions
from agent.options.kinds import Time
from agent.options.option import option
from agent.options.shared import OUTPUT, ShownOptions, TrackOptions
from agent.tracking.tracker import TRACKERS

if TYPE_CHECKING:
    pass

SHOWN = 20  # flips in the text
LABELS = 6  # shown of a mix, the most that moved first


def column_options(*keys: str) -> Callable[[F], F]:
    """`--KEY-column` for each key that is read of a log."""

    def added(function: F) -> F:
        for key in reversed(keys):
            about = f"The key of the {key} in a row; a.b is b inside a."
            option = click.option(f"--{key}-column", metavar="NAME", default=key, show_default=True, help=about)
            function = option(function)
        return function

    return added


def by_key(columns: Mapping[str, str]) -> dict[str, str]:
    return {option.removesuffix("_column"): name for option, name in columns.items()}


class CheckOutput(ShownOptions):
    """What a check shows and writes."""

    every: Time = option(
        None,
        "For schedulers: do nothing and end with 0 where the last check of this version on this model began less than "
        "TIME ago (12h, 1d).",
        OUTPUT,
        metavar="TIME",
    )
    history: bool = option(False, "Show the checks of this prompt so far, and ask nothing.", OUTPUT)
    page: Path | None = option(
        None, "With {history}: also write them as an HTML page with a chart.", OUTPUT, metavar="FILE"
    )
    junit: Path | None = option(None, "Write the result as JUnit XML.", OUTPUT, metavar="FILE")
    markdown: Path | None = option(None, "Write the result as Markdown.", OUTPUT, metavar="FILE")


@command(CheckOptions, TrackOptions, CheckOutput, types={"track": Registered(TRACKERS)})
@click.argument("prompt")
def check_command(options: CheckOptions, track: TrackOptions, output: CheckOutput, prompt: str) -> None:
    """Ask a released PROMPT the rows of its suite again, and compare with what was recorded; 100 when it got worse.

    PROMPT is the path of a prompt.md or the id of a run. Without suite.json beside it (`optimize bless` writes one) the
    dev rows are taken, as its run in the ledger scored them. The gate fails when the score fell significantly, or when
    more answers changed than repeat noise explains; repeat noise alone fails it in at most 5 % of all checks. The model
    is asked afresh, not the ledger.
    """
    from agent.cli.check_history import show_history, show_not_due
    from agent.cli.progress import run_shown
    from agent.release.regression import as_junit, as_markdown, require_place, write_text
    from agent.run.check_history import check_history, not_due
    from agent.run.launch import silence
    from agent.run.prompt_check import prepare_check
    from agent.run.tracking import Tracking

    db, as_json = output.db, output.as_json
    if output.page is not None and not output.history:
        raise click.UsageError("--page goes with --history")
    if output.history:
        show_history(*check_history(prompt, options.model, db), options.model, output.page, as_json)
        return
    tracking = Tracking.of(track)
    silence()
    for flag, place in (("--junit", output.junit), ("--markdown", output.markdown)):
        if place is not None:
            require_place(place, flag)
    job, suite_then = prepare_check(prompt, options, db)
    every = None if output.every is None else float(output.every)
    if (early := not_due(prompt, job, every, db)) is not None:
        show_not_due(early, as_json)
        return
    result = run_shown(job, options, output, "checking the prompt", tracking)
    print_result(result, as_json)
    if output.junit:
        write_text(output.junit, as_junit(result, [row.id for row in suite_then.rows]))
    if output.markdown:
        write_text(output.markdown, as_markdown(result))
    if not result.passed:
        raise SystemExit(100)


@command(BlessOptions, ShownOptions, reason={"required": True})
@click.argument("prompt")
def bless_command(options: BlessOptions, output: ShownOptions, prompt: str) -> None:
    """Record what a released PROMPT answers now as the reference of `optimize check`, in suite.json beside it.

    The reason goes into the ledger's chain. The rows are those of the suite that is there, else the dev rows of the
    prompt's task; never those of the sealed test. Asked more than once, the answers also say what is repeat noise.
    """
    from agent.cli.progress import run_shown
    from agent.run.launch import silence
    from agent.run.prompt_check import prepare_bless

    silence()
    job = prepare_bless(prompt, options, output.db)
    result = run_shown(job, options, output, "recording the reference")
    print_result(result, output.as_json)


@click.command(context_settings=SETTINGS)
@click.argument("prompt")
@click.argument("log", type=PATH)
@click.option("--reference", type=PATH, help="A log of good answers. Default: the suite.")
@click.option("--suite", type=PATH, help="Recorded answers. Default: suite.json beside PROMPT.")
@click.option("--task", help="Whose [monitor] limits hold. Default: the prompt's own task, if it is here.")
@click.option("--alpha", type=Number(0, 0.5, min_open=True), help="False alarms of one look; over the task's.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="For permutation tests.")
@column_options("reply", "inputs", "time", "score", "confidence")
@ledger_options
def monitor_command(
    prompt: str,
    log: Path,
    reference: Path | None,
    suite: Path | None,
    task: str | None,
    alpha: float | None,
    seed: int,
    db: Path,
    as_json: bool,
    **columns: str,
) -> None:
    """Compare LOG, answers of production, with the reference answers of a released PROMPT; 100 when they drifted.

    LOG is a .jsonl or .csv file, a row for each answer: reply, and where known inputs, time, score and confidence (0 to
    1). Other keys are ignored, --reply-column and its like name these otherwise (of both logs), and rows that cannot be
    read are left out, with a note. Looked at are replies that cannot be read, the mix of labels, lengths, answers to
    inputs that come again, scores, and the share of answers below the confidence that the release names. An alarm needs
    a change that is significant, corrected for the number of tests, and as large as [monitor] in task.toml says. No
    model is asked.
    """
    from agent.run.prompt_check import compare_log

    result = compare_log(prompt, log, reference, suite, task, alpha, seed, by_key(columns), db)
    print_result(result, as_json)
    if result.drift:
        raise SystemExit(100)


@click.group(context_settings=SETTINGS)
def ab_command() -> None:
    """Read the outcomes of an A/B test, at any time."""


@ab_command.command("report", context_settings=SETTINGS)
@click.argument("outcomes", type=PATH)
@click.option("--control", help="The arm to compare with. Default: the first by name.")
@click.option("--alpha", type=Number(0, 0.5, min_open=True), default=0.05, show_default=True, help="The error rate.")
@click.option(
    "--smallest",
    type=Number(0, 1),
    default=0.0,
    show_default=True,
    help="A difference below it does not matter, so that equal arms can be told as well.",
)
@click.option(
    "--several",
    type=click.Choice(["refuse", "first"]),
    default="refuse",
    show_default=True,
    help="A unit with several outcomes: an error, or its first one counts.",
)
@column_options("unit", "arm", "outcome")
@json_option
def report_command(
    outcomes: Path, control: str | None, alpha: float, smallest: float, several: str, as_json: bool, **columns: str
) -> None:
    """Tell the difference of two arms with a confidence sequence: look as often as you like, and stop when you like.

    OUTCOMES is a .jsonl or .csv file, a row for each outcome in the order in which they came: unit (a user, a session),
    arm, outcome from 0 to 1. Other keys are ignored, --unit-column and its like name these otherwise, and rows that
    cannot be read are left out, with a note. Each is paired with the latest of the other arm. However often it is
    looked at, arms that are equal, or drift together, are told apart in at most 5 % of all tests.
    """
    from agent.release.production_logs import ab_report as compared_arms
    from agent.release.production_logs import read_outcomes

    read = read_outcomes(outcomes, control, first=several == "first", columns=by_key(columns))
    result = compared_arms(read, alpha, smallest)
    print_result(result, as_json)
