"""`optimize run`: from a task, a model and a budget to a tested prompt."""

from __future__ import annotations

import asyncio
import math
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.common import SEED, SETTINGS, db_option, find_task, json_option, plain, print_json, score
from agent.cli.progress import Progress
from agent.errors import InputError

if TYPE_CHECKING:
    from agent.optimize import Settings
    from agent.types import LM, Task

EXIT_INTERRUPTED = 130


@click.command(context_settings=SETTINGS)
@click.argument("task")
@click.option("-m", "--model", help="The model to prompt. Default: the task's, else the embedded local/smollm2-135m.")
@click.option("--proposer", help="The model that writes instructions, or `none`. Default: the task's, else the target.")
@click.option("--target", "target_field", help="The column to predict, when TASK is a .csv or .jsonl file.")
@click.option("--prompt", type=click.Path(path_type=Path), help="Your prompt as a text file, when TASK is a data file.")
@click.option("-n", "--trials", type=click.IntRange(1), help="Stop the search after about this many trials.")
@click.option("--max-calls", type=click.IntRange(1), help="Cap on model calls, retries included, all roles together.")
@click.option("--max-tokens", type=click.IntRange(1), help="Cap on tokens in and out, all roles together.")
@click.option("--max-cost", type=click.FloatRange(0), help="Cap in US dollars, all roles together.")
@click.option("--time-limit", help="Cap on wall time for the search: 90, 5m or 1h.")
@click.option("--price", help="IN,OUT: dollars per million tokens, for a model whose price is not known.")
@click.option(
    "--effort",
    type=click.Choice(["quick", "standard", "thorough"]),
    default="standard",
    show_default=True,
    help="How many calls to plan with when nothing is capped.",
)
@click.option("-j", "--max-concurrency", type=click.IntRange(1), help="Calls in flight at once.")
@click.option("--limit", help="ROWS or TRAIN-DEV-TEST: use at most that many rows of each split.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Same seed, same trials.")
@click.option("--tag", multiple=True, metavar="K=V", help="Label the run; repeatable.")
@click.option("--no-cache", is_flag=True, help="Buy every call again, also those that the ledger holds.")
@click.option("--dry-run", is_flag=True, help="Print the priced plan; call nothing.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@db_option
@json_option
def run_command(
    task: str, model: str | None, proposer: str | None, target_field: str | None, prompt: Path | None, **options: Any
) -> None:
    """Search for the best prompt of TASK, test it once on sealed rows, and write the prompt to ship to runs/.

    TASK is a name under tasks/, a folder with a task.toml, or a .csv/.jsonl file together with --target and --prompt.
    Exit codes: 0 done (also when your prompt is kept), 1 error, 2 usage, 3 budget too small, 130 interrupted.
    """
    loaded = _load(task, target_field, prompt, options["seed"], options["quiet"] or options["as_json"])
    loaded = _limited(loaded, options["limit"])
    settings = _settings(loaded, options)

    from agent.models.catalog import DEFAULT_MODEL, create_model

    name = model or loaded.model or DEFAULT_MODEL
    target = create_model(name)
    proposer_name = proposer or loaded.proposer or name
    author = None if proposer_name == "none" else target if proposer_name == name else create_model(proposer_name)
    if options["dry_run"]:
        _print_plan(loaded, target, author, settings, options["as_json"])
        return
    with Progress(options["quiet"]) as progress:
        for chosen in {name, proposer_name} - {"none"}:
            _fetch(chosen, progress)
        if not options["quiet"]:
            click.echo(_opening(loaded, target, author, settings), err=True)
        result = _execute(loaded, target, author, settings, options["db"], progress)
    if options["as_json"]:
        print_json(result)
    else:
        click.echo(report(result))


def _load(name: str, target: str | None, prompt: Path | None, seed: int, quiet: bool) -> Task:
    path = Path(name)
    if path.suffix.lower() in (".csv", ".jsonl"):
        if not path.is_file():
            raise InputError(f"{name}: no such file")
        if target is None or prompt is None:
            raise InputError(f"{name}: a data file needs --target FIELD (the column to predict) and --prompt FILE")
        from agent.task.intake import task_from_file

        try:
            instruction = prompt.read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{prompt}: the prompt cannot be read ({error}); give a UTF-8 text file") from error
        if not instruction.strip():
            raise InputError(f"{prompt}:1: the prompt is empty; write what the model is told today")
        task, reading = task_from_file(path, target, instruction, seed)
        if not quiet:
            click.echo("\n".join(plain(line) for line in reading.lines()), err=True)
        return task
    if target or prompt:
        raise InputError(
            f"{name}: --target and --prompt go with a .csv or .jsonl file; a task folder has them in task.toml"
        )
    from agent.task.load import load_task

    return load_task(find_task(name))


def _limited(task: Task, limit: str | None) -> Task:
    if limit is None:
        return task
    parts = limit.split("-")
    if len(parts) not in (1, 3) or not all(re.fullmatch("[1-9][0-9]{0,8}", part) for part in parts):
        raise InputError(f"--limit {limit}: write one number, or TRAIN-DEV-TEST such as 100-50-100")
    train, dev, test = (int(part) for part in (parts * 3 if len(parts) == 1 else parts))
    return replace(task, train=task.train[:train], dev=task.dev[:dev], test=task.test[:test])


def _settings(task: Task, options: dict[str, Any]) -> Settings:
    from agent.gateway.prices import fixed_price
    from agent.optimize import Settings
    from agent.types import Budget

    own = task.budget
    if options["max_cost"] is not None and not math.isfinite(options["max_cost"]):
        raise InputError(f"--max-cost {options['max_cost']}: write a number of US dollars")
    budget = Budget(
        max_calls=options["max_calls"] or own.max_calls,
        max_tokens=options["max_tokens"] or own.max_tokens,
        max_cost=options["max_cost"] if options["max_cost"] is not None else own.max_cost,
        time_limit=_seconds(options["time_limit"]) or own.time_limit,
    )
    tags = {}
    for tag in options["tag"]:
        key, equals, value = tag.partition("=")
        if not key or not equals:
            raise InputError(f"--tag {tag}: write K=V")
        tags[key] = value
    price = None
    if options["price"]:
        try:
            dollars_in, dollars_out = (float(part) for part in options["price"].split(","))
            if not (0 <= dollars_in < math.inf and 0 <= dollars_out < math.inf):
                raise ValueError
        except ValueError:
            raise InputError(
                f"--price {options['price']}: write IN,OUT in dollars per million tokens, such as 0.15,0.6"
            ) from None
        price = fixed_price(dollars_in, dollars_out)
    return Settings(
        seed=options["seed"],
        budget=budget,
        effort=options["effort"],
        trials=options["trials"],
        max_concurrency=options["max_concurrency"],
        use_cache=not options["no_cache"],
        price=price,
        tags=tags,
        runs_folder=options["db"].parent,
    )


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    unit = {"s": 1, "m": 60, "h": 3600}.get(text[-1:], 0)
    number = text[:-1] if unit else text
    try:
        seconds = float(number) * (unit or 1)
    except ValueError:
        raise InputError(f"--time-limit {text}: write seconds, or 5m, or 1h") from None
    if not 0 < seconds < 1e7:
        raise InputError(f"--time-limit {text}: must be above 0")
    return seconds


def _fetch(name: str, progress: Progress) -> None:
    if not name.startswith("local/") or name.endswith(".gguf"):
        return
    from agent.models.catalog import fetch

    fetch(name, progress.download)


def _opening(task: Task, target: LM, author: LM | None, settings: Settings) -> str:
    from agent.search.plan import make_plan

    plan = make_plan(task, settings.budget, settings.effort, author is not None)
    return (
        f"{task.name}: {task.signature}\n"
        f"model {target.name}, proposer {author.name if author else 'none'}, seed {settings.seed}\n"
        f"plan: {plan.calls} calls = baseline {plan.baseline_calls} + {plan.rounds} rounds of {plan.round_calls} + "
        f"finalists {plan.final_calls} + sealed test {plan.test_calls}; "
        f"rows: dev {plan.dev_rows}, test {plan.test_rows}"
    )


def _print_plan(task: Task, target: LM, author: LM | None, settings: Settings, as_json: bool) -> None:
    from agent.optimize import prices_for
    from agent.scoring.stats import minimum_detectable_gain
    from agent.search.plan import make_plan
    from agent.types import Usage

    plan = make_plan(task, settings.budget, settings.effort, author is not None)
    prices = prices_for([target, *([author] if author else [])], settings)
    longest = max(sum(len(text) for text in row.inputs.values()) for row in task.train)
    per_demo = longest // 3 + 10
    tokens = plan.calls * (len(task.instruction) // 3 + per_demo * max(task.space.demo_counts, default=0))
    price = prices.get(target.name)
    usd = None if price is None else round(price(Usage(tokens, plan.calls * 50)), 4)
    gain = minimum_detectable_gain(plan.test_rows, 0.5)
    if as_json:
        print_json(
            {
                "task": task.name,
                "model": target.name,
                "plan": plan.as_dict(),
                "tokens_at_most": tokens,
                "cost_usd_at_most": usd,
                "detectable_gain": gain,
            }
        )
        return
    click.echo(_opening(task, target, author, settings))
    cost = "unknown price" if usd is None else f"${usd:.2f}"
    click.echo(f"at most about {tokens:,} prompt tokens, {cost}; nothing was called")
    click.echo(f"the sealed test can show a gain of {100 * gain:.0f} points or more (80 % power, baseline at 50)")


def _execute(
    task: Task, target: LM, author: LM | None, settings: Settings, db: Path, progress: Progress
) -> dict[str, Any]:
    from agent.ledger.store import Ledger
    from agent.optimize import optimize

    async def run() -> dict[str, Any]:
        job = asyncio.ensure_future(optimize(task, target, author, ledger, settings, progress))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, job.cancel)
        try:
            return await job
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
            for model in {id(m): m for m in (target, author) if m is not None}.values():
                await model.close()

    ledger = Ledger(db)
    try:
        return asyncio.run(run())
    except asyncio.CancelledError:
        click.echo("interrupted; everything that was paid for is in the ledger", err=True)
        click.echo("the same command again starts from there and buys none of it twice", err=True)
        raise SystemExit(EXIT_INTERRUPTED) from None
    finally:
        ledger.close()


def report(result: dict[str, Any]) -> str:
    """The result for people: verdict, scores, what it cost, where the prompt is."""
    lift, winner, base, calls = result["lift"], result["winner"], result["baseline"], result["calls"]
    low, high = (100 * value for value in lift["ci95"])
    promoted = result["decision"] == "promote"
    if promoted:
        verdict = f"Better: {100 * lift['diff']:+.1f} points on {lift['n']} sealed test rows"
    elif lift["wins"] + lift["losses"] == 0:
        verdict = "Keep your prompt: nothing better was found"
    else:
        verdict = (
            f"Keep your prompt: {100 * lift['diff']:+.1f} points on {lift['n']} sealed test rows is not significant"
        )
    lines = [
        "",
        f"{verdict}  (95 % CI {low:+.1f} to {high:+.1f}, p = {lift['p_value']:.2g})",
        "",
        f"{'':12}{'dev':>8}{'corrected':>12}{'sealed test':>14}",
        f"{'your prompt':12}{score(base['dev']):>8}{'':>12}{score(base['test']):>14}",
        f"{'best found':12}{score(winner['dev']):>8}{score(winner['dev_corrected']):>12}{score(winner['test']):>14}",
        "",
        f"best found: {winner['technique']}, format {winner['format']}, {winner['n_demos']} demos, "
        f"{winner['prompt_tokens']} prompt tokens ({winner['candidate_id']})",
        f"test rows: {lift['wins']} won, {lift['losses']} lost, {lift['ties']} tied",
        "trials: " + ", ".join(f"{count} {state}" for state, count in result["trials"].items()),
        f"calls: target {calls['target']}, proposer {calls['proposer']}, judge {calls['judge']}, "
        f"from the ledger {calls['cached']}",
        f"cost: {result['tokens']['prompt'] + result['tokens']['completion']:,} tokens, ${result['cost_usd']:.4f}, "
        f"{result['seconds']:.0f} s",
    ]
    if result["status"] == "budget":
        lines.append("the budget ended the search before its plan was done")
    lines += [
        f"released ({'the best found' if promoted else 'your own prompt'}): {result['release']}",
        f"ledger head {result['ledger_head'][:16]}; look closer: optimize show {result['run_id']}",
    ]
    return "\n".join(lines)
