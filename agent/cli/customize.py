"""`optimize customize`: instruct, customize, or no language model, on the user's own sealed rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from agent.cli.common import (
    BATCH,
    CONCURRENCY_HELP,
    COUNT,
    DOLLARS,
    FORM,
    PATH,
    PRICE_HELP,
    SEED,
    SETTINGS,
    Number,
    batch_options,
    cost_line,
    data_options,
    ledger_options,
    max_demos_option,
    plain,
    print_json,
    target_option,
)
from agent.cli.customize_tables import print_more
from agent.cli.option_groups import GroupedCommand
from agent.cli.progress import Progress, run_shown
from agent.cli.terminal_tables import Column, print_table, say
from agent.cli.tracking import TRACKING, tracking_options
from agent.observer import NO_OBSERVER
from agent.report.facts import curve_table, points

if TYPE_CHECKING:
    from agent.run.customize.prepare import ComparisonAsked
    from agent.run.launch import Launch

CUSTOMIZE_GROUPS = {
    "Task": ("target_field", "prompt", "metric", "type", "input", "ignore", *FORM, "max_demos", "limit"),
    "Models": ("model", "price", "max_concurrency"),
    "Budget": ("max_calls", "max_cost", "time_limit", "effort", *BATCH),
    "Comparison": (
        "run",
        "arms",
        "curve",
        "trainer",
        "hf_folder",
        "settings",
        "tune",
        "seeds",
        "ray",
        "train_time",
        "train_price",
        "export_only",
        "expected_calls",
        "seed",
    ),
    "Output": (*TRACKING, "dry_run", "quiet", "db", "as_json"),
}
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


@click.command(cls=GroupedCommand, groups=CUSTOMIZE_GROUPS, context_settings=SETTINGS)
@click.argument("task")
@click.option(
    "-m", "--model", metavar="NAME", help="The model of all arms. Default: the task's, else the embedded one."
)
@target_option
@click.option("--prompt", metavar="FILE", help="Your prompt, when TASK is a data file: a file, or the text in quotes.")
@data_options
@max_demos_option
@click.option("--limit", metavar="ROWS", help="ROWS or TRAIN-DEV-TEST: use at most that many rows of each split.")
@click.option(
    "--run",
    metavar="RUN",
    default="",
    help="The search to take the prompts from. Default: the latest of this task and model, else a new one.",
)
@click.option(
    "--arms",
    metavar="A,B",
    default="",
    help="Beside your own prompt only these: best, retrieved, calibrated, soft-prompt, lora, lora+prompt, full, "
    "hosted, no-model. Default: all but soft-prompt, full and hosted.",
)
@click.option(
    "--trainer",
    metavar="NAME",
    default="numpy",
    show_default=True,
    help="What trains adapters: numpy, or peft (transformers and peft, extra `tune`).",
)
@click.option(
    "--hf-folder",
    metavar="DIR",
    type=PATH,
    help="Train on the weights of this Hugging Face folder, which the model's GGUF was made from (extra `tune`).",
)
@click.option(
    "--train-price",
    metavar="USD",
    type=Number(0),
    help="Dollars per million trained tokens, for --arms hosted: the model trained at its provider.",
)
@click.option(
    "--export-only",
    metavar="DIR",
    type=PATH,
    help="Write the files to train on and the commands that start the training into DIR, and call nothing.",
)
@click.option(
    "--curve",
    metavar="N,N,all",
    default="",
    help="Also train each arm that learns on only so many train rows, and say where arms cross: 24,75,all.",
)
@click.option(
    "--settings",
    metavar="N",
    type=click.IntRange(1, 4),
    default=3,
    show_default=True,
    help="Settings of each training (learning rate, rank) that are tried on dev, 1 to 4; the better half goes on.",
)
@click.option(
    "--tune",
    metavar="N",
    type=click.IntRange(2, 64),
    help="In the place of --settings: draw N settings of each training, which Ray Tune (ASHA) stops early on dev.",
)
@click.option(
    "--ray",
    metavar="[ADDRESS]",
    is_flag=False,
    flag_value="local",
    help="Train on a Ray cluster: its address, auto, or local, the default. Write it after TASK.",
)
@click.option(
    "--seeds",
    metavar="N",
    type=click.IntRange(1, 10),
    default=1,
    show_default=True,
    help="Train each arm with so many seeds and show the spread; the arm itself is the first.",
)
@click.option(
    "--train-time", metavar="TIME", help="The most that one arm may train: 90, 5m. Default: until dev gets no better."
)
@click.option(
    "--expected-calls",
    metavar="N",
    type=click.IntRange(1),
    help="Calls that you expect in all; fewer than pay for the training speak against it.",
)
@click.option("--max-calls", metavar="N", type=COUNT, help="Cap on calls of the search, where one is made.")
@click.option(
    "--max-cost",
    metavar="USD",
    type=DOLLARS,
    help="Cap in US dollars, of the search and of the comparison each.",
)
@click.option("--time-limit", metavar="TIME", help="Cap on the time of the search.")
@click.option(
    "--effort",
    type=click.Choice(["quick", "standard", "thorough"]),
    default="standard",
    show_default=True,
    help="How many calls to plan the search with when nothing is capped.",
)
@batch_options
@click.option("--price", metavar="IN,OUT", help=PRICE_HELP)
@click.option("-j", "--max-concurrency", metavar="N", type=click.IntRange(1), help=CONCURRENCY_HELP)
@click.option("--seed", metavar="N", type=SEED, default=0, show_default=True, help="Of search and training.")
@tracking_options
@click.option("--dry-run", is_flag=True, help="Say what would be compared and trained, and with how many calls; stop.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@ledger_options
def customize_command(
    run: str,
    arms: str,
    curve: str,
    settings: int,
    tune: int | None,
    ray: str | None,
    seeds: int,
    train_time: str | None,
    expected_calls: int | None,
    train_price: float | None,
    trainer: str,
    hf_folder: Path | None,
    export_only: Path | None,
    track: tuple[str, ...],
    track_texts: bool,
    trace: str | None,
    dry_run: bool,
    quiet: bool,
    db: Path,
    as_json: bool,
    **options: Any,
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
        ComparisonAsked,
        checked,
        finished_search,
        prepare_customize,
        require_cluster,
    )
    from agent.run.launch import OPTIONS, prepare
    from agent.run.session import start
    from agent.run.tracking import Tracking

    if tune is not None and click.get_current_context().get_parameter_source("settings") != ParameterSource.DEFAULT:
        raise click.UsageError("--settings and --tune both say how many settings are tried; give one")
    tracking = Tracking.of(track, track_texts, trace)
    words = {**OPTIONS, **{name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}}
    names = tuple(name.strip() for name in arms.split(",") if name.strip())
    asked = ComparisonAsked(
        names,
        train_time,
        expected_calls,
        options["seed"],
        curve,
        train_price,
        trainer=trainer,
        weights=hf_folder,
        settings=settings,
        seeds=seeds,
        ray=ray,
        tune=tune or 0,
    )
    with Progress(quiet) as progress:
        launch = prepare(words, db, NO_OBSERVER if as_json else progress)
        if export_only is None:
            checked(launch, asked, progress.download)
        run = run or finished_search(launch, options["limit"], db)
        if export_only is not None:
            _export(launch, asked, run, export_only, db, as_json)
            return
        if dry_run:
            _say_plan(launch, asked, run, words, db, as_json)
            return
        if not run:
            require_cluster(asked)
            if "hosted" in names:
                require_service(launch.target)
            run = start(launch, db, progress, tracking=tracking).run_id
            launch = prepare(words, db, is_new=False)  # the models of the search are closed
    spending = {**words, "max_calls": None, "max_tokens": None, "time_limit": None, "quiet": quiet}
    job = prepare_customize(launch, run, asked, spending, db)
    result = run_shown(job, spending, db, as_json, "comparing the arms", tracking)
    if as_json:
        print_json(result)
    else:
        click.echo(customize_report(result))


def _say_plan(
    launch: Launch, asked: ComparisonAsked, run: str, words: Mapping[str, Any], db: Path, as_json: bool
) -> None:
    from agent.run.customize import prepare

    plan = prepare.dry_run(launch, run, asked, words, db)
    if as_json:
        print_json(plan)
        return
    click.echo(plain(f"{plan['task']} on {plan['model']}: {', '.join(plan['arms'])}"))
    click.echo(plain(plan["trainings_text"]))
    calls = "a search first (`optimize run --dry-run` says with how many calls), then the comparison"
    click.echo(plain(f"at most {plan['calls']:,} calls, prompts of {run}" if run else calls))


def _export(launch: Launch, asked: ComparisonAsked, run: str, folder: Path, db: Path, as_json: bool) -> None:
    from agent.run.customize.prepare import export_training

    told = export_training(launch, asked, run, folder, db)
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
