"""The page of a trial: its prompt, and what it answered on each dev row next to the user's own prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from agent.errors import InputError
from agent.report import facts
from agent.report.view import RowPair, RunView
from agent.report.web.ask import Ask, number_in, paged, sql_link
from agent.report.web.runs import words_changed

SHOWN: Mapping[str, tuple[str, Callable[[RowPair], bool]]] = {
    "all": ("all rows", lambda pair: True),
    "right": ("flipped to right", lambda pair: (pair.change or 0) > 0),
    "wrong": ("flipped to wrong", lambda pair: (pair.change or 0) < 0),
    "unreadable": ("failed to parse", lambda pair: bool(pair.two and pair.two["error"])),
}


def trial(ask: Ask) -> dict[str, Any]:
    view = RunView(ask.history, ask.names["run"])
    number = number_in(ask, "number")
    numbered = {row["number"]: row for row in ask.history.trials(view.id, [0, number])}
    if number not in numbered or 0 not in numbered:
        raise InputError(f"{view.id}: no trial {number}")
    base, own = (ask.history.candidate(numbered[n]["candidate_id"]) for n in (0, number))
    pairs = [pair for pair in view.pairs("dev", base["id"], own["id"]) if pair.two is not None]
    which = ask.arg("rows") if ask.arg("rows") in SHOWN else "all"
    rows, place = paged(ask, [pair for pair in pairs if SHOWN[which][1](pair)])
    parent = numbered[number]["parent_id"]
    return {
        "run": {name: view.run[name] for name in ("id", "task", "model")},
        "trial": numbered[number],
        "baseline": {name: numbered[0][name] for name in ("number", "mean", "low", "high", "n", "candidate_id")},
        "parent": _number_of(ask, view.id, parent) if parent else None,
        "prompt": own["template"] if not own["demos"] else None,
        "prompt_text": facts.prompt_text(own),
        "demos": own["demos"],
        "changes": words_changed(facts.prompt_text(base), facts.prompt_text(own)) if number else [],
        "shown": which,
        "counts": {name: {"words": words, "rows": sum(map(holds, pairs))} for name, (words, holds) in SHOWN.items()},
        "rows": [{**asdict(pair), "change": pair.change} for pair in rows],
        "rows_known": bool(view.examples.get("dev")),
        "place": place,
        "sql": sql_link(
            "SELECT example_id, value, call_key, body FROM outcomes LEFT JOIN blobs ON hash = body_hash "
            "WHERE run_id = :run AND candidate_id = :candidate AND split = 'dev'",
            run=view.id,
            candidate=own["id"],
        ),
    }


def _number_of(ask: Ask, run_id: str, candidate_id: str) -> int | None:
    found = ask.history.select(
        "SELECT number FROM trials WHERE run_id = ? AND candidate_id = ? LIMIT 1", run_id, candidate_id
    )
    return found[0]["number"] if found else None
