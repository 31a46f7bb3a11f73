"""Pages of one run: result, trials, progress, and report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import urlencode

from agent.errors import InputError
from agent.ledger.query import Row, cost_of, is_search
from agent.ledger.resume_state import IS_CALL
from agent.report import charts, run_tables, terms, trial_tables, wording
from agent.report.blocks import Block, ChartBlock, PageCell, PageSection, group, line, sentence, text
from agent.report.checks import KIND
from agent.report.comparison import comparison_sections, is_comparison, running_losses
from agent.report.html import page_sections, report_sections
from agent.report.job_blocks import job_result, sections_of
from agent.report.page_blocks import FigureBlock, ProgressBlock, TermsBlock
from agent.report.run_blocks import in_full, run_sections
from agent.report.trial_tables import badge
from agent.report.view import RunView
from agent.report.web import parts
from agent.report.web.page_request import CachedRunView, Page, PageRequest, checks_named, sql_link
from agent.report.web.parts import address, section
from agent.report.web.trial_pages import board
from agent.report.wording import dollars
from agent.stats.figures import points

SECTIONS = ("verdict", "result", "prompt", "labels", "next", "search", "spend")
"""Sections of the report that the page of a run shows."""


def run(request: PageRequest) -> Page:
    """Return the page of one run: result, trials, cost."""
    view = CachedRunView(request)
    result, found = view.result, view.run
    is_live = found["status"] == "running"
    is_custom = is_comparison(view)
    made = {each.name: each for each in page_sections(_sections(request, view))}
    compared = request.cached("comparison", view.id, lambda: comparison_sections(view)) if is_custom else []
    trials, trial_blocks = board(request, view)
    words = f"{wording.verdict(result)}." if result else f"{found['task']} is running" if is_live else found["task"]
    certainty = wording.certainty(result) if result else ""
    sections = [
        parts.head(
            words, line(certainty) if certainty else None, *_blocks(made, "verdict"), *_about(request, view, is_live)
        )
    ]
    if is_live:
        sections.append(section("", _progress(view, progress(request), is_custom)))
    if "result" in made:
        sections.append(replace(made["result"], title="") if result else made["result"])
    if found["result"]:
        sections += page_sections(compared)
    if view.baseline is not None:
        prompts = _blocks(made, "prompt") or (in_full(view.own, view.baseline),)
        sections.append(section("The prompt", *prompts, name="prompt"))
    if is_live and is_custom:
        losses = [block for each in page_sections(compared) for block in each.blocks]
        sections.append(section("", group(*losses, live="losses")))
    sections.append(section("", group(*_progress_chart(request, view), live="chart")))
    if view.trials or is_live:
        sections.append(section("Trials", *trial_blocks, name="board"))
    if "labels" in made:
        sections.append(replace(made["labels"], title="Answers"))
    sections += [made[name] for name in ("next", "search", "spend") if name in made]
    if view.trials:
        sections.append(section("", TermsBlock(terms.legend(is_compared=bool(certainty), noun=view.names.noun))))
    sql = sql_link("SELECT * FROM trials WHERE run_id = :run ORDER BY mean DESC", run=view.id)
    name = f"{found['task']} · {view.id}"
    script = "live.js" if is_live else ""
    return Page(name, sections, {"run": found, "board": trials}, sql, script=script)


def _blocks(made: Mapping[str, PageSection], name: str) -> tuple[Block, ...]:
    return made[name].blocks if name in made else ()


def _about(request: PageRequest, view: RunView, is_live: bool) -> Iterator[Block | None]:
    found = view.run
    here = address("run", view.id)
    checked = _checked(request, view.run)
    said = f"{found['task']} · {found['model']} · proposer {found['proposer'] or 'none'} · seed {found['seed']}"
    started = f"run {view.id} · {said} · {parts.moment(found['started_utc'])} UTC · "
    yield line(started, badge(found["status"]), look="soft")
    has = {
        "Report": (f"{here}/report", is_search(found)),
        "Prompt": ("#prompt", view.baseline),
        "Trials": ("#board", True),
        "Rate its answers": (f"{here}/rate", any(trial["state"] == "complete" for trial in view.trials)),
        "Sealed rows": (f"{here}/rows", view.result),
        "Checks over time": (address("checks", checked), checked),
        "Events": (f"{here}/events", True),
        "Compare with another run": (f"/compare?{urlencode({'a': view.id})}", True),
    }
    yield parts.links(PageCell(name, href) for name, (href, is_there) in has.items() if is_there)
    if view.result is not None and view.result.ships_prompt:
        yield line(PageCell("Try the prompt", f"{here}/play", "button main"))
    if found["result"] is None and found["result_hash"] is not None:
        yield parts.box("The result of this run was erased.")
    elif not found["result"] and not is_live:
        why = f" {found['error']}." if found["error"] else ""
        yield parts.box(f"No result: this run is {found['status']}.{why} {sentence(wording.continued(found))}")


def _checked(request: PageRequest, run: Row) -> str:
    # of a check, or of a search whose prompt was checked later
    result = run["result"] or {}
    of_check = result.get("name") if result.get("kind") == KIND else ""
    name = str(of_check or (run["task"] if is_search(run) else ""))
    return name if checks_named(request, name).checks else ""


def _sections(request: PageRequest, view: RunView) -> list[PageSection]:
    result, stored = view.result, view.run["result"] or {}
    if result is not None:
        return request.cached("sections", view.id, lambda: run_sections(result, view, names=SECTIONS))
    if is_comparison(view):
        return []  # its page has other sections
    try:
        found = sections_of(job_result(stored)) if stored.get("kind") else []
    except InputError as error:
        found = [PageSection("result", "Result", (text(str(error)),))]
    return [*found, *[PageSection("spend", "What it cost", tuple(run_tables.spend(view)))] * bool(view.costs)]


def _progress_chart(request: PageRequest, view: RunView) -> list[Block]:
    if not view.trials:
        return []
    name = f"Dev score against calls, run {view.id}"
    draw = partial(charts.progress, view)
    made = ChartBlock("progress", name, draw, trial_tables.best(view))
    return [line("Score against calls", level=2), request.cached("chart", view.id, lambda: made)]


def live(request: PageRequest) -> Page:
    return Page("Progress", [parts.head(f"Progress of {request.names['run']}")], progress(request))


def progress(request: PageRequest) -> dict[str, Any]:
    """Return the progress of a run. Polled every few seconds, so it never reads single calls."""
    history = request.history
    view = RunView(history, request.names["run"])
    (calls,) = history.select(
        "SELECT COUNT(*) AS calls, COALESCE(SUM(state = 'cached'), 0) AS cached, "
        "COALESCE(SUM(CASE WHEN state <> 'cached' THEN prompt_tokens + completion_tokens END), 0) AS tokens, "
        f"{cost_of('calls', 'runs')} AS cost_usd FROM calls JOIN runs ON runs.id = run_id "
        f"WHERE run_id = ? AND {IS_CALL}",
        view.id,
    )
    trials = history.select("SELECT number, state, mean FROM trials WHERE run_id = ?", view.id)
    states = Counter(trial["state"] for trial in trials)
    complete = [trial["mean"] for trial in trials if trial["state"] == "complete" and trial["mean"] is not None]
    training = running_losses(view) if is_comparison(view) else {}
    return {
        **calls,
        "run_id": view.id,
        "status": view.run["status"],
        "planned": max(int((view.run["plan"] or {}).get("calls") or 0), calls["calls"]),
        "trials": states,
        "baseline": next((trial["mean"] for trial in trials if trial["number"] == 0), None),
        "best": max(complete, default=None),
        "training": next(reversed(training), ""),
        "loss": next(reversed(training.values()))[-1] if training else None,
        "changes": len(trials)
        + sum(states[state] for state in ("complete", "pruned", "failed"))
        + sum(map(len, training.values())),
    }


def _progress(view: RunView, now: Mapping[str, Any], is_training: bool) -> Block:
    figures = [
        ("best so far", points(now["best"]), "best", "points"),
        (view.own, points(now["baseline"]), "baseline", "points"),
        ("trials done", str(now["trials"]["complete"]), "complete", "plain"),
        ("cut early", str(now["trials"]["pruned"]), "pruned", "plain"),
        *[("training", now["training"], "training", "plain")] * is_training,
        *[("loss", "-" if now["loss"] is None else f"{now['loss']:.3f}", "loss", "loss")] * is_training,
        ("tokens", str(now["tokens"]), "tokens", "plain"),
        ("cost", dollars(now["cost_usd"]), "cost_usd", "dollars"),
    ]
    shown = tuple((name, value) for name, value, *_ in figures)
    by_name = {name: (key, form) for name, _, key, form in figures}
    url = f"{address('run', view.id)}/live.json"
    return ProgressBlock(now["calls"], now["planned"], "Calls", url, FigureBlock(shown, by_name))


def report(request: PageRequest) -> Page:
    """Return the run and its report; raise InputError if it is no search."""
    row = request.history.search(request.names["run"])
    said = f"{row['model']} · {row['started_utc'][:10]} · as one file to send on: "
    command = PageCell(f"optimize report {row['id']}", tag="code")
    heading = f"Report of {row['task']}"
    about = line(said, command, look="soft")
    head = parts.head(heading, about, above=parts.run_link(row["id"]))
    sections = [head, *report_sections(RunView(request.history, row["id"]))]
    return Page(f"Report · {row['task']}", sections, {"run": row})
