"""`optimize run` and `resume`: from a task, a model and a budget to a tested prompt."""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from agent.cli.common import (
    BATCH,
    BATCH_WAIT_HELP,
    CONCURRENCY_HELP,
    COUNT,
    DOLLARS,
    FORM,
    MAX_WAIT_HELP,
    PRICE_HELP,
    SEED,
    SETTINGS,
    THINKING_HELP,
    Number,
    Registered,
    batch_options,
    data_options,
    ledger_options,
    ledger_url_option,
    margin_option,
    max_demos_option,
    plain,
    print_json,
    target_option,
)
from agent.cli.ledger import publish_finished, require_database
from agent.cli.option_groups import GroupedCommand
from agent.cli.progress import Progress
from agent.cli.result import detectable_line, report
from agent.cli.tracking import TRACKING, tracking_options
from agent.errors import AgentError, InputError
from agent.observer import NO_OBSERVER
from agent.release.result import RunResult
from agent.report.excerpts import excerpts
from agent.run.launch import OPTIONS, Launch, prepare
from agent.run.locations import open_history
from agent.run.resume import prepare_resume
from agent.run.session import start
from agent.run.tracking import Tracking
from agent.search.registered import STRATEGIES
from agent.search.samplers import BANDIT, PRUNERS, RACE, SAMPLERS
from agent.stats.noninferiority import MARGIN, smallest_margin

_CAPS = ("max_calls", "max_tokens", "max_cost", "time_limit")
_OUTPUT = ("quiet", "db", "ledger_url", "as_json")
RUN_GROUPS = {
    "Task": ("target_field", "prompt", "metric", "type", "input", "ignore", *FORM, "knowledge", "tools", "limit"),
    "Models": ("model", "proposer", "judge", "thinking", "max_concurrency", "max_wait"),
    "Budget": (*_CAPS, "price", "effort", "no_cache", *BATCH, "dry_run"),
    "Search": (
        *("trials", "strategy", "sampler", "pruner", "prefer", "margin", "detect", "max_demos", "anyway"),
        *("no_retrieval", "embeddings", "no_calibrate", "seed"),
    ),
    "Output": ("tag", *TRACKING, *_OUTPUT),
}
RESUME_GROUPS = {
    "Models": ("model", "max_concurrency", "max_wait"),
    "Budget": (*_CAPS, "batch_wait"),
    "Search": ("fork",),
    "Output": (*TRACKING, *_OUTPUT),
}


class _WholeText(click.types.StringParamType):
    """A text whose environment variable is one value, blanks included, also where the option may be repeated."""

    def split_envvar_value(self, rv: str) -> list[str]:
        return [rv]


def _single_model(ctx: click.Context, option: click.Parameter, names: tuple[str, ...]) -> str | None:
    if len(names) > 1:
        raise click.BadParameter("a run prompts one model; `optimize transfer` scores its best prompts on others")
    return names[0] if names else None


@click.command(cls=GroupedCommand, groups=RUN_GROUPS, context_settings=SETTINGS)
@click.argument("task")
@click.option(
    "-m",
    "--model",
    metavar="NAME",
    type=_WholeText(),
    multiple=True,
    callback=_single_model,
    help="The model to prompt. Default: the task's, else the embedded local/smollm2-135m.",
)
@click.option(
    "--proposer",
    metavar="NAME",
    help="The model that writes instructions, or `none`. Default: the task's, else the target.",
)
@click.option(
    "--judge",
    metavar="NAME",
    multiple=True,
    help="The model that judges; repeat it for a panel. Default: the task's, else the target.",
)
@target_option
@click.option(
    "--prompt", metavar="FILE", help="Your prompt, when TASK is a data file: a text file, or the text itself in quotes."
)
@data_options
@click.option(
    "--knowledge",
    metavar="DIR",
    help="Documents that have the answers, when TASK is a data file: a folder, or one file. Prompts look passages up.",
)
@click.option(
    "--tools",
    metavar="FILE",
    help="Tools that the answers call, when TASK is a data file: JSON, or FILE.py:NAME,... as `optimize tools` has it.",
)
@click.option(
    "-n",
    "--trials",
    metavar="N",
    type=click.IntRange(1),
    help="Stop the search after about this many trials; 1: only score your prompt. Default: as many as the calls pay.",
)
@click.option(
    "--max-calls",
    metavar="N",
    type=COUNT,
    help="Cap on model calls, retries (not 429s) included, all roles together. Default: the task's, else by --effort.",
)
@click.option("--max-tokens", metavar="N", type=COUNT, help="Cap on tokens in and out, all roles together.")
@click.option("--max-cost", metavar="USD", type=DOLLARS, help="Cap in US dollars, all roles together.")
@click.option(
    "--time-limit",
    metavar="TIME",
    help="Cap on wall time, the sealed test included: 90, 5m or 1h30m. Calls in flight have 10 s more.",
)
@click.option("--price", metavar="IN,OUT", help=PRICE_HELP)
@click.option(
    "--effort",
    type=click.Choice(["quick", "standard", "thorough"]),
    default="standard",
    show_default=True,
    help="How many calls to plan with when nothing is capped.",
)
@click.option(
    "--strategy",
    type=Registered(STRATEGIES),
    help="Our search (evolve, also called bayes), or one of DSPy's optimizers. Default: evolve; dspy-mipro for a DSPy "
    "program of your own.",
)
@click.option(
    "--sampler",
    type=click.Choice(SAMPLERS),
    default=BANDIT,
    show_default=True,
    help="What our search tries next: by a bandit over its operators, or all of it by one Optuna study.",
)
@click.option(
    "--pruner",
    type=click.Choice(PRUNERS),
    default=RACE,
    show_default=True,
    help="What ends losing candidates in our search: our paired race, valid at every look, or Optuna's WilcoxonPruner.",
)
@click.option(
    "--prefer",
    type=click.Choice(["best", "cheap", "short"]),
    default="best",
    show_default=True,
    help="Which to test and ship: the best on dev, the cheapest that is shown there to lose less than --margin against "
    "it, or the shortest within noise of it.",
)
@margin_option(100 * MARGIN, "The loss against the best that --prefer cheap accepts.")
@click.option(
    "--detect",
    metavar="POINTS",
    type=Number(0, 100, min_open=True),
    help="The smallest gain worth having: where calls are few, the sealed test takes the rows that show it and the "
    "search the rest. Default: the task's, else 10.",
)
@max_demos_option
@click.option("--anyway", is_flag=True, help="Search even when nothing can be won by the preflight.")
@click.option("--no-retrieval", is_flag=True, help="Pick no examples for each input; the same ones for all.")
@click.option(
    "--embeddings",
    metavar="NAME",
    help="Also pick examples by the vectors of this model: wordllama, which calls none, or PROVIDER:NAME. Default: the "
    "task's, else none.",
)
@click.option("--no-calibrate", is_flag=True, help="Do not try label weights on the finalists (they cost no call).")
@click.option("--thinking", metavar="N", type=click.IntRange(0), help=THINKING_HELP)
@click.option("-j", "--max-concurrency", metavar="N", type=click.IntRange(1), help=CONCURRENCY_HELP)
@click.option("--max-wait", metavar="TIME", help=MAX_WAIT_HELP)
@click.option(
    "--limit", metavar="ROWS", help="ROWS or TRAIN-DEV-TEST: use at most that many rows of each split. Default: all."
)
@click.option("--seed", metavar="N", type=SEED, default=0, show_default=True, help="Same seed, same trials.")
@click.option("--tag", multiple=True, metavar="K=V", help="Label the run; repeatable.")
@tracking_options
@click.option("--no-cache", is_flag=True, help="Buy every call again, also those that the ledger holds.")
@batch_options
@click.option("--dry-run", is_flag=True, help="Print the priced plan; call nothing, connect to nothing.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@ledger_url_option
@ledger_options
def run_command(
    track: tuple[str, ...],
    track_texts: bool,
    trace: str | None,
    db: Path,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
    ledger_url: str | None,
    **options: Any,
) -> None:
    """Search for the best prompt of TASK, test it once on sealed rows, and write the prompt to ship to runs/.

    TASK is a name under tasks/, a folder with a task.toml, or a data file (.csv, .tsv, .jsonl, .json, .xlsx, .parquet)
    together with --target and --prompt.
    Exit codes: 0 done (also when your prompt is kept), 1 error, 2 usage (also a key, address or name that the provider
    refuses), 3 budget too small, 130 interrupted; after 1 and 130 the last line is the command that goes on from there.
    """
    words = {**OPTIONS, **{name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}}
    progress, tracking = Progress(quiet), Tracking.of(track, track_texts, trace)
    require_database(ledger_url)
    margin = click.get_current_context().get_parameter_source("margin")
    if margin is ParameterSource.COMMANDLINE and options["prefer"] != "cheap":
        raise InputError("--margin: what --prefer cheap may lose; add --prefer cheap")
    launch = prepare(words, db, NO_OBSERVER if as_json else progress)
    if dry_run:
        print_plan(launch, as_json)
        return
    with progress:
        result = start(launch, db, progress, tracking=tracking)
    print_run(result, db, as_json)
    publish_finished(ledger_url, result.run_id, db)


@click.command(cls=GroupedCommand, groups=RESUME_GROUPS, context_settings=SETTINGS)
@click.argument("run", required=False, default="")
@click.option("--fork", is_flag=True, help="Start a new run from it, with the task as it is now.")
@click.option("-m", "--model", metavar="NAME", help="Another model; only with --fork.")
@click.option("--max-calls", metavar="N", type=COUNT, help="A new cap on model calls; what was paid before counts.")
@click.option("--max-tokens", metavar="N", type=COUNT, help="A new cap on tokens.")
@click.option("--max-cost", metavar="USD", type=DOLLARS, help="A new cap in US dollars.")
@click.option("--time-limit", metavar="TIME", help="A new cap on wall time: 90, 5m or 1h30m.")
@click.option("-j", "--max-concurrency", metavar="N", type=click.IntRange(1), help=CONCURRENCY_HELP)
@click.option("--max-wait", metavar="TIME", help=MAX_WAIT_HELP)
@click.option("--batch-wait", metavar="TIME", help=BATCH_WAIT_HELP)
@tracking_options
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@ledger_url_option
@ledger_options
def resume_command(
    run: str,
    fork: bool,
    model: str | None,
    track: tuple[str, ...],
    track_texts: bool,
    trace: str | None,
    quiet: bool,
    db: Path,
    as_json: bool,
    ledger_url: str | None,
    **changes: Any,
) -> None:
    """Go on with RUN (default: the latest that did not finish). Nothing that was paid for is bought again.

    Refuses when the task, its data or metrics, the model or the program changed since, naming what changed; --fork
    starts a new run with what is there now, which still takes every call that it shares from the ledger.
    """
    progress, tracking = Progress(quiet), Tracking.of(track, track_texts, trace)
    require_database(ledger_url)
    prepared = prepare_resume(run, changes, model, fork, db, NO_OBSERVER if as_json else progress)
    with progress:
        for line in prepared.lines:
            progress.on_message(line)
        result = start(prepared.launch, db, progress, prepared.resumed, tracking=tracking)
    print_run(result, db, as_json)
    publish_finished(ledger_url, result.run_id, db)


def print_run(result: RunResult, db: Path, as_json: bool) -> None:
    """Prints the result of a run."""
    if as_json:
        print_json(result.to_json())
    else:
        texts = None
        with suppress(AgentError), closing(open_history(db)) as history:  # a result that is there is printed
            texts = excerpts(history, history.run(result.run_id), result)
        click.echo(report(result, db, excerpts=texts, whole=False))


def print_plan(launch: Launch, as_json: bool) -> None:
    """The priced plan: what each role may call at most, in calls, tokens and dollars."""
    from agent.run.settings import estimate

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
