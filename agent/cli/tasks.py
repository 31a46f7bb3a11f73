"""`optimize tasks` and `optimize init`: what there is to optimize, and a new task out of the user's own file."""

from __future__ import annotations

from pathlib import Path

import click

from agent.cli.common import (
    SEED,
    SETTINGS,
    json_option,
    plain,
    print_json,
    short,
)
from agent.cli.tables import print_table


@click.command(context_settings=SETTINGS)
@click.argument("task", required=False)
@json_option
def tasks_command(task: str | None, as_json: bool) -> None:
    """List the tasks under tasks/, or check TASK: every problem is printed with its file and line."""
    from agent.run.tasks import listed

    found = listed(task)
    if as_json:
        print_json({"tasks": found})
        return
    rows = []
    for item in found:
        sizes = "/".join(str(count) for count in item.get("rows", {}).values())
        about = str(item.get("problem") or item.get("description"))
        rows.append(
            (item["name"], item.get("signature", ""), sizes, ", ".join(item.get("metrics", [])), short(about, 70))
        )
    print_table("tasks", ("task", "signature", "train/dev/test", "metrics", "about"), rows)


@click.command(context_settings=SETTINGS)
@click.argument("name")
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    required=True,
    help="Your .csv or .jsonl file, or promptfoo's tests: a promptfooconfig.yaml, or a .csv with __expected.",
)
@click.option("--target", default="", help="The column to predict. Not needed for promptfoo's tests.")
@click.option(
    "--prompt", type=click.Path(path_type=Path), help="The prompt you use today. Default: a plain one is written."
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Decides which rows go to which split.")
def init_command(name: str, source: Path, target: str, prompt: Path | None, seed: int) -> None:
    """Make the task folder NAME (under tasks/, or a path) out of your own file; shows how the columns were read."""
    from agent.run.tasks import make_task

    folder, reading = make_task(name, source, target, prompt, seed)
    for line in reading.lines():
        click.echo(plain(line))
    click.echo(f"wrote {folder}; look at {folder / 'task.toml'}, then: optimize {name}")
