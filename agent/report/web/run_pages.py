"""Pages of one run: result, trials, progress, test rows, and report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any
from urllib.parse import urlencode

from agent.errors import InputError
from agent.ledger.query import cost_of
from agent.ledger.resume_state import IS_CALL
from agent.report import charts, run_tables, terms, wording
from agent.report.blocks import Block, ChartBlock, PageCell, PageSection, group, line, text
from agent.report.checks import KIND
from agent.report.comparison import comparison_sections, is_comparison, running_losses
from agent.report.html import page_sections, report_sections
from agent.report.job_blocks import job_result, sections_of
from agent.report.page_blocks import FigureBlock, ProgressBlock, TermsBlock
from agent.report.prompt_texts import whole_prompt
from agent.report.run_blocks import PROMPT_LETTERS, run_sections
from agent.report.view import RunView
from agent.report.web.page_request import CachedRunView, Page, PageRequest, checks_named, is_search, sql_link
from agent.report.web.parts import (
    address,
    badge,
    box,
    crumbs,
    links,
    moment,
    section,
    title,
)
from agent.report.web.row_pages import sealed_rows
from agent.report.web.trial_pages import board, board_blocks
from agent.report.wording import dollars, points

ABOUT = ("id", "task", "folder", "status", "model", "proposer", "seed", "started_utc", "ended_utc", "seconds", "parent")
SECTIONS = ("verdict", "result", "prompt", "labels", "next", "search", "spend")
"""Sections of the report that the page of a run shows."""
CUSTOMIZE = "customize"


def run(request: PageRequest) -> Page:
    """Return the page of one run: result, trials, cost."""
    view = CachedRunView(request)
    result, found, here = view.result, view.run, address("run", view.id)
    shown = board(request, view)
    data = {
        "run": {name: found[name] for name in (*ABOUT, "error")},
        "own": asdict(view.baseline_words),
        "is_search": is_search(found),
        "command": (found["options"] or {}).get("command", ""),
        "result": found["result"],
        "is_erased": found["result"] is None and found["result_hash"] is not None,
        "live": progress(request) if found["status"] == "running" else None,
        "verdict": wording.verdict(result) if result else None,
        "certainty": wording.certainty(result) if result else None,
        "sections": [each.as_dict() for each in _sections(request, view)],
        "prompts": _prompts(view),
        "marked": _marked(view),
        "board": shown,
        "playable": result is not None and wording.ships_prompt(result),
        "checked": _checked(request, view),
        "rated": any(trial["state"] == "complete" for trial in view.trials),
    }
    also = f"{here}.json?{shown['place']['query']}"
    sql = sql_link("SELECT * FROM trials WHERE run_id = :run ORDER BY mean DESC", run=view.id)
    script = "live.js" if data["live"] else ""
    sections = partial(_run_page, request, view, data)
    return Page(f"{found['task']} · {view.id}", data, sections, also, sql, script=script)


def _run_page(request: PageRequest, view: RunView, data: Mapping[str, Any]) -> Iterator[PageSection]:
    made = {each.name: each for each in page_sections(_sections(request, view))}
    found, live, here = view.run, data["live"], address("run", view.id)
    running = f"{found['task']} is running" if live else found["task"]
    head = [title(f"{data['verdict']}." if data["verdict"] else running)]
    head += [line(data["certainty"])] if data["certainty"] else []
    yield section("", *head, *_blocks(made, "verdict"), *_about(view, data, here))
    if live:
        yield section("", _progress(view, live, here, data["command"] == CUSTOMIZE))
    if "result" in made:
        yield made["result"] if not data["verdict"] else replace(made["result"], title="")
    compared = _compared(request, view)
    if data["result"]:
        yield from page_sections(compared)
    if data["prompts"]:
        whole = [text(each["text"], heading=each["title"], exact=True, folded=True) for each in data["prompts"]]
        yield section("The prompt", *(_blocks(made, "prompt") or whole), name="prompt")
    if live and data["command"] == CUSTOMIZE:
        yield section("", group(*(block for each in page_sections(compared) for block in each.blocks), live="losses"))
    yield section("", group(*_progress_chart(request, view), live="chart"))
    if view.trials or live:
        yield section("Trials", *board_blocks(view, data, here), name="board")
    if "labels" in made:
        yield replace(made["labels"], title="Answers")
    yield from (made[name] for name in ("next", "search", "spend") if name in made)
    if view.trials:
        yield section("", TermsBlock(terms.legend(is_compared=bool(data["certainty"]))))


def _blocks(made: Mapping[str, PageSection], name: str) -> tuple[Block, ...]:
    return made[name].blocks if name in made else ()


def _about(view: RunView, data: Mapping[str, Any], here: str) -> Iterator[Block | None]:
    found = view.run
    said = f"{found['task']} · {found['model']} · proposer {found['proposer'] or 'none'} · seed {found['seed']}"
    yield line(f"run {view.id} · {said} · {moment(found['started_utc'])} UTC · ", badge(found["status"]), look="soft")
    has = {
        "Report": (f"{here}/report", data["is_search"]),
        "Prompt": ("#prompt", data["prompts"]),
        "Trials": ("#board", True),
        "Rate its answers": (f"{here}/rate", data["rated"]),
        "Sealed rows": (f"{here}/rows", data["verdict"]),
        "Checks over time": (address("checks", data["checked"]), data["checked"]),
        "Events": (f"{here}/events", True),
        "Compare with another run": (f"/compare?{urlencode({'a': view.id})}", True),
    }
    yield links(PageCell(name, href) for name, (href, is_there) in has.items() if is_there)
    if data["playable"]:
        yield line(PageCell("Try the prompt", f"{here}/play", "button main"))
    if data["is_erased"]:
        yield box("The result of this run was erased.")
    elif not data["result"] and not data["live"]:
        why = f" {found['error']}." if found["error"] else ""
        yield box(f"No result: this run is {found['status']}.{why} {wording.continued(found)}")


def _checked(request: PageRequest, view: RunView) -> str:
    # of a check, or of a search whose prompt was checked later
    result = view.run["result"] or {}
    of_check = result.get("name") if result.get("kind") == KIND else ""
    name = str(of_check or (view.run["task"] if is_search(view.run) else ""))
    return name if checks_named(request, name).checks else ""


def _sections(request: PageRequest, view: RunView) -> list[PageSection]:
    result, stored = view.result, view.run["result"] or {}
    if result is not None:
        return request.cached("sections", view.id, lambda: run_sections(result, view, names=SECTIONS))
    if is_comparison(view):
        return comparison_sections(view)
    try:
        found = sections_of(job_result(stored)) if stored.get("kind") else []
    except InputError as error:
        found = [PageSection("result", "Result", (text(str(error)),))]
    return [*found, *[PageSection("spend", "What it cost", (run_tables.spend(view),))] * bool(view.costs)]


def _prompts(view: RunView) -> list[dict[str, str]]:
    is_other = view.winner is not None and view.baseline is not None and view.winner["id"] != view.baseline["id"]
    shown = [("Best found", view.winner)] * is_other + [(view.baseline_words.name.capitalize(), view.baseline)]
    return [
        {"title": f"{name} in full", "text": wording.cut(whole_prompt(candidate), PROMPT_LETTERS)}
        for name, candidate in shown
        if candidate is not None
    ]


def _marked(view: RunView) -> list[dict[str, Any]]:
    which = [(wording.which(trial, view.result, view.baseline_words), trial) for trial in view.trials]
    return [{"number": trial["number"], "which": name, "mean": trial["mean"]} for name, trial in which if name]


def _compared(request: PageRequest, view: RunView) -> list[PageSection]:
    return request.cached("comparison", view.id, lambda: comparison_sections(view)) if is_comparison(view) else []


def _progress_chart(request: PageRequest, view: RunView) -> list[Block]:
    if not view.trials:
        return []
    name, draw = f"Dev score against calls, run {view.id}", partial(charts.progress, view)
    made = ChartBlock("progress", name, draw, run_tables.best(view))
    return [line("Score against calls", level=2), request.cached("chart", view.id, lambda: made)]


def live(request: PageRequest) -> Page:
    return Page("", progress(request))


def progress(request: PageRequest) -> dict[str, Any]:
    """Return the progress of a run; polled every few seconds, so it never reads all calls one by one."""
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


def _progress(view: RunView, now: Mapping[str, Any], here: str, is_training: bool) -> Block:
    figures = [
        ("best so far", points(now["best"]), "best", "points"),
        (view.baseline_words.name, points(now["baseline"]), "baseline", "points"),
        ("trials done", str(now["trials"].get("complete", 0)), "complete", "plain"),
        ("cut early", str(now["trials"].get("pruned", 0)), "pruned", "plain"),
        *[("training", now["training"], "training", "plain")] * is_training,
        *[("loss", "-" if now["loss"] is None else f"{now['loss']:.3f}", "loss", "loss")] * is_training,
        ("tokens", str(now["tokens"]), "tokens", "plain"),
        ("cost", dollars(now["cost_usd"]), "cost_usd", "dollars"),
    ]
    shown = tuple((name, value) for name, value, *_ in figures)
    by_name = {name: (key, form) for name, _, key, form in figures}
    return ProgressBlock(now["calls"], now["planned"], "Calls", f"{here}/live.json", FigureBlock(shown, by_name))


def report(request: PageRequest) -> Page:
    """Return the run and its report; raise InputError if it is no search."""
    row = request.history.search(request.names["run"])
    about = {name: row[name] for name in ("id", "task", "model", "started_utc", "status")}

    def shown() -> Iterator[PageSection]:
        yield section(
            "",
            crumbs(f"run {row['id']}", "run", row["id"]),
            title(f"Report of {row['task']}"),
            line(
                f"{row['model']} · {row['started_utc'][:10]} · as one file to send on: ",
                PageCell(f"optimize report {row['id']}", tag="code"),
                look="soft",
            ),
        )
        yield from report_sections(RunView(request.history, row["id"]))

    data = {"run": about, "result": row["result"]}
    return Page(f"Report · {row['task']}", data, shown, f"{address('run', row['id'])}/report.json")


def sealed(request: PageRequest) -> Page:
    return sealed_rows(request, CachedRunView(request))
