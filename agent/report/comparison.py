"""A comparison (`optimize customize`) for report and web page: arms with their cost, label curve, training losses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agent.report import facts
from agent.report.view import RunView

KIND = "customize"
THOUSAND, MILLION = 1_000, 1_000_000
HOUR = 3600
Unit = Literal["$", "hours", "tokens"]


def is_comparison(view: RunView) -> bool:
    """Whether a run is a comparison, finished or not."""
    return KIND in ((view.run["result"] or {}).get("kind"), (view.run["options"] or {}).get("command"))


def comparison(view: RunView) -> dict[str, Any] | None:
    """The arms, the advice and the curve, JSON-ready; None for any other run, and for one without a result."""
    result = view.run["result"] or {}
    if result.get("kind") != KIND:
        return None
    return {
        "advice": result["advice"],
        "of_run": result["of_run"],
        "arms": [{**arm, "costs": [_cost(arm, calls) for calls in (THOUSAND, MILLION)]} for arm in result["arms"]],
        "sizes": sorted({point["labels"] for point in result["curve"]}),
        "curve": facts.curve_table(result["curve"]),
        "curve_text": result["curve_text"],
        "settings": result.get("settings", []),
        "losses": losses(view),
    }


def losses(view: RunView) -> list[dict[str, Any]]:
    """The loss of each step of each training that was done, in nats: `arm`, `labels`, `seed`, `losses`."""
    found = [
        {**{name: body[name] for name in ("arm", "labels", "losses")}, "seed": body["settings"].get("seed", 0)}
        for body in _events(view, "trained")
    ]
    return sorted(found, key=lambda one: -one["labels"])


def running_losses(view: RunView) -> dict[str, list[float]]:
    """The losses of epochs that have ended by what is trained, in the order of its start."""
    lines: dict[str, list[float]] = {}
    for body in _events(view, "training_epoch"):
        lines.setdefault(f"{body['name']}, {body['labels']} rows", []).extend(body["losses"])
    return lines


def loss_lines(view: RunView) -> dict[str, list[float]]:
    """The losses by name of a training: those of the trainings that were done or, while the run goes on, so far."""
    if view.run["result"] is None:
        return running_losses(view)
    made = losses(view)
    seeds = {one["seed"] for one in made}
    more = {one["seed"]: f", seed {one['seed']}" if len(seeds) > 1 else "" for one in made}
    return {f"{one['arm']}, {one['labels']} rows{more[one['seed']]}": one["losses"] for one in made}


def _events(view: RunView, kind: str) -> list[dict[str, Any]]:
    found = view.history.select("SELECT body FROM events WHERE run_id = ? AND kind = ? ORDER BY seq", view.id, kind)
    return [json.loads(row["body"]) for row in found]


# -- score against cost -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CostPoint:
    """Arms with one score and one cost, as one point.

    Args:
        names: theirs.
        family: of the first: prompt, tuned, no model.
        cost: training and calls, in the unit of the chart; 0 or more.
        score: mean on the sealed rows, in [0, 1].
        ci95: of the score.
    """

    names: tuple[str, ...]
    family: str
    cost: float
    score: float
    ci95: tuple[float, float]


def cost_unit(arms: Sequence[Mapping[str, Any]]) -> Unit:
    """What the arms' costs are compared in: dollars where all are known and some are above 0, else hours of computing
    where the time of a call is known, else tokens of calls."""
    dollars = [(arm["usd_per_1000"], arm.get("train_usd", 0.0)) for arm in arms]
    if all(None not in pair for pair in dollars) and any(any(pair) for pair in dollars):
        return "$"
    return "tokens" if any(arm["latency_s"] is None for arm in arms) else "hours"


def cost_points(arms: Sequence[Mapping[str, Any]], calls: int) -> list[CostPoint]:
    """Score and cost of training and so many calls for each arm with a score; equal ones are one point.

    Args:
        arms: lines of a comparison's result.
        calls: at least 1.
    """
    unit = cost_unit(arms)
    groups: dict[tuple[float, float], list[Mapping[str, Any]]] = {}
    for arm in arms:
        if arm["test"] is not None and arm["ci95"]:
            groups.setdefault((_total(arm, unit, calls), arm["test"]), []).append(arm)
    return [
        CostPoint(tuple(arm["arm"] for arm in some), some[0]["family"], cost, score, tuple(some[0]["ci95"]))
        for (cost, score), some in groups.items()
    ]


def _total(arm: Mapping[str, Any], unit: Unit, calls: int) -> float:
    if unit == "$":
        return float(arm.get("train_usd", 0.0) + arm["usd_per_1000"] * calls / THOUSAND)
    if unit == "hours":
        return float(arm["train_s"] + arm["latency_s"] * calls) / HOUR
    return float(arm["tokens_per_call"] * calls)


def _cost(arm: Mapping[str, Any], calls: int) -> dict[str, Any]:
    """Dollars and hours of so many calls, one after the other, without training; None where they are not known."""
    usd, seconds = arm["usd_per_1000"], arm["latency_s"]
    return {
        "calls": calls,
        "usd": None if usd is None else usd * calls / THOUSAND,
        "hours": None if seconds is None else seconds * calls / HOUR,
    }
