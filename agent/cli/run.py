"""`optimize run`: from a task, a model and a budget to a tested prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agent.cli.blocks import blocks, detectable_line
from agent.cli.common import (
    MAX_WAIT_HELP,
    PRICE_HELP,
    SEED,
    SETTINGS,
    THINKING_HELP,
    db_option,
    json_option,
    plain,
    print_json,
    score,
)
from agent.cli.progress import Progress
from agent.cli.registered import Registered
from agent.release.result import RunResult
from agent.report.facts import certainty, promotion, ships_prompt, spent, stopped_before_search, tested, verdict
from agent.run.launch import Launch, prepare, unsaid
from agent.run.locations import LEDGER
from agent.run.session import at, start
from agent.search.registered import STRATEGIES


class _Whole(click.types.StringParamType):
    """A text whose variable gives one value, blanks and all, also where the option may be repeated."""

    def split_envvar_value(self, rv: str) -> list[str]:
        return [rv]


def _one(ctx: click.Context, option: click.Parameter, names: tuple[str, ...]) -> str | None:
    if len(names) > 1:
        raise click.BadParameter("a run prompts one model; `optimize transfer` scores its best prompts on others")
    return names[0] if names else None


@click.command(context_settings=SETTINGS)
@click.argument("task")
@click.option(
    "-m",
    "--model",
    type=_Whole(),
    multiple=True,
    callback=_one,
    help="The model to prompt. Default: the task's, else the embedded local/smollm2-135m.",
)
@click.option("--proposer", help="The model that writes instructions, or `none`. Default: the task's, else the target.")
@click.option(
    "--judge", multiple=True, help="The model that judges; repeat it for a panel. Default: the task's, else the target."
)
@click.option("--target", "target_field", help="The column to predict, when TASK is a .csv or .jsonl file.")
@click.option("--prompt", type=click.Path(path_type=Path), help="Your prompt as a text file, when TASK is a data file.")
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
    help="Our search (bayes), or one of DSPy's optimizers. Default: bayes; dspy-mipro for a DSPy program of your own.",
)
@click.option(
    "--prefer",
    type=click.Choice(["best", "cheap", "short"]),
    default="best",
    show_default=True,
    help="Which to test and ship: the best on dev, or the cheapest or shortest within noise of it.",
)
@click.option("--anyway", is_flag=True, help="Search even when nothing can be won by the preflight.")
@click.option("--thinking", type=click.IntRange(0), help=THINKING_HELP)
@click.option("-j", "--max-concurrency", type=click.IntRange(1), help="Calls in flight at once.")
@click.option("--max-wait", help=MAX_WAIT_HELP)
@click.option("--limit", help="ROWS or TRAIN-DEV-TEST: use at most that many rows of each split.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Same seed, same trials.")
@click.option("--tag", multiple=True, metavar="K=V", help="Label the run; repeatable.")
@click.option("--no-cache", is_flag=True, help="Buy every call again, also those that the ledger holds.")
@click.option("--dry-run", is_flag=True, help="Print the priced plan; call nothing, connect to nothing.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@db_option
@json_option
def run_command(db: Path, dry_run: bool, quiet: bool, as_json: bool, **options: Any) -> None:
    """Search for the best prompt of TASK, test it once on sealed rows, and write the prompt to ship to runs/.

    TASK is a name under tasks/, a folder with a task.toml, or a .csv/.jsonl file together with --target and --prompt.
    Exit codes: 0 done (also when your prompt is kept), 1 error, 2 usage (also a key, address or name that the provider
    refuses), 3 budget too small, 130 interrupted; after 1 and 130 the last line is the command that goes on from there.
    """
    words = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    words["judge"] = list(options["judge"])
    progress = Progress(quiet)
    launch = prepare(words, db, unsaid if as_json else progress.say)
    if dry_run:
        _print_plan(launch, as_json)
        return
    with progress:
        result = start(launch, db, progress)
    finish(result, db, as_json)


def finish(result: RunResult, db: Path, as_json: bool) -> None:
    if as_json:
        print_json(result.to_json())
    else:
        click.echo(report(result, db))


def _print_plan(launch: Launch, as_json: bool) -> None:
    """The priced plan: what each role may call at most, in calls, tokens and dollars."""
    from agent.run.estimate import estimate

    found = estimate(launch)
    if as_json:
        print_json(found.as_dict())
        return
    click.echo(plain(launch.opening(found.plan)))
    for role, row in found.roles.items():
        cost = "unknown price" if row["usd"] is None else f"${row['usd']:.4f}"
        if row["calls"]:
            click.echo(
                f"  {role:<9} {plain(row['model'])}: {row['calls']} calls, about {row['tokens']:,} tokens, {cost}"
            )
    cost = "unknown price" if found.usd is None else f"${found.usd:.2f}"
    allowed = f", as {found.cap} allows" if found.cap else ""
    click.echo(f"at most about {found.tokens:,} tokens, {cost}{allowed}; nothing was called")
    click.echo(detectable_line(found.gains))


def _lm_of_program(result: RunResult) -> list[str]:
    """What is released of a program sets no parameters of a model."""
    if ships_prompt(result) or not result.parameters:
        return []
    given = ", ".join(f"{name}={value}" for name, value in result.parameters.items())
    return [f"scored with {given}; give the same to the model of your program"]


def report(result: RunResult, db: Path = LEDGER, promoted: dict[str, Any] | None = None) -> str:
    """The result for people: verdict, scores, what it cost, where the prompt is.

    `promoted`: who promoted a winner since that the run had held back.
    """
    lift, winner, base, cost = result.lift, result.winner, result.baseline, result.cost
    released = "the best found" if promoted or result.decision == "promote" else "your own prompt"
    design = (
        f"{winner.technique}, format {winner.format}, {winner.n_demos} demos, "
        f"{winner.prompt_tokens} prompt tokens ({winner.candidate_id})"
    )
    if result.is_own:
        lines = [
            "",
            verdict(result),
            "",
            f"{'':12}{'dev':>8}{'sealed test':>14}",
            f"{'your prompt':12}{score(base.dev):>8}{score(tested(result, 'baseline')):>14}",
            "",
            f"your prompt: {design}",
        ]
    else:
        corrected = score(winner.dev_corrected)
        lines = [
            "",
            f"{verdict(result)}  ({certainty(result)})",
            "",
            f"{'':12}{'dev':>8}{'corrected':>12}{'sealed test':>14}",
            f"{'your prompt':12}{score(base.dev):>8}{'':>12}{score(tested(result, 'baseline')):>14}",
            f"{'best found':12}{score(winner.dev):>8}{corrected:>12}{score(tested(result, 'winner')):>14}",
            "",
            f"best found: {design}",
            f"test rows: {lift.wins} won, {lift.losses} lost, {lift.ties} tied",
        ]
    lines += [
        "trials: " + ", ".join(f"{n} {state}" for state, n in result.trials.items() if n or state != "incomplete"),
        f"calls: {', '.join(f'{role} {count}' for role, count in cost.calls.items())}, from the ledger {cost.cached}",
        f"cost: {cost.prompt_tokens + cost.completion_tokens:,} tokens, "
        f"{spent(cost.usd, cost.unpriced, cost.lost_usd)}, {cost.seconds:.0f} s",
    ]
    if stopped_before_search(result):
        lines.append("--anyway searches all the same")
    if cost.overspent:
        lines.append(plain(f"the run {cost.overspent}"))
    if result.search_ended:
        lines.append(plain(f"the search ended before its plan was done: {result.search_ended}"))
    lines += [
        *blocks(result, promoted),
        plain(f"released ({released}{f', {promotion(promoted)}' if promoted else ''}): {result.release.path}"),
        *_lm_of_program(result),
        f"ledger head {result.ledger_head[:16]}; look closer: optimize show {result.run_id}{at(db)}",
        f"to read and to send: optimize report {result.run_id}{at(db)}",
    ]
    return "\n".join(lines)
