"""The sealed test rows of a run, each with the answers of your prompt and of the best found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from agent.errors import InputError
from agent.ledger.query import is_erased
from agent.prompt.template import label_text
from agent.report import facts
from agent.report.view import EQUAL, RowPair
from agent.report.web.page_request import PageRequest, sql_link
from agent.report.web.run_pages import CachedRunView

FILTERS: Mapping[str, tuple[str, Callable[[RowPair], bool]]] = {
    "all": ("all rows", lambda pair: True),
    "won": ("won", lambda pair: _verdict(pair) == "won"),
    "lost": ("lost", lambda pair: _verdict(pair) == "lost"),
    "tied": ("tied", lambda pair: _verdict(pair) == "tied"),
    "unscored": ("without a score", lambda pair: _verdict(pair) == "unscored"),
    "unreadable": ("failed to parse", lambda pair: bool(pair.two and pair.two["error"])),
}
"""Filters of the sealed rows: words, and which rows pass. Won and lost are seen from the best found."""


def rows(request: PageRequest) -> dict[str, Any]:
    """The sealed rows that pass filter and search, one page of them. Raises InputError without a result."""
    view = CachedRunView(request)
    result = view.result
    if result is None or view.baseline is None or view.winner is None:
        raise InputError(f"{view.id}: {facts.without_result(view.run)}, so it has no sealed rows to show")
    one, two = view.baseline["id"], view.winner["id"]
    is_own = one == two and result.migration is None
    pairs, rows_known = request.cached(
        "sealed rows", view.id, lambda: (view.pairs("test", one, two), "test" in view.examples)
    )
    which = request.arg("rows") if request.arg("rows") in FILTERS else "all"
    text = request.arg("text")
    filtered = [pair for pair in pairs if FILTERS[which][1](pair) and _holds(pair, text.casefold())]
    shown, place = request.paged(filtered)
    return {
        "run": {name: view.run[name] for name in ("id", "task", "model")},
        "is_own": is_own,
        "names": dict(facts.sides(result)),
        "score": {side: facts.sealed_score(result, side) for side, _ in facts.sides(result)},
        "lift": facts.tally(result.lift.wins, result.lift.losses, result.lift.ties) if not is_own else "",
        "shown": which,
        "text": text,
        "query": request.query("rows"),
        "counts": {
            name: {"words": words, "rows": sum(map(passes, pairs))} for name, (words, passes) in FILTERS.items()
        },
        "of": len(pairs),
        "rows": [{**asdict(pair), "change": pair.change, "verdict": _verdict(pair)} for pair in shown],
        "rows_known": rows_known,
        "erased": sum(any(side and is_erased(side) for side in (pair.one, pair.two)) for pair in pairs),
        "place": place,
        "sql": sql_link(
            "SELECT candidate_id, example_id, value, call_key, body FROM outcomes LEFT JOIN blobs ON hash = body_hash "
            "WHERE run_id = :run AND split = 'test' ORDER BY example_id",
            run=view.id,
        ),
    }


def _verdict(pair: RowPair) -> str:
    """`won`, `lost`, `tied` or `unscored`, for the best found."""
    if pair.change is None:
        return "unscored"
    return "tied" if abs(pair.change) <= EQUAL else "won" if pair.change > 0 else "lost"


def _holds(pair: RowPair, text: str) -> bool:
    """Whether the row's id, its values or one of its replies has `text`, which is in lower case."""
    if not text:
        return True
    texts = [pair.example_id, *pair.inputs.values(), *map(label_text, pair.labels.values())]
    texts += [side["reply"] for side in (pair.one, pair.two) if side is not None]
    return any(text in one.casefold() for one in texts)
