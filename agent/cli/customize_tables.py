"""The tables below the one of the arms: settings that were tried, seeds, and what adapters cost elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from agent.cli.terminal_tables import Column, print_table
from agent.report.facts import bracketed, points

SETTINGS: Sequence[Column | str] = (
    Column("arm", floor=8),
    Column("rate"),
    Column("rank", 2),
    Column("epochs", 3),
    Column("dev loss"),
    Column("train s", 4),
    Column("", 1),
)
SEEDS: Sequence[Column | str] = (
    Column("arm", floor=8),
    Column("seeds"),
    Column("mean"),
    Column("smallest"),
    Column("largest"),
    Column("seed of the arm, 95 % CI", 1),
)


def print_more(result: Mapping[str, Any]) -> None:
    """Prints those tables of a comparison that have lines, each with an empty line after it."""
    _print("settings that were tried on dev", SETTINGS, list(_settings(result)))
    _print("sealed test with other seeds; the arm is the first, not the best", SEEDS, list(_seeds(result)))
    adapted = [arm for arm in result["arms"] if (arm["elsewhere"] or {}).get("tasks")]
    if adapted:
        first = adapted[0]["elsewhere"]
        heads = [f"{first['n']} general questions", *(f"{one['task']}, {one['n']} rows" for one in first["tasks"])]
        columns = [Column("arm", floor=8), *(Column(head, 1) for head in heads)]
        _print("right elsewhere with the adapter on, and off", columns, [_elsewhere(arm) for arm in adapted])


def _print(title: str, columns: Sequence[Column | str], rows: Sequence[Sequence[str]]) -> None:
    if rows:
        print_table(title, columns, rows)
        click.echo()


def _settings(result: Mapping[str, Any]) -> Iterator[list[str]]:
    for line in result.get("settings", ()):
        for each in line["tried"]:
            loss = "diverged" if each["diverged"] else "-" if each["dev_loss"] is None else f"{each['dev_loss']:.3f}"
            is_chosen = all(line["chosen"][name] == each[name] for name in ("learning_rate", "rank") if name in each)
            rank = str(each.get("rank", ""))
            seconds, last = f"{each['seconds']:.0f}", "chosen" if is_chosen else each.get("ended", "")
            yield [line["arm"], f"{each['learning_rate']:g}", rank, str(each["epochs"]), loss, seconds, last]


def _seeds(result: Mapping[str, Any]) -> Iterator[list[str]]:
    for arm in result["arms"]:
        if spread := arm.get("seeds"):
            ends = [points(spread[name]) for name in ("mean", "min", "max")]
            yield [arm["arm"], str(spread["n"]), *ends, points(arm["test"]) + bracketed(arm["ci95"])]


def _elsewhere(arm: Mapping[str, Any]) -> list[str]:
    line = arm["elsewhere"]
    others = (f"{points(one['on'])}, was {points(one['off'])}" for one in line["tasks"])
    return [arm["arm"], f"{line['right']}, was {line['base_right']}", *others]
