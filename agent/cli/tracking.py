"""The options that show a run elsewhere: in trackers, and as spans of OpenTelemetry."""

from __future__ import annotations

import click

from agent.cli.common import F, Registered
from agent.tracking.tracker import TRACKERS

TRACKING = ("track", "track_texts")
"""Their names, for the groups of a command's help."""


def tracking_options(function: F) -> F:
    """--track and --track-texts."""
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
    )
    for option in reversed(options):
        function = option(function)
    return function
