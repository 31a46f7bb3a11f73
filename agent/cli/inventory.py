"""`optimize init`, `tasks`, `metrics`, `models` and `doctor`: the tasks, metrics and models here, and this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.common import (
    SETTINGS,
    about,
    json_option,
    ledger_options,
    plain,
    print_json,
    print_result,
    short,
)
from agent.cli.declared import command
from agent.options.jobs import InitOptions
from agent.options.shared import LedgerOption, ShownOptions, SpendingOptions
from agent.report.blocks import Column
from agent.report.terminal import print_table

if TYPE_CHECKING:
    from agent.task.scoring_rule import Asked


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


class InitOutput(LedgerOption):
    """Where a draft is written down and shown."""

    quiet: bool = ShownOptions.field("quiet")


@command(InitOptions, InitOutput)
@click.argument("name", required=False, default="")
def init_command(options: InitOptions, output: InitOutput, name: str) -> None:
    """Make the task folder NAME (under tasks/, or a path) out of your own file; shows how the columns were read.

    With --sample SAMPLE instead: tasks/SAMPLE, a copy of a task that ships with Promptassay.

    With --describe instead: a task without labels, out of a sentence. A model drafts labels, a definition of each and a
    first prompt, in small steps that are checked; rows come from --from (with a row a line in a .txt file), or it
    writes synthetic ones. `optimize label NAME` then asks you for labels: no draft of a model ever is one. So it does
    for traces of which fewer than 30 answers are confirmed by feedback; those are the first labels.
    """
    from agent.run.tasks import copy_sample, make_task
    from agent.run.trace_task import task_from_traces
    from agent.task.scoring_rule import Asked
    from agent.task.traces import is_traces

    asked, source, seed = Asked.of(options), options.source, options.seed
    prompt = None if options.prompt is None else str(options.prompt)
    targets, describe, labels, sample = options.target, options.describe, options.labels, options.sample
    target = targets[0] if targets else ""
    if describe and len(targets) > 1:
        raise click.UsageError("--describe drafts labels of one kind: give one --target")
    if describe:
        if sample or prompt:
            raise click.UsageError("--describe drafts a task: give no --sample, and no --prompt")
        _draft(name, options, asked, output)
        return
    is_traced = source is not None and not target and is_traces(source)
    if labels and not is_traced:
        raise click.UsageError("--labels goes with --describe, or with traces")
    if sample:
        if name or source or target or prompt or asked.is_any or asked.form.is_any:
            raise click.UsageError("--sample copies a task as it is: give no NAME, and no option for a file of yours")
        folder = copy_sample(sample)
        click.echo(f"wrote {folder}; look at {folder / 'task.toml'}, then: optimize run {sample}")
        return
    if not name:
        raise click.UsageError("Missing argument 'NAME'.")
    if not source:
        raise click.UsageError("Missing option '--from'.")
    if is_traced:
        if asked.form.is_any:
            raise click.UsageError("--encoding, --sheet and --strip-html go with tables; leave them out for traces")
        folder, lines, then = task_from_traces(name, source, prompt, seed, asked, labels)
        click.echo("\n".join(map(plain, lines)))
        click.echo(f"wrote {folder}; look at {folder / 'task.toml'}, then: optimize {then} {name}")
        return
    folder, reading = make_task(name, source, targets if len(targets) > 1 else target, prompt, seed, asked)
    for line in reading.lines():
        click.echo(plain(line))
    click.echo(f"wrote {folder}; look at {folder / 'task.toml'}, then: optimize {name}")


def _draft(name: str, options: InitOptions, asked: Asked, output: InitOutput) -> None:
    """Draft a task without labels, and print it."""
    from agent.cli.progress import run_shown
    from agent.run.drafting import prepare_draft
    from agent.run.launch import silence

    if not name:
        raise click.UsageError("Missing argument 'NAME'.")
    silence()
    job, opening = prepare_draft(name, options, asked)
    if not output.quiet:
        click.echo(plain(opening), err=True)
    shown = ShownOptions(db=output.db, quiet=output.quiet)
    print_result(run_shown(job, options.part(SpendingOptions), shown, "drafting the task"), as_json=False)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def metrics_command() -> None:
    """List the metrics that a task may name."""


@metrics_command.command("list", context_settings=SETTINGS)
@json_option
def list_metrics(as_json: bool) -> None:
    """Each metric: the types of output that it scores, its options, and the package that it comes from."""
    from agent.metrics.metric_registry import METRICS

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
