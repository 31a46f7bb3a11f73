"""`optimize metrics`: which metrics a task may name, what they score, and where they come from."""

from __future__ import annotations

import click

from agent.cli.common import SETTINGS, json_option, print_json
from agent.cli.registered import told
from agent.cli.tables import Column, print_table


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def metrics_command() -> None:
    """List the metrics that a task may name."""


@metrics_command.command("list", context_settings=SETTINGS)
@json_option
def list_metrics(as_json: bool) -> None:
    """Each metric: the types of output that it scores, its options, and the package that it comes from."""
    from agent.metrics.metric_registry import METRICS

    found = [
        {
            "name": one.name,
            "types": list(one.thing.types) if one.thing else [],
            "options": list(one.thing.options.model_fields) if one.thing else [],
            "about": told(one),
            "from": one.origin,
        }
        for one in METRICS.all()
    ]
    if as_json:
        print_json({"metrics": found})
        return
    print_table(
        "metrics",
        ("metric", "scores", "options", Column("about", wraps=True, floor=20), "from"),
        [(m["name"], ", ".join(m["types"]), ", ".join(m["options"]), m["about"], m["from"]) for m in found],
    )
