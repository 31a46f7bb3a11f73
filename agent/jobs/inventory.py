"""`optimize tasks`, `metrics list` and `models list`: the tasks, metrics and models here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.errors import ProblemsError
from agent.jobs.registry import Printed, about, job
from agent.jobs.tasks import find_task, tasks_here
from agent.metrics.metric_registry import METRICS
from agent.models.model_registry import MODELS
from agent.models.weights import CATALOG, weights_path
from agent.report.blocks import Column, short
from agent.report.terminal import print_table
from agent.task.load import load_task


@job("tasks")
def tasks(task: str | None = None) -> Printed:
    """List the tasks under tasks/, or check TASK: every problem is printed with its file and line."""
    items: list[dict[str, Any]] = []
    for folder in [find_task(task)] if task else [Path("tasks") / name for name in tasks_here()]:
        try:
            loaded = load_task(folder)
        except ProblemsError:
            if task:
                raise
            items.append({"name": folder.name, "problem": "broken: `optimize tasks " + folder.name + "` says where"})
            continue
        items.append(
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
    rows = []
    for item in items:
        sizes = "/".join(str(count) for count in item.get("rows", {}).values())
        words = str(item.get("problem") or item.get("description"))
        metrics = ", ".join(item.get("metrics", []))
        rows.append((item["name"], item.get("signature", ""), sizes, metrics, short(words, 70)))
    heads = ("task", "signature", "train/dev/test", "metrics", "about")
    return Printed({"tasks": items}, lambda: print_table("tasks", heads, rows))


@job("metrics list")
def metrics() -> Printed:
    """Each metric: the types of output that it scores, its options, and the package that it comes from."""
    found = [
        {
            "name": one.name,
            "types": list(one.thing.types) if one.thing else [],
            "options": list(one.thing.options.model_fields) if one.thing else [],
            "about": about(one),
            "from": one.origin,
        }
        for one in METRICS.all()
    ]
    heads = ("metric", "scores", "options", Column("about", wraps=True, floor=20), "from")
    rows = [(m["name"], ", ".join(m["types"]), ", ".join(m["options"]), m["about"], m["from"]) for m in found]
    return Printed({"metrics": found}, lambda: print_table("metrics", heads, rows))


@job("models list")
def models() -> Printed:
    """The forms of a model name, and which weights are here."""
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

    def tables() -> None:
        print_table("model names", ("form", "about", "from"), [tuple(form.values()) for form in forms])
        rows = [(w["name"], w["megabytes"], w["licence"], "yes" if w["here"] else "no", w["path"]) for w in weights]
        print_table("weights", ("model", "MB", "licence", "here", "path"), rows)

    return Printed({"forms": forms, "weights": weights}, tables)
