"""`optimize bless`: what a released prompt answers now becomes the reference of later checks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.common import (
    SETTINGS,
    db_option,
    json_option,
    plain,
    print_json,
    score,
)
from agent.cli.errands import cost_line, run_job, spending_options
from agent.errors import InputError
from agent.ledger.provenance import user
from agent.run.launch import require_judging, silence, whole_budget
from agent.run.released_files import metric_folder, models_of, prompt_path, require_named, rubrics_of, task_for

if TYPE_CHECKING:
    from agent.run.check import Bless
    from agent.run.job import Means


@click.command(context_settings=SETTINGS)
@click.argument("prompt")
@click.option("--reason", required=True, help="Why these answers are right to compare with; kept in the ledger.")
@click.option("--actor", default="", help="Who decides. Default: the user of this machine.")
@click.option("-m", "--model", help="The model to ask. Default: the one of the suite, else that of the prompt.")
@click.option("--judge", multiple=True, help="The model that judges; repeat it for a panel. Default: as before.")
@click.option("--task", help="Take the dev rows of this task; without it the suite's rows stay, if there is a suite.")
@click.option("--suite", type=click.Path(path_type=Path), help="Where to keep it. Default: suite.json beside PROMPT.")
@click.option("--limit", type=click.IntRange(1), help="Take the first so many rows.")
@click.option("--repeats", type=click.IntRange(1, 5), default=3, show_default=True, help="How often each row is asked.")
@spending_options
@db_option
@json_option
def bless_command(
    prompt: str,
    reason: str,
    actor: str,
    model: str | None,
    judge: tuple[str, ...],
    task: str | None,
    suite: Path | None,
    limit: int | None,
    repeats: int,
    db: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Record what a released PROMPT answers now as the reference of `optimize check`, in suite.json beside it.

    The reason goes into the ledger's chain. The rows are those of the suite that is there, else the dev rows of the
    prompt's task; never those of the sealed test. Asked more than once, the answers also say what is repeat noise.
    """
    from agent.release.runtime import load_prompt
    from agent.release.suite import SUITE_FILE, read_suite, require_fit
    from agent.run.check import Asking, Bless

    silence()
    if not reason.strip():
        raise InputError("--reason: say why, in a few words; it is kept with the suite")
    path = prompt_path(prompt, db)
    loaded = load_prompt(path)
    file = suite or path.with_name(SUITE_FILE)
    before = read_suite(file) if file.exists() else None
    if before and not task:
        require_fit(before, loaded, str(file))
        asked = before.task(loaded, metric_folder(before, loaded, task, path, db), rubrics_of(before))
    else:
        asked = task_for(loaded, task, db)
    asked = replace(asked, dev=asked.dev[:limit])
    if judge:
        require_judging(asked)
        asked = replace(asked, judges=judge)
    name, typed = model or (before.model if before else loaded.model), {model, *judge}
    brought = {loaded.model, *((before.model, *([] if task else before.judges)) if before else ())}
    judging = [each for each in asked.judges if each not in typed]
    source = file if before else path
    require_named(source, brought, {"--model": [] if model else [name], "--judge": judging}, db)
    lm, judges = models_of(name, asked.judges)
    asking = Asking(loaded, asked, lm, judges, repeats)
    budget = whole_budget(options, asking.planned, "to record this suite")

    def make(means: Means) -> Bless:
        return Bless(asking, file, reason.strip(), actor or user(), before.id if before else "", means)

    quiet = bool(options["quiet"] or as_json)
    models = (name, *asked.judges)
    told = run_job(make, (lm, *judges), models, budget, options, db, quiet=quiet, use_cache=False)
    if as_json:
        print_json(told)
        return
    click.echo(report(told))


def report(told: dict[str, Any]) -> str:
    """What was recorded, for people."""
    low, high = told["score"]["ci95"] or (None, None)
    rows = f"{told['rows']} rows, {told['repeats']} times each, {told['unanswered']} without an answer"
    lines = [
        plain(f"recorded: {told['path']} ({told['suite']}, before: {told['before'] or 'none'})"),
        plain(f"{told['name']} {told['version']} on {told['model']}: {rows}"),
        f"score: {score(told['score']['mean'])} (95 % CI {score(low)} to {score(high)})",
        cost_line(told),
    ]
    return "\n".join(lines)
