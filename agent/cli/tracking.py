"""The options that show a run elsewhere: in trackers, and as spans of OpenTelemetry."""

from __future__ import annotations

import click

from agent.cli.common import F, Registered
from agent.tracking.tracker import TRACKERS

TRACKING = ("track", "track_texts", "trace")
"""Their names, for the groups of a command's help."""


def tracking_options(function: F) -> F:
    """--track, --track-texts and --trace."""
    options = (
        click.option(
            "--track",
            type=Registered(TRACKERS),
            multiple=True,
            help="Show the run in this tracker, too; repeatable. Nothing leaves this machine unless its server is "
            "configured.",
        ),
        click.option(
            "--track-texts", is_flag=True, help="Let trackers have texts of your rows: demos, inputs and replies."
        ),
        click.option(
            "--trace",
            metavar="ADDRESS",
            help="Send the run, its trials and calls as OpenTelemetry spans to this OTLP/HTTP receiver, such as "
            "http://localhost:4318 (`env`: the one of OTEL_EXPORTER_OTLP_ENDPOINT).",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function
