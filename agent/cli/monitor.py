"""`optimize monitor`: do production's answers still look like those of the reference?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from agent.errors import InputError
from agent.run.locations import find_task
from agent.run.released_files import prompt_path, task_folder

if TYPE_CHECKING:
    from agent.release.runtime import Prompt
    from agent.types import Drift

LABELS = 6  # shown of a mix, the most that moved first


@click.command(context_settings=SETTINGS)
@click.argument("prompt")
@click.argument("log", type=click.Path(path_type=Path))
@click.option("--reference", type=click.Path(path_type=Path), help="A log of good answers. Default: the suite.")
@click.option("--suite", type=click.Path(path_type=Path), help="Recorded answers. Default: suite.json beside PROMPT.")
@click.option("--task", help="Whose [monitor] limits hold. Default: the prompt's own task, if it is here.")
@click.option(
    "--alpha", type=click.FloatRange(0, 0.5, min_open=True), help="False alarms of one look; over the task's."
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="For permutation tests.")
@db_option
@json_option
def monitor_command(
    prompt: str,
    log: Path,
    reference: Path | None,
    suite: Path | None,
    task: str | None,
    alpha: float | None,
    seed: int,
    db: Path,
    as_json: bool,
) -> None:
    """Compare LOG, answers of production, with the reference answers of a released PROMPT; 100 when they drifted.

    LOG is a .jsonl file, a row for each answer: reply, and where known inputs, time, score (0 to 1); or a .csv file
    without inputs. Looked at are replies that cannot be read, the mix of labels, lengths, answers to inputs that come
    again, and scores. An alarm needs a change that is significant, corrected for the number of tests, and as large as
    [monitor] in task.toml says. No model is asked.
    """
    from agent.release.production_logs import compare_windows, window_of_log, window_of_suite
    from agent.release.runtime import load_prompt
    from agent.release.suite import SUITE_FILE, read_suite, require_fit

    if reference and suite:
        raise InputError("--reference and --suite: give one of the two")
    path = prompt_path(prompt, db)
    loaded = load_prompt(path)
    if reference:
        was = window_of_log(reference, loaded)
    else:
        file = suite or path.with_name(SUITE_FILE)
        if not suite and not file.exists():
            raise InputError(
                f"{file}: no recorded answers; record some with `optimize bless`, or give --reference FILE, a log of "
                "answers that were good"
            )
        recorded = read_suite(file)
        require_fit(recorded, loaded, str(file))
        was = window_of_suite(recorded, loaded)
    limits = _limits(loaded, task, db)
    if alpha:
        limits = replace(limits, alpha=alpha)
    found = compare_windows(was, window_of_log(log, loaded), loaded, limits, seed)
    told = {"name": loaded.name, "version": loaded.version, "log": str(log), **found}
    if as_json:
        print_json(told)
    else:
        click.echo(report(told))
    if told["drift"]:
        raise SystemExit(100)


def _limits(prompt: Prompt, task: str | None, db: Path) -> Drift:
    """The limits of the task that is named, else of the prompt's own, else the defaults."""
    from agent.task.load import load_task
    from agent.types import Drift

    try:
        folder = find_task(task) if task else task_folder(prompt.name, prompt, db)
    except InputError:
        if task:
            raise
        return Drift()
    return load_task(folder).monitor


def report(told: dict[str, Any]) -> str:
    """The tests for people, alarms first."""
    verdict = "DRIFT" if told["drift"] else "no drift"
    when = f", {told['from']} to {told['to']}" if told["from"] else ""
    rows = told["rows"]
    lines = ["", plain(f"{told['name']} {told['version']}: {verdict} in {rows['now']} answers{when}")]
    lines.append(f"reference: {rows['was']} answers; at most {100 * told['alpha']:g} % false alarms a look")
    lines.append("")
    for found in sorted(told["tests"], key=lambda each: not each["alarm"]):
        name = f"{'ALARM ' if found['alarm'] else '      '}{found['name']}"
        if found["p_value"] is None:
            lines.append(plain(f"{name}: cannot be told, {found['why']}"))
            continue
        size = f"change {found['effect']:+.3f} (alarms from {found['limit']:g}), p = {found['p_value']:.2g}"
        lines.append(plain(f"{name}: {_sides(found)}; {size}"))
    return "\n".join(lines)


def _sides(found: dict[str, Any]) -> str:
    was, now = found["was"], found["now"]
    if not isinstance(was, dict):
        if found["name"].startswith("length"):
            return f"median {was:g} -> {now:g}"
        return f"{score(was)} % -> {score(now)} %"
    moved = sorted(was, key=lambda label: -abs(was[label] - now[label]))
    parts = [f"{short(label, 30)} {score(was[label])} -> {score(now[label])} %" for label in moved[:LABELS]]
    return ", ".join(parts) + (f" and {len(moved) - LABELS} more" if len(moved) > LABELS else "")
