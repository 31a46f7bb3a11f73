"""`optimize tasks` and `optimize init`: what there is to optimize, and a new task out of the user's own file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

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
from agent.errors import InputError, ProblemsError
from agent.run.locations import find_task


@click.command(context_settings=SETTINGS)
@click.argument("task", required=False)
@json_option
def tasks_command(task: str | None, as_json: bool) -> None:
    """List the tasks under tasks/, or check TASK: every problem is printed with its file and line."""
    from agent.task.load import load_task

    folders = [find_task(task)] if task else sorted(path.parent for path in Path("tasks").glob("*/task.toml"))
    found: list[dict[str, Any]] = []
    for folder in folders:
        try:
            loaded = load_task(folder)
        except ProblemsError:
            if task:
                raise
            found.append({"name": folder.name, "problem": "broken: `optimize tasks " + folder.name + "` says where"})
            continue
        found.append(
            {
                "name": loaded.name,
                "signature": str(loaded.signature),
                "description": loaded.description,
                "rows": {"train": len(loaded.train), "dev": len(loaded.dev), "test": len(loaded.test)},
                "metrics": [metric.name for metric in loaded.metrics],
                "techniques": list(loaded.space.techniques),
                "formats": list(loaded.space.formats),
            }
        )
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
    from agent.task.from_file import write_task
    from agent.task.promptfoo_tests import EXPECTED, is_promptfoo, promptfoo_tests

    if not re.fullmatch(r"[^\W_][\w.-]*", Path(name).name):
        raise InputError(f"{name!r}: a task's folder has a name of letters, digits, dots, dashes and underscores")
    folder = Path(name) if len(Path(name).parts) > 1 else Path("tasks") / name
    try:
        instruction = prompt.read_text("utf-8-sig") if prompt else ""
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{prompt}: the prompt cannot be read ({error}); give a UTF-8 text file") from error
    tests = not target and is_promptfoo(source)
    if not target and not tests:
        raise InputError(f"{source}: name the column to predict with --target COLUMN")
    table, metric = promptfoo_tests(source) if tests else (None, None)
    column = EXPECTED if tests else target
    _, reading = write_task(folder, source, column, instruction, seed, folder.name, table, metric)
    for line in reading.lines():
        click.echo(plain(line))
    click.echo(f"wrote {folder}; look at {folder / 'task.toml'}, then: optimize {name}")
