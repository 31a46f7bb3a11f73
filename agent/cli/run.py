"""`optimize run` and `resume`: from a task, a model and a budget to a tested prompt."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path

import click

from agent.cli.common import Registered, plain, print_json
from agent.cli.declared import command
from agent.cli.progress import Progress
from agent.errors import AgentError
from agent.observer import NO_OBSERVER
from agent.options.jobs import RecordedOptions, ResumeOptions, RunOptions
from agent.options.shared import PlanOption, PublishedOptions, TrackOptions
from agent.release.result import RunResult
from agent.report.run_blocks import screen_lines
from agent.report.view import RunView
from agent.run.launch import Launch, prepare, start
from agent.run.locations import ledger_option, open_history
from agent.run.resume import prepare_resume
from agent.run.tracking import Tracking
from agent.search.registered import STRATEGIES
from agent.stats.intervals import smallest_margin
from agent.tracking.tracker import TRACKERS

REGISTERED = {"strategy": Registered(STRATEGIES), "track": Registered(TRACKERS)}


class _WholeText(click.types.StringParamType):
    """A text whose environment variable is one value, blanks included, also where the option may be repeated."""

    def split_envvar_value(self, rv: str) -> list[str]:
        return [rv]


def _single_model(ctx: click.Context, option: click.Parameter, names: tuple[str, ...]) -> str | None:
    if len(names) > 1:
        raise click.BadParameter("a run prompts one model; `optimize transfer` scores its best prompts on others")
    return names[0] if names else None


ONE_MODEL = {"type": _WholeText(), "multiple": True, "callback": _single_model}


@command(RunOptions, TrackOptions, PlanOption, PublishedOptions, types=REGISTERED, model=ONE_MODEL)
@click.argument("task")
def run_command(
    options: RunOptions, track: TrackOptions, plan: PlanOption, output: PublishedOptions, task: str
) -> None:
    """Search for the best prompt of TASK, test it once on sealed rows, and write the prompt to ship to runs/.

    TASK is a name under tasks/, a folder with a task.toml, or a data file (.csv, .tsv, .jsonl, .json, .xlsx, .parquet)
    together with --target and --prompt.
    Exit codes: 0 done (also when your prompt is kept), 1 error, 2 usage (also a key, address or name that the provider
    refuses), 3 budget too small, 130 interrupted; after 1 and 130 the last line is the command that continues.
    """
    progress, tracking = Progress(output.quiet), Tracking.of(track)
    require_database(output.ledger_url)
    asked = options.changed_to(RecordedOptions, task=task)
    launch = prepare(asked, output.db, NO_OBSERVER if output.as_json else progress)
    if plan.dry_run:
        print_plan(launch, output.as_json)
        return
    with progress:
        result = start(launch, output.db, progress, tracking=tracking)
    print_run(result, output.db, output.as_json)
    publish_finished(output.ledger_url, result.run_id, output.db)


@command(ResumeOptions, TrackOptions, PublishedOptions, types=REGISTERED)
@click.argument("run", required=False, default="")
def resume_command(changes: ResumeOptions, track: TrackOptions, output: PublishedOptions, run: str) -> None:
    """Continue RUN (default: the latest that did not finish). Nothing that was paid for is bought again.

    Refuses when the task, its data or metrics, the model or the program changed since, naming what changed; --fork
    starts a new run with what is there now, which still takes every call that it shares from the ledger.
    """
    progress, tracking = Progress(output.quiet), Tracking.of(track)
    require_database(output.ledger_url)
    prepared = prepare_resume(run, changes, output.db, NO_OBSERVER if output.as_json else progress)
    with progress:
        for line in prepared.lines:
            progress.on_message(line)
        result = start(prepared.launch, output.db, progress, prepared.resumed, tracking=tracking)
    print_run(result, output.db, output.as_json)
    publish_finished(output.ledger_url, result.run_id, output.db)


def print_run(result: RunResult, db: Path, as_json: bool) -> None:
    """Prints the result of a run."""
    if as_json:
        print_json(result.to_json())
    else:
        lines = None
        with suppress(AgentError), closing(open_history(db)) as history:  # a result that is there is printed
            lines = screen_lines(result, RunView(history, result.run_id), brief=True)
        click.echo("\n".join(lines or screen_lines(result, brief=True)))


def detectable_line(gains: Mapping[float, float]) -> str:
    """The smallest gain (0 to 1; inf: none) that the sealed test can show, by the baseline's score (0 to 1)."""
    words = [
        f"{f'{100 * gain:.0f} points' if math.isfinite(gain) else 'none'} if your prompt scores {100 * rate:.0f}"
        for rate, gain in gains.items()
    ]
    return f"the smallest gain that the sealed test can show (80 % power): {', '.join(words)}"


def print_plan(launch: Launch, as_json: bool) -> None:
    """The priced plan: what each role may call at most, in calls, tokens and dollars."""
    from agent.run.launch import estimate

    plan = estimate(launch)
    least = smallest_margin(max(1, plan.plan.test_rows))
    if as_json:
        margins = {"margin": launch.migration.margin, "smallest_margin": least} if launch.migration else {}
        print_json({**plan.as_dict(), **margins})
        return
    click.echo(plain(launch.opening(plan.plan)))
    for role, row in plan.roles.items():
        cost = "unknown price" if row["usd"] is None else f"${row['usd']:.4f}"
        if row["calls"]:
            click.echo(
                f"  {role:<9} {plain(row['model'])}: {row['calls']} calls, about {row['tokens']:,} tokens, {cost}"
            )
    cost = "unknown price" if plan.usd is None else f"${plan.usd:.2f}"
    allowed = f", as {plan.cap} allows" if plan.cap else ""
    click.echo(f"at most about {plan.tokens:,} tokens, {cost}{allowed}; nothing was called")
    if launch.migration is None:
        click.echo(detectable_line(plan.gains))
    else:
        click.echo(f"two models of one quality pass this sealed test from about --margin {100 * least:.0f} on")


def require_database(url: str | None) -> None:
    """Raises InputError, before anything is spent, for a --ledger-url that names no database."""
    if url is not None:
        from agent.ledger.team_store import database

        database(url)


def publish_finished(url: str | None, run_id: str, db: Path) -> None:
    """Publishes a run that has just finished. What goes wrong is only said, with the command that repeats it."""
    if url is None:
        return
    from agent.ledger.team_store import publish
    from agent.redact import without_password

    try:
        with closing(open_history(db)) as history:
            click.echo(plain(publish(history, run_id, url).line()), err=True)
    except AgentError as error:
        again = f"optimize ledger publish {run_id} --to {shlex.quote(without_password(url))}{ledger_option(db)}"
        click.echo(f"not published: {plain(str(error))}\npublish it with: {plain(again)}", err=True)
