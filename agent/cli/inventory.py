"""`optimize init`, `tasks`, `metrics`, `models` and `doctor`: the tasks, metrics and models here, and this machine."""

from __future__ import annotations

from pathlib import Path

import click

from agent.cli.common import (
    SETTINGS,
    about,
    json_option,
    ledger_options,
    print_json,
    short,
)
from agent.report.blocks import Column
from agent.report.terminal import print_table


@click.command(context_settings=SETTINGS)
@click.argument("task", required=False)
@json_option
def tasks_command(task: str | None, as_json: bool) -> None:
    """List the tasks under tasks/, or check TASK: every problem is printed with its file and line."""
    from agent.run.tasks import list_tasks

    items = list_tasks(task)
    if as_json:
        print_json({"tasks": items})
        return
    rows = []
    for item in items:
        sizes = "/".join(str(count) for count in item.get("rows", {}).values())
        words = str(item.get("problem") or item.get("description"))
        rows.append(
            (item["name"], item.get("signature", ""), sizes, ", ".join(item.get("metrics", [])), short(words, 70))
        )
    print_table("tasks", ("task", "signature", "train/dev/test", "metrics", "about"), rows)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def metrics_command() -> None:
    """List the metrics that a task may name."""


@metrics_command.command("list", context_settings=SETTINGS)
@json_option
def list_metrics(as_json: bool) -> None:
    """Each metric: the types of output that it scores, its options, and the package that it comes from."""
    from agent.metrics.metric_rule import METRICS

    metrics = [
        {
            "name": one.name,
            "types": list(one.thing.types) if one.thing else [],
            "options": list(one.thing.options.model_fields) if one.thing else [],
            "about": about(one),
            "from": one.origin,
        }
        for one in METRICS.all()
    ]
    if as_json:
        print_json({"metrics": metrics})
        return
    print_table(
        "metrics",
        ("metric", "scores", "options", Column("about", wraps=True, floor=20), "from"),
        [(m["name"], ", ".join(m["types"]), ", ".join(m["options"]), m["about"], m["from"]) for m in metrics],
    )


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def models_command() -> None:
    """List models, or fetch the embedded one."""


@models_command.command("list", context_settings=SETTINGS)
@json_option
def list_models(as_json: bool) -> None:
    """The forms of a model name, and which weights are here."""
    from agent.models.model_registry import MODELS
    from agent.models.weights import CATALOG, weights_path

    forms = [
        {"form": one.thing.form if one.thing else one.name, "about": about(one), "from": one.origin}
        for one in MODELS.all()
    ]
    weights = [
        {
            "name": f"local/{w.name}",
            "megabytes": w.megabytes,
            "licence": w.licence,
            "here": weights_path(w.name).is_file(),
            "path": str(weights_path(w.name)),
        }
        for w in CATALOG
    ]
    if as_json:
        print_json({"forms": forms, "weights": weights})
        return
    print_table("model names", ("form", "about", "from"), [tuple(form.values()) for form in forms])
    print_table(
        "weights",
        ("model", "MB", "licence", "here", "path"),
        [(w["name"], w["megabytes"], w["licence"], "yes" if w["here"] else "no", w["path"]) for w in weights],
    )


@models_command.command("fetch", context_settings=SETTINGS)
@click.argument("name", default="local/smollm2-135m")
def fetch_model(name: str) -> None:
    """Fetch the weights of NAME into the cache, checked by SHA-256; goes on where it stopped."""
    from agent.cli.progress import Progress
    from agent.models.weights import fetch

    with Progress(quiet=False) as progress:
        path = fetch(name, progress.download)
    click.echo(f"{name}: {path}")


@click.command(context_settings=SETTINGS)
@click.option("-m", "--model", multiple=True, help="Ask its provider about it, which costs nothing; repeatable.")
@ledger_options
def doctor_command(model: tuple[str, ...], db: Path, as_json: bool) -> None:
    """Check this machine: Python, SQLite, packages, embedded model, keys (never shown), tracing, disk and ledger.

    With --model also whether a model can be asked: its address, its key and its name.
    """
    from agent.run.health import examine

    checks = examine(model, db)
    healthy = all(good for _, good, _ in checks)
    if as_json:
        print_json({"healthy": healthy, "checks": [{"what": w, "ok": good, "found": f} for w, good, f in checks]})
    else:
        print_table("doctor", ("what", "", "found"), [(w, "ok" if good else "PROBLEM", f) for w, good, f in checks])
    if not healthy:
        raise SystemExit(1)
