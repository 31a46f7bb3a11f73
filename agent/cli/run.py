"""`optimize run` and `resume`: from a task, a model and a budget to a tested prompt. And what runs a run again:
`reproduce` from its stored replies, `transfer` on other models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from agent.cli.common import (
    MAX_WAIT_HELP,
    PRICE_HELP,
    SEED,
    SETTINGS,
    THINKING_HELP,
    Registered,
    cost_line,
    data_options,
    ledger_options,
    plain,
    print_json,
    print_result,
    short,
    spending_options,
)
from agent.cli.progress import Progress, run_shown
from agent.cli.result import detectable_line, report
from agent.observer import NO_OBSERVER
from agent.release.result import RunResult
from agent.report.facts import points
from agent.run.launch import OPTIONS, Launch, prepare
from agent.run.resume import prepare_resume
from agent.run.session import start
from agent.search.registered import STRATEGIES


class _WholeText(click.types.StringParamType):
    """A text whose environment variable is one value, blanks included, also where the option may be repeated."""

    def split_envvar_value(self, rv: str) -> list[str]:
        return [rv]


def _single_model(ctx: click.Context, option: click.Parameter, names: tuple[str, ...]) -> str | None:
    if len(names) > 1:
        raise click.BadParameter("a run prompts one model; `optimize transfer` scores its best prompts on others")
    return names[0] if names else None


@click.command(context_settings=SETTINGS)
@click.argument("task")
@click.option(
    "-m",
    "--model",
    type=_WholeText(),
    multiple=True,
    callback=_single_model,
    help="The model to prompt. Default: the task's, else the embedded local/smollm2-135m.",
)
@click.option("--proposer", help="The model that writes instructions, or `none`. Default: the task's, else the target.")
@click.option(
    "--judge", multiple=True, help="The model that judges; repeat it for a panel. Default: the task's, else the target."
)
@click.option(
    "--target",
    "target_field",
    help="The column to predict, when TASK is a data file; label.queue is a key in the JSON objects of label.",
)
@click.option("--prompt", help="Your prompt, when TASK is a data file: a text file, or the text itself in quotes.")
@data_options
@click.option(
    "-n",
    "--trials",
    type=click.IntRange(1),
    help="Stop the search after about this many trials; 1: only score your prompt.",
)
@click.option(
    "--max-calls", type=click.IntRange(1), help="Cap on model calls, retries (not 429s) included, all roles together."
)
@click.option("--max-tokens", type=click.IntRange(1), help="Cap on tokens in and out, all roles together.")
@click.option("--max-cost", type=click.FloatRange(0), help="Cap in US dollars, all roles together.")
@click.option("--time-limit", help="Cap on wall time, the sealed test included, calls in flight not: 90, 5m or 1h30m.")
@click.option("--price", help=PRICE_HELP)
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
    "--prefer",
    type=click.Choice(["best", "cheap", "short"]),
    default="best",
    show_default=True,
    help="Which to test and ship: the best on dev, or the cheapest or shortest within noise of it.",
)
@click.option("--anyway", is_flag=True, help="Search even when nothing can be won by the preflight.")
@click.option("--no-retrieval", is_flag=True, help="Pick no examples for each input; the same ones for all.")
@click.option("--thinking", type=click.IntRange(0), help=THINKING_HELP)
@click.option("-j", "--max-concurrency", type=click.IntRange(1), help="Calls in flight at once.")
@click.option("--max-wait", help=MAX_WAIT_HELP)
@click.option("--limit", help="ROWS or TRAIN-DEV-TEST: use at most that many rows of each split.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Same seed, same trials.")
@click.option("--tag", multiple=True, metavar="K=V", help="Label the run; repeatable.")
@click.option("--no-cache", is_flag=True, help="Buy every call again, also those that the ledger holds.")
@click.option("--dry-run", is_flag=True, help="Print the priced plan; call nothing, connect to nothing.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@ledger_options
def run_command(db: Path, dry_run: bool, quiet: bool, as_json: bool, **options: Any) -> None:
    """Search for the best prompt of TASK, test it once on sealed rows, and write the prompt to ship to runs/.

    TASK is a name under tasks/, a folder with a task.toml, or a data file (.csv, .tsv, .jsonl, .json, .xlsx, .parquet)
    together with --target and --prompt.
    Exit codes: 0 done (also when your prompt is kept), 1 error, 2 usage (also a key, address or name that the provider
    refuses), 3 budget too small, 130 interrupted; after 1 and 130 the last line is the command that goes on from there.
    """
    words = {**OPTIONS, **{name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}}
    progress = Progress(quiet)
    launch = prepare(words, db, NO_OBSERVER if as_json else progress)
    if dry_run:
        _print_plan(launch, as_json)
        return
    with progress:
        result = start(launch, db, progress)
    _print_result(result, db, as_json)


@click.command(context_settings=SETTINGS)
@click.argument("run", required=False, default="")
@click.option("--fork", is_flag=True, help="Start a new run from it, with the task as it is now.")
@click.option("-m", "--model", help="Another model; only with --fork.")
@click.option("--max-calls", type=click.IntRange(1), help="A new cap on model calls; what was paid before counts.")
@click.option("--max-tokens", type=click.IntRange(1), help="A new cap on tokens.")
@click.option("--max-cost", type=click.FloatRange(0), help="A new cap in US dollars.")
@click.option("--time-limit", help="A new cap on wall time: 90, 5m or 1h30m.")
@click.option("-j", "--max-concurrency", type=click.IntRange(1), help="Calls in flight at once.")
@click.option("--max-wait", help="Longest wait for a provider that is down or asks to wait: 90, 5m.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@ledger_options
def resume_command(
    run: str, fork: bool, model: str | None, quiet: bool, db: Path, as_json: bool, **changes: Any
) -> None:
    """Go on with RUN (default: the latest that did not finish). Nothing that was paid for is bought again.

    Refuses when the task, its data or metrics, the model or the program changed since, naming what changed; --fork
    starts a new run with what is there now, which still takes every call that it shares from the ledger.
    """
    progress = Progress(quiet)
    prepared = prepare_resume(run, changes, model, fork, db, NO_OBSERVER if as_json else progress)
    with progress:
        for line in prepared.lines:
            progress.on_message(line)
        result = start(prepared.launch, db, progress, prepared.resumed)
    _print_result(result, db, as_json)


def _print_result(result: RunResult, db: Path, as_json: bool) -> None:
    if as_json:
        print_json(result.to_json())
    else:
        click.echo(report(result, db))


def _print_plan(launch: Launch, as_json: bool) -> None:
    """The priced plan: what each role may call at most, in calls, tokens and dollars."""
    from agent.run.settings import estimate

    plan = estimate(launch)
    if as_json:
        print_json(plan.as_dict())
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
    click.echo(detectable_line(plan.gains))


# -- a run again ------------------------------------------------------------------------------------------------------


@click.command(context_settings=SETTINGS)
@click.argument("run", required=False, default="")
@click.option("--offline", is_flag=True, default=True, help="From stored replies only; there is no other way yet.")
@ledger_options
def reproduce_command(run: str, offline: bool, db: Path, as_json: bool) -> None:
    """Make RUN (default: the latest) again from the stored replies, without a request, and report what drifted.

    Compared are every trial, the score of every row, the result and the released prompt. Ends with 0 when all are the
    same, with 1 otherwise. Refuses when the task, its rows or the program changed since.
    """
    from agent.run.reproduce import reproduce

    result = reproduce(run, db)
    if as_json:
        print_json(result.to_json())
    else:
        click.echo("".join(f"{plain(line)}\n" for line in result.drift), nl=False)
        count = len(result.drift)
        things = f"{count} thing{'s' * (count > 1)} drifted" if count else "the same"
        click.echo(f"{result.run_id}: {things}: {result.trials} trials, {result.scores} scores, 0 requests")
    if result.drift:
        raise SystemExit(1)


@click.command(context_settings=SETTINGS)
@click.argument("run")
@click.option("--models", required=True, help="The models to try, as a,b,c.")
@click.option("--top", type=click.IntRange(1, 50), default=3, show_default=True, help="How many of the best prompts.")
@click.option("--limit", type=click.IntRange(1), help="Take the first so many dev rows.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="For tests and intervals.")
@spending_options
@ledger_options
def transfer_command(
    run: str, models: str, top: int, limit: int | None, db: Path, as_json: bool, **options: Any
) -> None:
    """Score the best prompts of RUN, and your own, on other models over the same dev rows, and show the matrix.

    Only candidates that saw the whole of dev take part. The run's own model comes first, with the scores of the run;
    these prompts were chosen by them, so they flatter. Calls that the ledger holds are not made again. The sealed test
    is not touched.
    """
    from agent.run.launch import silence
    from agent.run.model_transfer import prepare_transfer

    silence()
    job = prepare_transfer(run, models.split(","), top, limit, options, db)
    print_result(run_shown(job, options, db, as_json), as_json, transfer_report)


def transfer_report(result: dict[str, Any]) -> str:
    """The matrix as text: a line for each prompt, a column for each model, with score, interval and rank."""
    names = [f"{model['model']}{' (own)' if model['own'] else ''}" for model in result["models"]]
    lines = ["", plain(f"{result['task']}: run {result['of_run']} on {result['rows']} dev rows")]
    for number, name in enumerate(names):
        lines.append(plain(f"  [{number + 1}] {name}"))
    cells = [[_cell(model["scores"][at]) for model in result["models"]] for at in range(len(result["candidates"]))]
    width = max(len(cell) for row in cells for cell in row)
    head = "".join(f"  {f'[{number + 1}]':<{width}}" for number in range(len(names)))
    lines += ["", f"{'trial':>5}{head}  prompt"]
    for candidate, row in zip(result["candidates"], cells, strict=True):
        about = f"{candidate['technique']}, {candidate['format']}, {candidate['n_demos']} demos"
        about = "your prompt" if candidate["trial"] == 0 else about
        lines.append(f"{candidate['trial']:>5}{''.join(f'  {cell:<{width}}' for cell in row)}  {short(about, 60)}")
    lines += [
        "",
        "score [95 % CI] #rank; + or - where it differs from your prompt there (p < 0.05 by Holm over all cells);",
        "on the run's own model nothing is tested: these scores chose the prompts",
    ]
    if result["status"] == "budget":
        lines.append("the budget ended it early; cells that were not finished have no score")
        lines.append("the same command with a larger cap, or --limit ROWS, goes on from the calls that were made")
    return "\n".join([*lines, cost_line(result)])


def _cell(score: Mapping[str, Any]) -> str:
    if score["mean"] is None:
        return "-"
    low, high = score["ci95"]
    return f"{points(score['mean'])} [{100 * low:.0f}, {100 * high:.0f}] #{score['rank']}{_mark(score['lift'] or {})}"


def _mark(lift: Mapping[str, Any]) -> str:
    """+ or - where test and interval both show it, as in a promotion; an older version's transfer has no such test."""
    from agent.release.gate import shown

    if (p_value := lift.get("p_holm")) is None:
        return ""
    return ("", "+", "-")[shown(lift["ci95"], p_value)]
