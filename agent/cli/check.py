"""`optimize check`: does a released prompt still do what it did, on this model or another?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agent.cli.common import (
    SEED,
    SETTINGS,
    db_option,
    json_option,
    plain,
    print_json,
    score,
    short,
)
from agent.cli.errands import cost_line, run_job, spending_options
from agent.run.check_setup import checking
from agent.run.launch import silence

SHOWN = 20  # flips, for people


@click.command(context_settings=SETTINGS)
@click.argument("prompt")
@click.option("-m", "--model", help="The model to ask. Default: the one whose answers are recorded.")
@click.option(
    "--judge", multiple=True, help="Allows a judge that the suite names by an address; repeat it for several."
)
@click.option("--task", help="The task, where neither the suite nor the ledger says enough.")
@click.option(
    "--suite", type=click.Path(path_type=Path), help="The recorded answers. Default: suite.json beside PROMPT."
)
@click.option("--repeats", type=click.IntRange(1, 5), default=2, show_default=True, help="How often each row is asked.")
@click.option("--junit", type=click.Path(path_type=Path), help="Write the result as JUnit XML.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Write the result as Markdown.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="For tests and intervals.")
@spending_options
@db_option
@json_option
def check_command(
    prompt: str,
    model: str | None,
    judge: tuple[str, ...],
    task: str | None,
    suite: Path | None,
    repeats: int,
    junit: Path | None,
    markdown: Path | None,
    db: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Ask a released PROMPT the rows of its suite again, and compare with what was recorded; 100 when it got worse.

    PROMPT is the path of a prompt.md or the id of a run. Without suite.json beside it (`optimize bless` writes one) the
    dev rows are taken, as its run in the ledger scored them. The gate fails when the score fell significantly, or when
    more answers changed than repeat noise explains; repeat noise alone fails it in at most 5 % of all checks. The model
    is asked afresh, not the ledger.
    """
    from agent.release.regression import as_junit, as_markdown, require_place, write_text

    silence()
    for option, place in (("--junit", junit), ("--markdown", markdown)):
        if place is not None:
            require_place(place, option)
    prepared = checking(prompt, model, judge, task, suite, repeats, options, db)
    quiet = bool(options["quiet"] or as_json)
    lms, models, budget = prepared.asking.lms, prepared.models, prepared.budget
    told = run_job(prepared.make, lms, models, budget, options, db, quiet=quiet, use_cache=False)
    if as_json:
        print_json(told)
    else:
        click.echo(report(told))
    if junit:
        write_text(junit, as_junit(told, [row.id for row in prepared.recorded.rows]))
    if markdown:
        write_text(markdown, as_markdown(told))
    if told["gate"] != "passed":
        raise SystemExit(100)


def report(told: dict[str, Any]) -> str:
    """The check for people: verdict, scores, flips, steadiness."""
    then, found, test = told["reference"], told["difference"], told["flip_test"]
    lines = ["", plain(f"{told['name']} {told['version']} on {told['model']}: {told['gate'].upper()}")]
    lines += [plain(f"  {why}") for why in told["why"]]
    when = then.get("created_utc", "")[:10]
    lines += ["", plain(f"recorded: {then['model']}, {then['version']} {when} ({then['suite']}): {then['reason']}")]
    was, now = told["score"]["was"], told["score"]["now"]
    lines.append(f"score: {score(was['mean'])} -> {score(now['mean'])}")
    if found:
        low, high = (100 * value for value in found["ci95"])
        lines[-1] += (
            f", {100 * found['diff']:+.1f} points on {found['n']} rows (95 % CI {low:+.1f} to {high:+.1f}, "
            f"p = {found['p_value']:.2g}); {found['wins']} won, {found['losses']} lost, {found['ties']} tied"
        )
    readable = told["readable"]
    lines.append(f"replies that can be read: {score(readable['was']['mean'])} % -> {score(readable['now']['mean'])} %")
    lines.append(_steadiness(told))
    unanswered = told["unanswered"]
    if unanswered["was"] or unanswered["now"]:
        lines.append(f"rows without an answer: {unanswered['was']} -> {unanswered['now']}")
    noise = "more than repeat noise explains" if test["p_value"] <= test["at_most"] else "within repeat noise"
    lines.append(f"flipped: {test['flipped']} of {told['compared']} rows (p = {test['p_value']:.2g}: {noise})")
    for flip in told["flips"][:SHOWN]:
        scores = f"{score(flip['was_score'])} -> {score(flip['is_score'])}"
        lines.append(f"  {short(flip['row'], 30)}: {short(flip['was'], 60)} -> {short(flip['is'], 60)}  ({scores})")
    if len(told["flips"]) > SHOWN:
        lines.append(f"  and {len(told['flips']) - SHOWN} more; --json lists all")
    lines += [plain(f"note: {note}") for note in told["notes"]]
    if told["gate"] != "passed" and told["compared"]:
        lines.append("if this is what you want, `optimize bless` makes it the new reference")
    return "\n".join([*lines, cost_line(told)])


def _steadiness(told: dict[str, Any]) -> str:
    parts = []
    for side in ("was", "now"):
        found, times = told["steadiness"][side], told["repeats"][side]
        agreement = f"{score(found['agreement'])} % the same" if found else "not known"
        parts.append(f"{agreement} ({times} a row)")
    return f"answers when asked again: {' -> '.join(parts)}"
