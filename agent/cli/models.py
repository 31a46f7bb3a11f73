"""`optimize models fetch`: the weights of an embedded model."""

from __future__ import annotations

import click

from agent.cli.common import SETTINGS


@click.command(context_settings=SETTINGS)
@click.argument("name", default="local/smollm2-135m")
def fetch_command(name: str) -> None:
    """Fetch the weights of NAME into the cache, checked by SHA-256; goes on where it stopped."""
    from agent.cli.progress import Progress
    from agent.models.weights import fetch

    with Progress(quiet=False) as progress:
        path = fetch(name, progress.download)
    click.echo(f"{name}: {path}")
