"""`optimize migrate`: a released prompt for another model, from the history of its run."""

from __future__ import annotations

import click

from agent.cli.declared import command
from agent.cli.progress import Progress
from agent.cli.run import print_plan, print_run
from agent.observer import NO_OBSERVER
from agent.options.jobs import MigrateOptions
from agent.options.shared import PlanOption, ShownOptions
from agent.run.launch import prepare, start
from agent.run.migration_source import migration_options


@command(MigrateOptions, PlanOption, ShownOptions, model={"required": True})
@click.argument("prompt")
def migrate_command(options: MigrateOptions, plan: PlanOption, output: ShownOptions, prompt: str) -> None:
    """Make PROMPT, which was released for one model, a prompt for another one, in few calls.

    PROMPT is a prompt.md or its folder, NAME@ALIAS, NAME@VERSION, or the id of a run. The prompts that its run tried
    are raced on the new model, and a few are made from the best. The sealed test then asks whether the new model loses
    less than --margin against the old one, whose replies to the same rows are in the ledger and are not bought again.
    Exit codes, resume and promotion are as of `optimize run`.
    """
    progress = Progress(output.quiet)
    launch = prepare(
        migration_options(prompt, options, output.db), output.db, NO_OBSERVER if output.as_json else progress
    )
    if plan.dry_run:
        print_plan(launch, output.as_json)
        return
    with progress:
        result = start(launch, output.db, progress)
    print_run(result, output.db, output.as_json)
