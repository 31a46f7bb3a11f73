"""`optimize models`: which models can be named, and fetching the embedded one."""

from __future__ import annotations

import click

from agent.cli.common import SETTINGS, json_option, print_json
from agent.cli.registered import told
from agent.cli.tables import print_table


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
        {"form": one.thing.form if one.thing else one.name, "about": told(one), "from": one.origin}
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
