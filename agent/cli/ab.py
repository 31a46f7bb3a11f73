"""`optimize ab`: which of two prompts does better in production?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agent.cli.common import SETTINGS, json_option, plain, print_json


@click.group(context_settings=SETTINGS)
def ab_command() -> None:
    """Read the outcomes of an A/B test, at any time."""


@click.command(context_settings=SETTINGS)
@click.argument("outcomes", type=click.Path(path_type=Path))
@click.option("--control", help="The arm to compare with. Default: the first by name.")
@click.option(
    "--alpha", type=click.FloatRange(0, 0.5, min_open=True), default=0.05, show_default=True, help="The error rate."
)
@click.option(
    "--smallest",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="A difference below it does not matter, so that equal arms can be told as well.",
)
@click.option(
    "--several",
    type=click.Choice(["refuse", "first"]),
    default="refuse",
    show_default=True,
    help="A unit with several outcomes: an error, or its first one counts.",
)
@json_option
def report_command(
    outcomes: Path, control: str | None, alpha: float, smallest: float, several: str, as_json: bool
) -> None:
    """Tell the difference of two arms with a confidence sequence: look as often as you like, and stop when you like.

    OUTCOMES is a .jsonl or .csv file, a row for each outcome in the order in which they came: unit (a user, a session),
    arm, outcome from 0 to 1; a time may stand there and is not read. Each is paired with the
    latest of the other arm. However often it is looked at, arms that are equal, or drift together, are told apart in at
    most 5 % of all tests.
    """
    from agent.release.production_logs import ab_report, read_outcomes

    told = ab_report(read_outcomes(outcomes, control, first=several == "first"), alpha, smallest)
    if as_json:
        print_json(told)
    else:
        click.echo(report(told))


def report(told: dict[str, Any]) -> str:
    """For people: both arms, the difference, and whether the test may end."""
    lines = [""]
    for name, units, mean in zip((told["control"], told["treatment"]), told["units"], told["means"], strict=True):
        lines.append(plain(f"{name}: {100 * mean:.1f} on {units} units"))
    low, high = (100 * value for value in told["ci"])
    level = f"{100 * told['confidence']:g} % confidence sequence"
    diff = "-" if told["diff"] is None else f"{100 * told['diff']:+.1f}"
    sides = f"{told['treatment']} minus {told['control']}"
    evidence = f"e = {told['e_value']:.3g} now, p = {told['p_value']:.2g} at any time"
    known = f"{level} {low:+.1f} to {high:+.1f}; {evidence}"
    lines.append(plain(f"{sides}: {diff} points on {told['pairs']} pairs ({known})"))
    if told["may_stop"]:
        lines.append(plain(f"{told['verdict']}: the test may be stopped"))
    else:
        lines.append("undecided: go on, or stop without a winner; looking costs nothing")
    if told["left_out"]:
        lines.append(f"{told['left_out']} later outcomes of units that had one were left out")
    if told["uneven"] is not None:
        lines.append(
            f"note: the split of units is uneven (p = {told['uneven']:.1g} for halves); if halves were meant, "
            "look at the bucketing before you believe anything"
        )
    return "\n".join(lines)


ab_command.add_command(report_command, "report")
