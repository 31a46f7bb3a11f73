"""`optimize customize`: instruct, customize, or no language model, on the user's own sealed rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.common import Registered, plain, print_json, print_shown
from agent.cli.declared import command
from agent.cli.progress import Progress, run_shown
from agent.observer import NO_OBSERVER
from agent.options.jobs import CustomizeOptions, RecordedOptions, RunOptions
from agent.options.option import JobOptions, option
from agent.options.shared import COMPARISON, PlanOption, ShownOptions, TrackOptions
from agent.search.registered import STRATEGIES
from agent.tracking.tracker import TRACKERS

if TYPE_CHECKING:
    from agent.jobs.launch import Launch


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
    types={"strategy": Registered(STRATEGIES), "track": Registered(TRACKERS)},
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
    from agent.jobs.customize.hosted import require_service
    from agent.jobs.customize.prepare import (
        checked,
        finished_search,
        prepare_customize,
        require_cluster,
    )
    from agent.jobs.launch import prepare, start
    from agent.jobs.tracking import Tracking

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
                require_service(launch.model)
            run = start(launch, db, progress, tracking=tracking).run_id
            launch = prepare(search, db, is_new=False)  # the models of the search are closed
    job = prepare_customize(launch, run, asked, db)
    is_quiet = output.quiet or as_json
    result = run_shown(job, db, is_quiet, "comparing the arms", tracking)
    print_shown(result, as_json)


def _say_plan(launch: Launch, asked: CustomizeOptions, run: str, db: Path, as_json: bool) -> None:
    from agent.jobs.customize import prepare

    plan = prepare.dry_run(launch, run, asked, db)
    if as_json:
        print_json(plan)
        return
    click.echo(plain(f"{plan['task']} on {plan['model']}: {', '.join(plan['arms'])}"))
    click.echo(plain(plan["trainings_text"]))
    calls = "a search first (`optimize run --dry-run` says with how many calls), then the comparison"
    click.echo(plain(f"at most {plan['calls']:,} calls, prompts of {run}" if run else calls))


def _export(launch: Launch, run: str, folder: Path, db: Path, as_json: bool) -> None:
    from agent.jobs.customize.prepare import export_training

    told = export_training(launch, run, folder, db)
    if as_json:
        print_json(told)
        return
    whose = (
        f"the best instruction of {told['of_run']}" if told["of_run"] else "your own prompt: no search is finished yet"
    )
    click.echo(plain(f"{told['rows']:,} train rows, {told['tokens']:,} tokens at most an epoch, with {whose}"))
    click.echo("\n".join(plain(path) for path in told["files"]))
