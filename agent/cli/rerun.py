"""What runs a run again: `optimize reproduce` from its stored replies, `transfer` on other models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.common import (
    SETTINGS,
    cost_line,
    ledger_options,
    plain,
    print_json,
    print_result,
    short,
)
from agent.cli.declared import command
from agent.cli.progress import run_shown
from agent.options.jobs import TransferOptions
from agent.options.shared import ShownOptions
from agent.report.facts import points

if TYPE_CHECKING:
    from agent.results.transfer import TransferLift, TransferResult, TransferScore


@click.command(context_settings=SETTINGS)
@click.argument("run", required=False, default="")
@click.option(
    "--offline",
    is_flag=True,
    default=True,
    show_default=True,
    help="From stored replies only; there is no other way yet.",
)
@ledger_options
def reproduce_command(run: str, offline: bool, db: Path, as_json: bool) -> None:
    """Make RUN (default: the latest) again from the stored replies, without a request, and report what drifted.

    Compared are every trial, the score of every row, the result and the released prompt. Of a comparison (`optimize
    customize`) each adapter is trained again, as long as it took then, and its file compared. Ends with 0 when all are
    the same, with 1 otherwise. Refuses when the task, its rows or the program changed since.
    """
    from agent.run.reproduce import reproduce

    result = reproduce(run, db, lambda line: click.echo(plain(line), err=True))
    if as_json:
        print_json(result.to_json())
    else:
        click.echo("".join(f"{plain(line)}\n" for line in result.drift), nl=False)
        count = len(result.drift)
        things = f"{count} thing{'s' * (count > 1)} drifted" if count else "the same"
        made = f"{result.trials} trials, {result.scores} scores"
        if result.trainings:
            made = f"{len(result.trainings)} trainings"
        click.echo(f"{result.run_id}: {things}: {made}, 0 requests")
    if result.drift:
        raise SystemExit(1)


@command(TransferOptions, ShownOptions, models={"required": True})
@click.argument("run")
def transfer_command(options: TransferOptions, output: ShownOptions, run: str) -> None:
    """Score the best prompts of RUN, and your own, on other models over the same dev rows, and show the matrix.

    Only candidates that saw the whole of dev take part. The run's own model comes first, with the scores of the run;
    these prompts were chosen by them, so they flatter. Calls that the ledger holds are not made again. The sealed test
    is not touched.
    """
    from agent.run.launch import silence
    from agent.run.model_transfer import prepare_transfer

    silence()
    job = prepare_transfer(run, options, output.db)
    result = run_shown(job, options, output, "scoring prompts on other models")
    print_result(result, output.as_json, transfer_report)


def transfer_report(result: TransferResult) -> str:
    """The matrix as text: a line for each prompt, a column for each model, with score, interval and rank."""
    names = [f"{model.model}{' (own)' if model.own else ''}" for model in result.models]
    lines = ["", plain(f"{result.task}: run {result.of_run} on {result.rows} dev rows")]
    for number, name in enumerate(names):
        lines.append(plain(f"  [{number + 1}] {name}"))
    cells = [[_cell(model.scores[at]) for model in result.models] for at in range(len(result.candidates))]
    width = max(len(cell) for row in cells for cell in row)
    head = "".join(f"  {f'[{number + 1}]':<{width}}" for number in range(len(names)))
    lines += ["", f"{'trial':>5}{head}  prompt"]
    for candidate, row in zip(result.candidates, cells, strict=True):
        about = f"{candidate.technique}, {candidate.format}, {candidate.n_demos} demos"
        about = "your prompt" if candidate.trial == 0 else about
        lines.append(f"{candidate.trial:>5}{''.join(f'  {cell:<{width}}' for cell in row)}  {short(about, 60)}")
    lines += [
        "",
        "score [95 % CI] #rank; + or - where it differs from your prompt there (p < 0.05 by Holm over all cells);",
        "on the run's own model nothing is tested: these scores chose the prompts",
    ]
    if result.status == "budget":
        lines.append("the budget ended it early; cells that were not finished have no score")
        lines.append("the same command with a larger cap, or --limit ROWS, goes on from the calls that were made")
    return "\n".join([*lines, cost_line(result)])


def _cell(score: TransferScore) -> str:
    if score.mean is None or score.ci95 is None:
        return "-"
    low, high = score.ci95
    return f"{points(score.mean)} [{100 * low:.0f}, {100 * high:.0f}] #{score.rank}{_mark(score.lift)}"


def _mark(lift: TransferLift | None) -> str:
    """+ or - where test and interval both show it, as in a promotion."""
    from agent.release.gate import shown

    if lift is None or lift.p_holm is None:
        return ""
    return ("", "+", "-")[shown(lift.ci95, lift.p_holm)]
