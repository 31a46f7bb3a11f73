"""`optimize customize`: instruct, customize, or no language model, on the user's own sealed rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.common import cost_line, plain, print_json
from agent.cli.customize_tables import print_more
from agent.cli.declared import command
from agent.cli.progress import Progress, run_shown
from agent.cli.run import REGISTERED
from agent.cli.terminal_tables import Column, print_table, say
from agent.observer import NO_OBSERVER
from agent.options.jobs import CustomizeOptions, RecordedOptions, RunOptions
from agent.options.option import JobOptions, option
from agent.options.shared import COMPARISON, PlanOption, ShownOptions, TrackOptions
from agent.report.facts import curve_table, points

if TYPE_CHECKING:
    from agent.run.launch import Launch

COLUMNS: Sequence[Column | str] = (
    Column("arm", floor=8),
    Column("sealed test"),
    Column("95 % CI", 3),
    Column("against yours", gain=True),
    Column("95 % CI", 4),
    Column("labels", 5),
    Column("train s", 2),
    Column("tokens", 6),
    Column("$/1,000", 7),
    Column("call s", 1),
    Column("pays from", 2),
    Column("elsewhere", 8),
    Column("MB", 9),
)


class ExportOption(JobOptions):
    """Files to train on instead of a comparison."""

    export_only: Path | None = option(
        None,
        "Write the files to train on and the commands that start the training into DIR, and call nothing.",
        COMPARISON,
        metavar="DIR",
    )


@command(
    CustomizeOptions,
    RunOptions,
    TrackOptions,
    ExportOption,
    PlanOption,
    ShownOptions,
    types=REGISTERED,
    ray={"is_flag": False, "flag_value": "local"},
)
@click.argument("task")
def customize_command(
    asked: CustomizeOptions,
    options: RunOptions,
    track: TrackOptions,
    files: ExportOption,
    plan: PlanOption,
    output: ShownOptions,
    task: str,
) -> None:
    """Compare, on one sealed test: your prompt, the best prompt, adapters trained on your rows, and no language model.

    TASK is as for `optimize run`. The prompts are those of a finished search of the task, or of one that is made first.
    Adapters (LoRA) and soft prompts are trained here, on the processor, for embedded models, and with `--arms full` all
    weights of a copy; `--arms hosted` uploads your rows and has the model's provider train it. The table says what each
    arm scores, costs and takes, and a stated rule says which to use. Killed or interrupted, the same command goes on
    where it was.
    """
    from agent.run.customize.hosted import require_service
    from agent.run.customize.prepare import (
        checked,
        comparison_options,
        finished_search,
        prepare_customize,
        require_cluster,
    )
    from agent.run.launch import prepare
    from agent.run.session import start
    from agent.run.tracking import Tracking

    db, as_json, tracking = output.db, output.as_json, Tracking.of(track)
    search = options.changed_to(RecordedOptions, task=task)
    with Progress(output.quiet) as progress:
        launch = prepare(search, db, NO_OBSERVER if as_json else progress)
        if files.export_only is None:
            checked(launch, asked, progress.download)
        run = asked.run or finished_search(launch, db)
        if files.export_only is not None:
            _export(launch, run, files.export_only, db, as_json)
            return
        if plan.dry_run:
            _say_plan(launch, asked, run, db, as_json)
            return
        if not run:
            require_cluster(asked)
            if "hosted" in asked.arms:
                require_service(launch.target)
            run = start(launch, db, progress, tracking=tracking).run_id
            launch = prepare(search, db, is_new=False)  # the models of the search are closed
    job = prepare_customize(launch, run, asked, db)
    result = run_shown(job, comparison_options(launch), output, "comparing the arms", tracking)
    if as_json:
        print_json(result)
    else:
        click.echo(customize_report(result))


def _say_plan(launch: Launch, asked: CustomizeOptions, run: str, db: Path, as_json: bool) -> None:
    from agent.run.customize import prepare

    plan = prepare.dry_run(launch, run, asked, db)
    if as_json:
        print_json(plan)
        return
    click.echo(plain(f"{plan['task']} on {plan['model']}: {', '.join(plan['arms'])}"))
    click.echo(plain(plan["trainings_text"]))
    calls = "a search first (`optimize run --dry-run` says with how many calls), then the comparison"
    click.echo(plain(f"at most {plan['calls']:,} calls, prompts of {run}" if run else calls))


def _export(launch: Launch, run: str, folder: Path, db: Path, as_json: bool) -> None:
    from agent.run.customize.prepare import export_training

    told = export_training(launch, run, folder, db)
    if as_json:
        print_json(told)
        return
    whose = (
        f"the best instruction of {told['of_run']}" if told["of_run"] else "your own prompt: no search is finished yet"
    )
    click.echo(plain(f"{told['rows']:,} train rows, {told['tokens']:,} tokens at most an epoch, with {whose}"))
    click.echo("\n".join(plain(path) for path in told["files"]))


def customize_report(result: Mapping[str, Any]) -> str:
    """Prints the tables and the advice of a comparison, for the width of the terminal; returns the lines below them."""
    rows = result["rows"]
    click.echo()
    title = f"{result['task']} on {result['model']}: {rows['test']} sealed rows, {rows['train']} train rows"
    print_table(title, COLUMNS, [_row(arm) for arm in result["arms"]])
    click.echo()
    if result["curve"]:
        sizes = sorted({point["labels"] for point in result["curve"]})
        heads = [Column("arm", floor=8), *(Column(f"{size:,} rows", 1) for size in sizes)]
        print_table("sealed test by the number of train rows", heads, curve_table(result["curve"]))
        click.echo()
        say(result["curve_text"])
    print_more(result)
    say(result["advice"]["text"], "bold")
    lines = []
    if trained := result.get("fine_tuning"):
        paid = "at a price that nobody knows" if trained["usd"] is None else f"for ${trained['usd']:.4f}"
        lines.append(plain(f"hosted: {trained['model']} (job {trained['job']}), trained {paid}"))
    lines += [cost_line(result), plain(f"run {result['run_id']}, prompts of {result['of_run']}")]
    for arm in result["arms"]:
        if arm["path"]:
            lines.append(plain(f"{arm['arm']}: {arm['path']}; optimize promote {result['run_id']} --arm {arm['arm']}"))
    return "\n".join(lines)


def _row(arm: Mapping[str, Any]) -> list[str]:
    elsewhere, pays = arm["elsewhere"], arm["break_even_calls"]
    return [
        arm["arm"],
        points(arm["test"]),
        _interval(arm["ci95"]),
        "" if arm["diff"] is None else f"{100 * arm['diff']:+.1f}",
        _interval(arm["diff_ci95"], "+"),
        f"{arm['labels']:,}",
        f"{arm['train_s']:.0f}" if arm["train_s"] else "",
        f"{arm['tokens_per_call']:.0f}",
        "-" if arm["usd_per_1000"] is None else f"{arm['usd_per_1000']:.2f}",
        "-" if arm["latency_s"] is None else f"{arm['latency_s']:.2f}",
        f"{pays:,}" if pays else "",
        f"{elsewhere['same']} of {elsewhere['n']} as before" if elsewhere else "",
        f"{arm['megabytes']:.1f}" if arm["megabytes"] else "",
    ]


def _interval(interval: Sequence[float] | None, sign: str = "") -> str:
    return "" if interval is None else f"{100 * interval[0]:{sign}.1f} to {100 * interval[1]:{sign}.1f}"
