"""The pages of runs: the list, one run with its trials and how it goes on, and two of anything side by side."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from agent.errors import InputError
from agent.ledger.query import Row, cost_of
from agent.ledger.resume_state import IS_CALL
from agent.release.result import search_result
from agent.report import charts, compare, facts
from agent.report.view import RunView
from agent.report.web.ask import Ask, paged, query, sql_link

CHART = threading.Lock()
"""Held while a chart is drawn: the settings of the drawing library are the whole process's."""
SORTS: Mapping[str, str] = {"score": "mean", "cost": "cost_usd", "tokens": "tokens", "trial": "number"}
FILTERS = ("state", "technique", "format", "operator")
KEPT_WORDS = 12  # equal words and blanks shown beside a change of two prompts that are compared
ABOUT = (
    "id",
    "task",
    "folder",
    "status",
    "model",
    "proposer",
    "seed",
    "started_utc",
    "ended_utc",
    "seconds",
    "parent",
    "error",
)


class KeptView(RunView):
    """A run whose trials and costs are remembered until something is written to the ledger."""

    def __init__(self, ask: Ask) -> None:
        super().__init__(ask.history, ask.names["run"])
        self._ask = ask

    @cached_property
    def trials(self) -> list[Row]:
        return self._ask.kept("trials", self.id, lambda: super(KeptView, self).trials)

    @cached_property
    def costs(self) -> list[Row]:
        return self._ask.kept("costs", self.id, lambda: super(KeptView, self).costs)


# -- the list ---------------------------------------------------------------------------------------------------------


def runs(ask: Ask) -> dict[str, Any]:
    rows, place = paged(ask, ask.history.runs())
    return {
        "runs": [_line(row) for row in rows],
        "place": place,
        "ledger": str(ask.site.db),
        "sql": sql_link("SELECT * FROM runs ORDER BY started_utc DESC"),
    }


def _line(run: Row) -> dict[str, Any]:
    result, found = run["result"] or {}, search_result(run["result"])
    return {
        **{name: run[name] for name in ("id", "task", "model", "seed", "started_utc", "status", "error")},
        "baseline": found.baseline.test if found else None,
        "winner": found.winner.test if found else None,
        "lift": result.get("lift"),
        "decision": facts.decision(result),
        "cost": facts.dollars(result["cost_usd"], result.get("unpriced", ())) if "cost_usd" in result else "-",
    }


# -- one run ----------------------------------------------------------------------------------------------------------


def run(ask: Ask) -> dict[str, Any]:
    view = KeptView(ask)
    result = view.result
    best = result.winner if result else None
    found: dict[str, Any] = {
        "run": {name: view.run[name] for name in ABOUT},
        "command": (view.run["options"] or {}).get("command", ""),
        "result": view.run["result"],
        "is_erased": view.run["result"] is None and view.run["result_hash"] is not None,
        "live": live(ask) if view.run["status"] == "running" else None,
        "verdict": facts.verdict(result) if result else None,
        "certainty": facts.certainty(result) if result else None,
        "scores": _scores(view),
        "uncorrected": facts.uncorrected(result) if result else "",
        "design": facts.design(best.technique, best.format, best.n_demos) if best else "",
        "held_back": facts.held_back(result) if result else [],
        "promoted": facts.promotion(view.promoted) if view.promoted else "",
        "prompt_changes": ask.kept("changes", view.id, lambda: _changes(view)) if result else [],
        "costs": view.costs,
        "board": board(ask, view),
        "rated": any(trial["state"] == "complete" for trial in view.trials),
        "sql": sql_link("SELECT * FROM trials WHERE run_id = :run ORDER BY mean DESC", run=view.id),
    }
    return found


def _scores(view: RunView) -> list[dict[str, Any]]:
    """Your prompt, and the best found if it is another: dev, corrected for having been chosen on it, sealed test."""
    if view.result is None:
        return []
    found = []
    for side, name in facts.sides(view.result):
        dev, corrected = view.result.dev(side)
        found.append({"who": name, "dev": dev, "dev_corrected": corrected, "test": facts.tested(view.result, side)})
    return found


def _changes(view: RunView) -> list[dict[str, str]]:
    if view.baseline is None or view.winner is None or view.baseline["id"] == view.winner["id"]:
        return []
    return words_changed(facts.prompt_text(view.baseline), facts.prompt_text(view.winner))


def words_changed(one: str, two: str, keep: int | None = None) -> list[dict[str, str]]:
    return [{"kind": change.kind, "text": change.text} for change in facts.changes(one, two, keep)]


def chart(ask: Ask) -> str:
    """Score against calls as <svg>, without the style element that the page's policy refuses."""
    view = KeptView(ask)

    def draw() -> str:
        with CHART:
            drawn = charts.svg(charts.progress(view), "progress", f"Dev score against calls, run {view.id}")
        return re.sub(r"<style.*?</style>", "", drawn, flags=re.DOTALL)

    return ask.kept("chart", view.id, draw) if view.trials else ""


def board(ask: Ask, view: RunView) -> dict[str, Any]:
    """The trials that pass the filters of the address, in its order, one page of them."""
    wanted = {name: ask.arg(name) for name in FILTERS}
    least, text = _least(ask), ask.arg("text").casefold()
    sort = ask.arg("sort") if ask.arg("sort") in SORTS else "score"
    down = ask.arg("order", "up" if sort == "trial" else "down") != "up"
    found = [
        trial
        for trial in view.trials
        if all(not value or str(trial[name]) == value for name, value in wanted.items())
        and (least is None or (trial["mean"] is not None and 100 * trial["mean"] >= least))
        and text in trial["instruction"].casefold()
    ]
    key = SORTS[sort]
    found.sort(key=lambda trial: trial["number"])
    found.sort(key=lambda trial: trial[key] or 0, reverse=down)
    found.sort(key=lambda trial: trial[key] is None)
    rows, place = paged(ask, found)
    choices = {name: sorted({str(trial[name]) for trial in view.trials if trial[name]}) for name in FILTERS}
    return {
        "trials": rows,
        "place": place,
        "of": len(view.trials),
        "choices": choices,
        "wanted": {**wanted, "least": "" if least is None else f"{least:g}", "text": ask.arg("text")},
        "sort": sort,
        "order": "down" if down else "up",
        "sorts": {name: query(ask, "sort", "order") for name in SORTS},
    }


def _least(ask: Ask) -> float | None:
    """The lowest score shown, in points; None where none is asked for."""
    try:
        found = float(ask.arg("least"))
    except ValueError:
        return None
    return found if abs(found) < 1e9 else None


# -- a run that goes on -----------------------------------------------------------------------------------------------


def live(ask: Ask) -> dict[str, Any]:
    """How far a run is: asked again and again, so nothing here reads all calls one by one."""
    history = ask.history
    row = history.run(ask.names["run"])
    (calls,) = history.select(
        "SELECT COUNT(*) AS all_calls, COALESCE(SUM(state = 'cached'), 0) AS cached, "
        "COALESCE(SUM(CASE WHEN state <> 'cached' THEN prompt_tokens + completion_tokens END), 0) AS tokens, "
        f"{cost_of('calls', 'runs')} AS cost_usd FROM calls JOIN runs ON runs.id = run_id "
        f"WHERE run_id = ? AND {IS_CALL}",
        row["id"],
    )
    trials = history.select("SELECT number, state, mean FROM trials WHERE run_id = ?", row["id"])
    states: dict[str, int] = {}
    for trial in trials:
        states[trial["state"]] = states.get(trial["state"], 0) + 1
    complete = [trial["mean"] for trial in trials if trial["state"] == "complete" and trial["mean"] is not None]
    made = calls["all_calls"]
    return {
        "run_id": row["id"],
        "status": row["status"],
        "calls": made,
        "cached": calls["cached"],
        "planned": max(int((row["plan"] or {}).get("calls") or 0), made),
        "tokens": calls["tokens"],
        "cost_usd": calls["cost_usd"],
        "trials": states,
        "baseline": next((trial["mean"] for trial in trials if trial["number"] == 0), None),
        "best": max(complete, default=None),
        "changes": len(trials) + sum(states.get(state, 0) for state in ("complete", "pruned", "failed")),
    }


# -- side by side -----------------------------------------------------------------------------------------------------


def compared(ask: Ask) -> dict[str, Any]:
    """Two runs or trials named `a` and `b`, or the first two of `pick`; without them, what can be named."""
    picked = [name for name in ask.args.get("pick", ()) if name]
    names = [ask.arg("a") or next(iter(picked), ""), ask.arg("b") or next(iter(picked[1:2]), "")]
    found: dict[str, Any] = {
        "a": names[0],
        "b": names[1],
        "known": [row["id"] for row in ask.history.runs()][:200],
        "problem": "",
        "facts": [],
        "sql": "",
    }
    if not all(names):
        return found
    try:
        sides = [compare.side_of(ask.history, name) for name in names]
    except InputError as error:
        return {**found, "problem": str(error)}
    first, second = (side.candidate for side in sides)
    demos = [[demo["example_id"] for demo in candidate["demos"]] for candidate in (first, second)]
    lines = compare.facts(*sides)
    return {
        **found,
        "facts": [{"what": what, "a": one, "b": two, "same": one == two} for what, one, two in lines],
        "paired": {split: compare.paired(split, *sides) for split in ("test", "dev")},
        "unlike": compare.unlike(*sides),
        "changes": words_changed(facts.prompt_text(first), facts.prompt_text(second), KEPT_WORDS),
        "same_words": facts.prompt_text(first) == facts.prompt_text(second),
        "only": {
            "A": [row for row in demos[0] if row not in demos[1]],
            "B": [row for row in demos[1] if row not in demos[0]],
        },
        "sql": sql_link(
            "SELECT a.split, a.example_id, a.value AS a, b.value AS b FROM outcomes a "
            "JOIN outcomes b ON b.split = a.split AND b.example_id = a.example_id "
            "WHERE a.split IN ('dev', 'test') AND a.run_id = :run_a AND a.candidate_id = :candidate_a "
            "AND b.run_id = :run_b AND b.candidate_id = :candidate_b",
            run_a=sides[0].run["id"],
            candidate_a=first["id"],
            run_b=sides[1].run["id"],
            candidate_b=second["id"],
        ),
    }
