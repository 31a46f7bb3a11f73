"""The page of a comparison (`optimize customize`): arms with their cost, the label curve, training losses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from agent.report import charts, facts
from agent.report.view import RunView

KIND = "customize"
THOUSAND, MILLION = 1_000, 1_000_000


def comparison(view: RunView) -> dict[str, Any] | None:
    """The arms, the advice and the curve, JSON-ready; None for any other run."""
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
        "losses": losses(view),
    }


def losses(view: RunView) -> list[dict[str, Any]]:
    """The loss of each step of each training: `arm`, `labels`, `losses` in nats."""
    found = view.history.select("SELECT body FROM events WHERE run_id = ? AND kind = 'trained' ORDER BY seq", view.id)
    bodies = [json.loads(row["body"]) for row in found]
    return [{name: body[name] for name in ("arm", "labels", "losses")} for body in bodies]


def losses_chart(view: RunView) -> str:
    """The losses as <svg>; "" where nothing was trained."""
    made: Sequence[Mapping[str, Any]] = losses(view)
    lines = {f"{one['arm']}, {one['labels']} rows": one["losses"] for one in made}
    return charts.svg(charts.losses(lines), "losses", f"Training loss by step, run {view.id}") if lines else ""


def _cost(arm: Mapping[str, Any], calls: int) -> dict[str, Any]:
    """Dollars and hours of so many calls, one after the other; None where they are not known."""
    usd, seconds = arm["usd_per_1000"], arm["latency_s"]
    return {
        "calls": calls,
        "usd": None if usd is None else usd * calls / THOUSAND,
        "hours": None if seconds is None else seconds * calls / 3600,
    }
