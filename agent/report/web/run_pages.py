"""The pages of runs: the list, one run with its trials, progress and sealed rows, one trial, and checks over time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property, partial
from typing import Any

from agent.errors import InputError
from agent.ledger.query import Row, cost_of, is_erased
from agent.ledger.resume_state import IS_CALL
from agent.prompt.template import label_text
from agent.release.result import search_result
from agent.report import charts, compare, facts, run_tables
from agent.report.blocks import ChartBlock, PageSection, text
from agent.report.checks import KIND, CheckPoint, checks_chart, checks_of
from agent.report.compare import compared_texts, whole_prompt
from agent.report.comparison import comparison_sections, is_comparison, running_losses
from agent.report.html import page_sections, report_values
from agent.report.job_blocks import job_result, job_sections
from agent.report.run_blocks import PROMPT_LETTERS, run_sections
from agent.report.view import EQUAL, RowPair, RunView
from agent.report.web.page_request import PageRequest, sql_link

SORTS: Mapping[str, str] = {"score": "mean", "cost": "cost_usd", "tokens": "tokens", "trial": "number"}
FILTERS = ("state", "technique", "format", "operator")
ABOUT = ("id", "task", "folder", "status", "model", "proposer", "seed", "started_utc", "ended_utc", "seconds", "parent")
SECTIONS = ("verdict", "result", "prompt", "labels", "next", "search", "spend")
"""Those of a report that the page of a run shows."""
Passes = Callable[[RowPair], bool]
Filters = Mapping[str, tuple[str, Passes]]
"""By name the words of a filter of rows, and which rows pass it."""
UNREADABLE: tuple[str, Passes] = ("failed to parse", lambda pair: bool(pair.two and pair.two["error"]))
ROW_FILTERS: Filters = {
    "all": ("all rows", lambda pair: True),
    "right": ("flipped to right", lambda pair: (pair.change or 0) > 0),
    "wrong": ("flipped to wrong", lambda pair: (pair.change or 0) < 0),
    "unreadable": UNREADABLE,
}
"""Of the rows of a trial."""
SEALED_FILTERS: Filters = {
    "all": ("all rows", lambda pair: True),
    "won": ("won", lambda pair: _verdict(pair) == "won"),
    "lost": ("lost", lambda pair: _verdict(pair) == "lost"),
    "tied": ("tied", lambda pair: _verdict(pair) == "tied"),
    "unscored": ("without a score", lambda pair: _verdict(pair) == "unscored"),
    "unreadable": UNREADABLE,
}
"""Of the sealed rows. Won and lost are seen from the best found."""


class CachedRunView(RunView):
    """A run whose trials and costs are cached until something is written to the ledger."""

    def __init__(self, request: PageRequest) -> None:
        super().__init__(request.history, request.names["run"])
        self._request = request

    @cached_property
    def trials(self) -> list[Row]:
        return self._request.cached("trials", self.id, lambda: super(CachedRunView, self).trials)

    @cached_property
    def costs(self) -> list[Row]:
        return self._request.cached("costs", self.id, lambda: super(CachedRunView, self).costs)


# -- the list ---------------------------------------------------------------------------------------------------------


def runs(request: PageRequest) -> dict[str, Any]:
    """The list of runs: searches first, then what else was run, each newest first."""
    rows, place = request.paged(sorted(request.history.runs(), key=lambda row: not _is_search(row)))
    return {
        "runs": [_line(row) for row in rows],
        "place": place,
        "ledger": str(request.site.db),
        "sql": sql_link("SELECT * FROM runs ORDER BY started_utc DESC"),
    }


def _is_search(run: Row) -> bool:
    """Whether a run is a search, and not a check, a calibration or the like."""
    return not (run["options"] or {}).get("command") and not (run["result"] or {}).get("kind")


def _line(run: Row) -> dict[str, Any]:
    result, search = run["result"] or {}, search_result(run["result"])
    command = (run["options"] or {}).get("command")
    return {
        "is_search": _is_search(run),
        "job": str(result.get("kind") or command or "search").replace("_", " "),
        "outcome": facts.outcome(search) if search else "",
        **{name: run[name] for name in ("id", "task", "model", "seed", "started_utc", "status", "error")},
        "baseline": search.baseline.test if search else None,
        "winner": search.winner.test if search else None,
        "lift": result.get("lift") if search and not search.is_own else None,
        "decision": facts.decision(result),
        "cost": facts.dollars(result["cost_usd"], result.get("unpriced", ())) if "cost_usd" in result else "-",
    }


# -- one run ----------------------------------------------------------------------------------------------------------


def run(request: PageRequest) -> dict[str, Any]:
    """One run: its result, its trials, what it cost."""
    view = CachedRunView(request)
    result = view.result
    return {
        "run": {name: view.run[name] for name in (*ABOUT, "error")},
        "own": asdict(view.own),
        "is_search": _is_search(view.run),
        "command": (view.run["options"] or {}).get("command", ""),
        "result": view.run["result"],
        "is_erased": view.run["result"] is None and view.run["result_hash"] is not None,
        "live": live(request) if view.run["status"] == "running" else None,
        "verdict": facts.verdict(result) if result else None,
        "certainty": facts.certainty(result) if result else None,
        "sections": [section.as_dict() for section in _sections(request, view)],
        "prompts": _prompts(view),
        "marked": _marked(view),
        "board": board(request, view),
        "playable": result is not None and facts.ships_prompt(result),
        "checked": _checked(request, view),
        "rated": any(trial["state"] == "complete" for trial in view.trials),
        "sql": sql_link("SELECT * FROM trials WHERE run_id = :run ORDER BY mean DESC", run=view.id),
    }


def _checked(request: PageRequest, view: RunView) -> str:
    """The name of the prompt that a check checked, or that a search made and checks have checked; "" for none."""
    result = view.run["result"] or {}
    of_check = result.get("name") if result.get("kind") == KIND else ""
    name = str(of_check or (view.run["task"] if _is_search(view.run) else ""))
    return name if checks_named(request, name) else ""


def _sections(request: PageRequest, view: RunView) -> list[PageSection]:
    """What a run says besides its trials, as its report has it."""
    result, stored = view.result, view.run["result"] or {}
    if result is not None:
        return request.cached("sections", view.id, lambda: run_sections(result, view, names=SECTIONS))
    if is_comparison(view):
        return comparison_sections(view)
    try:
        found = job_sections(job_result(stored)) if stored.get("kind") else []
    except InputError as error:
        found = [PageSection("result", "Result", (text(str(error)),))]
    return [*found, *[PageSection("spend", "What it cost", (run_tables.spend(view),))] * bool(view.costs)]


def _prompts(view: RunView) -> list[dict[str, str]]:
    is_other = view.winner is not None and view.baseline is not None and view.winner["id"] != view.baseline["id"]
    shown = [("Best found", view.winner)] * is_other + [(view.own.name.capitalize(), view.baseline)]
    return [
        {"title": f"{title} in full", "text": facts.cut(whole_prompt(candidate), PROMPT_LETTERS)}
        for title, candidate in shown
        if candidate is not None
    ]


def _marked(view: RunView) -> list[dict[str, Any]]:
    named = [(facts.which(trial, view.result, view.own), trial) for trial in view.trials]
    return [{"number": trial["number"], "which": name, "mean": trial["mean"]} for name, trial in named if name]


def drawn(request: PageRequest) -> dict[str, Any]:
    """The charts of a run, for its page alone."""
    view = CachedRunView(request)
    title, draw = f"Dev score against calls, run {view.id}", partial(charts.progress, view)
    progress = request.cached("chart", view.id, lambda: ChartBlock("progress", title, draw, run_tables.best(view)))
    compared = request.cached("comparison", view.id, lambda: comparison_sections(view)) if is_comparison(view) else []
    sections = {section.name: section for section in _sections(request, view)}
    chart = progress.svg if view.trials else ""
    return {"chart": chart, "comparison": page_sections(compared), "sections": sections}


def report(request: PageRequest) -> dict[str, Any]:
    """The run and its result. Raises InputError for a run that is no search."""
    row = request.history.search(request.names["run"])
    about = {name: row[name] for name in ("id", "task", "model", "started_utc", "status")}
    return {"run": about, "result": row["result"]}


def report_drawn(request: PageRequest) -> dict[str, Any]:
    """What report_body.html shows."""
    return report_values(RunView(request.history, request.names["run"]))


def board(request: PageRequest, view: RunView) -> dict[str, Any]:
    """The trials that pass the filters of the address, in its order, one page of them."""
    wanted = {name: request.arg(name) for name in FILTERS}
    least, text = _least(request), request.arg("text").casefold()
    sort = request.arg("sort") if request.arg("sort") in SORTS else "score"
    down = request.arg("order", "up" if sort == "trial" else "down") != "up"
    trials = [
        trial
        for trial in view.trials
        if all(not value or str(trial[name]) == value for name, value in wanted.items())
        and (least is None or (trial["mean"] is not None and 100 * trial["mean"] >= least))
        and text in trial["instruction"].casefold()
    ]
    key = SORTS[sort]
    trials.sort(key=lambda trial: trial["number"])
    trials.sort(key=lambda trial: trial[key] or 0, reverse=down)
    trials.sort(key=lambda trial: trial[key] is None)
    rows, place = request.paged(trials)
    choices = {name: sorted({str(trial[name]) for trial in view.trials if trial[name]}) for name in FILTERS}
    return {
        "trials": [{**trial, "which": facts.which(trial, view.result, view.own)} for trial in rows],
        "place": place,
        "of": len(view.trials),
        "choices": choices,
        "wanted": {**wanted, "least": "" if least is None else f"{least:g}", "text": request.arg("text")},
        "sort": sort,
        "order": "down" if down else "up",
        "sorts": {name: request.query("sort", "order") for name in SORTS},
    }


def _least(request: PageRequest) -> float | None:
    """The lowest score to show, in points; None for all."""
    try:
        points = float(request.arg("least"))
    except ValueError:
        return None
    return points if abs(points) < 1e9 else None


# -- a running run ----------------------------------------------------------------------------------------------------


def live(request: PageRequest) -> dict[str, Any]:
    """How far a run is. A page asks every few seconds, so nothing here reads all calls one by one."""
    history = request.history
    view = RunView(history, request.names["run"])
    row = view.run
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
    training = running_losses(view) if is_comparison(view) else {}
    steps = sum(map(len, training.values()))
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
        "training": next(reversed(training), ""),
        "loss": next(reversed(training.values()))[-1] if training else None,
        "changes": len(trials) + sum(states.get(state, 0) for state in ("complete", "pruned", "failed")) + steps,
    }


# -- one trial --------------------------------------------------------------------------------------------------------


def trial(request: PageRequest) -> dict[str, Any]:
    """One trial: its prompt, and its answer to each dev row next to that of the user's own prompt."""
    view = RunView(request.history, request.names["run"])
    number = request.path_number("number")
    numbered = {row["number"]: row for row in request.history.trials(view.id, [0, number])}
    if number not in numbered or 0 not in numbered:
        raise InputError(f"{view.id}: no trial {number}")
    base, own = (request.history.candidate(numbered[n]["candidate_id"]) for n in (0, number))
    pairs = [pair for pair in view.pairs("dev", base["id"], own["id"]) if pair.two is not None]
    parent = numbered[number]["parent_id"]
    return {
        "run": {name: view.run[name] for name in ("id", "task", "model")},
        "own": asdict(view.own),
        "trial": numbered[number],
        "baseline": {name: numbered[0][name] for name in ("number", "mean", "low", "high", "n", "candidate_id")},
        "parent": _number_of(request, view.id, parent) if parent else None,
        "prompt": own["template"] if not own["demos"] else None,
        "prompt_text": facts.prompt_text(own),
        "whole_prompt": facts.cut(whole_prompt(own), PROMPT_LETTERS),
        "which": facts.which(numbered[number], view.result, view.own),
        "demos": own["demos"],
        "changes": [asdict(one) for one in compare.changes(*compared_texts(base, own))] if number else [],
        **_filtered(request, pairs, ROW_FILTERS),
        "rows_known": bool(view.examples.get("dev")),
        "sql": sql_link(
            "SELECT example_id, value, call_key, body FROM outcomes LEFT JOIN blobs ON hash = body_hash "
            "WHERE run_id = :run AND candidate_id = :candidate AND split = 'dev'",
            run=view.id,
            candidate=own["id"],
        ),
    }


def _number_of(request: PageRequest, run_id: str, candidate_id: str) -> int | None:
    rows = request.history.select(
        "SELECT number FROM trials WHERE run_id = ? AND candidate_id = ? LIMIT 1", run_id, candidate_id
    )
    return rows[0]["number"] if rows else None


# -- rows -------------------------------------------------------------------------------------------------------------


def sealed_rows(request: PageRequest) -> dict[str, Any]:
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
    return {
        "run": {name: view.run[name] for name in ("id", "task", "model")},
        "is_own": is_own,
        "names": dict(facts.sides(result)),
        "score": {side: facts.sealed_score(result, side) for side, _ in facts.sides(result)},
        "lift": facts.tally(result.lift.wins, result.lift.losses, result.lift.ties) if not is_own else "",
        "query": request.query("rows"),
        "of": len(pairs),
        **_filtered(request, pairs, SEALED_FILTERS, request.arg("text")),
        "rows_known": rows_known,
        "erased": sum(any(side and is_erased(side) for side in (pair.one, pair.two)) for pair in pairs),
        "sql": sql_link(
            "SELECT candidate_id, example_id, value, call_key, body FROM outcomes LEFT JOIN blobs ON hash = body_hash "
            "WHERE run_id = :run AND split = 'test' ORDER BY example_id",
            run=view.id,
        ),
    }


def _filtered(request: PageRequest, pairs: Sequence[RowPair], filters: Filters, text: str = "") -> dict[str, Any]:
    """The rows that pass the filter of the address and hold the text, one page of them."""
    which = request.arg("rows") if request.arg("rows") in filters else "all"
    found = [pair for pair in pairs if filters[which][1](pair) and _holds(pair, text.casefold())]
    shown, place = request.paged(found)
    return {
        "shown": which,
        "text": text,
        "counts": {
            name: {"words": words, "rows": sum(map(passes, pairs))} for name, (words, passes) in filters.items()
        },
        "rows": [{**asdict(pair), "change": pair.change, "verdict": _verdict(pair)} for pair in shown],
        "place": place,
    }


def _verdict(pair: RowPair) -> str:
    """`won`, `lost`, `tied` or `unscored`, for the second prompt."""
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


# -- checks -----------------------------------------------------------------------------------------------------------


def checks(request: PageRequest) -> dict[str, Any]:
    """The finished checks of the prompt that the address names. Raises InputError without one."""
    name = request.names["name"]
    points = checks_named(request, name)
    if not points:
        raise InputError(f"{name}: no finished check of a prompt of this name; `optimize check PROMPT` makes one")
    return {"name": name, "checks": [point.as_dict() for point in points]}


def checks_drawn(request: PageRequest) -> dict[str, Any]:
    """The chart of these checks, and their table."""
    name = request.names["name"]
    points = checks_named(request, name)
    return {"chart": request.cached("checks chart", name, lambda: checks_chart(name, points, "/run/"))}


def checks_named(request: PageRequest, name: str) -> list[CheckPoint]:
    """The finished checks of a prompt, the oldest first."""
    return request.cached("checks", name, lambda: checks_of(request.history, name))
