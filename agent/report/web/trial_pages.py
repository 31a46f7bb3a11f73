"""The trials of a run, filtered and sorted by URL parameters, and one trial."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any
from urllib.parse import urlencode

from agent.errors import InputError
from agent.ledger.query import Row
from agent.report import run_tables, terms, wording
from agent.report.blocks import Block, Column, DiffBlock, PageCell, PageSection, cells, group, line, listing, text
from agent.report.page_blocks import Button, FormBlock, FormField, TermsBlock
from agent.report.prompt_texts import compared_texts, whole_prompt
from agent.report.run_blocks import PROMPT_LETTERS
from agent.report.view import RunView
from agent.report.web.page_request import Page, PageRequest, sql_link
from agent.report.web.parts import (
    address,
    badge,
    crumbs,
    link,
    links,
    pager,
    section,
    soft,
    strong,
    title,
)
from agent.report.web.row_pages import ROW_FILTERS, filtered, row_blocks
from agent.report.wording import dollars, points

SORTS: Mapping[str, str] = {"score": "mean", "cost": "cost_usd", "tokens": "tokens", "trial": "number"}
FILTERS = ("state", "technique", "format", "operator")
COMPARE = Button("Compare the two that are ticked")


def board(request: PageRequest, view: RunView) -> dict[str, Any]:
    """Return one page of the trials that match the filters, in the requested order."""
    wanted = {name: request.arg(name) for name in FILTERS}
    least, words = _least(request), request.arg("text").casefold()
    sort = request.arg("sort") if request.arg("sort") in SORTS else "score"
    down = request.arg("order", "up" if sort == "trial" else "down") != "up"
    trials = [
        trial
        for trial in view.trials
        if all(not value or str(trial[name]) == value for name, value in wanted.items())
        and (least is None or (trial["mean"] is not None and 100 * trial["mean"] >= least))
        and words in trial["instruction"].casefold()
    ]
    key = SORTS[sort]
    trials.sort(key=lambda trial: trial["number"])
    trials.sort(key=lambda trial: trial[key] or 0, reverse=down)
    trials.sort(key=lambda trial: trial[key] is None)
    rows, place = request.paged(trials)
    choices = {name: sorted({str(trial[name]) for trial in view.trials if trial[name]}) for name in FILTERS}
    return {
        "trials": [{**trial, "which": wording.which(trial, view.result, view.baseline_words)} for trial in rows],
        "place": place,
        "of": len(view.trials),
        "choices": choices,
        "wanted": {**wanted, "least": "" if least is None else f"{least:g}", "text": request.arg("text")},
        "sort": sort,
        "order": "down" if down else "up",
        "sorts": {name: request.query("sort", "order") for name in SORTS},
    }


def _least(request: PageRequest) -> float | None:
    # lowest score to show, in points; None: all
    try:
        found = float(request.arg("least"))
    except ValueError:
        return None
    return found if abs(found) < 1e9 else None


def board_blocks(view: RunView, data: Mapping[str, Any], here: str) -> Iterator[Block]:
    shown, wanted = data["board"], data["board"]["wanted"]
    fields = [FormField(name, wanted[name], name, "select", ("", *of)) for name, of in shown["choices"].items()]
    fields += [
        FormField("least", wanted["least"], "score from", more={"inputmode": "decimal", "size": 4}),
        FormField("text", wanted["text"], "instruction has", more={"size": 14}),
        FormField("sort", shown["sort"], "sort by", "select", tuple(SORTS)),
        FormField("order", shown["order"], "order", "select", ("down", "up")),
    ]
    everything = (PageCell("all", f"{here}#board"),)
    yield FormBlock(f"{here}#board", tuple(fields), (Button("Show"),), after=everything)
    if not shown["trials"]:
        none = line(f"No trial {'passes these filters' if shown['of'] else 'yet'}.")
        yield group(none, live="board")
        return
    best: list[str] = []
    for one in data["marked"]:
        number = link(f"trial {one['number']}", "run", view.id, "trial", one["number"])
        best += [*[" · "] * bool(best), badge(one["which"]), " ", number, f", {points(one['mean'])} on dev"]
    note = soft(" Scores of pruned trials are over fewer rows: a high one can be luck.")
    rows = FormBlock("/compare", blocks=(_trial_table(view, shown, here),), buttons=(COMPARE,), look="")
    told = line(*best, ".", note) if best else None
    yield group(told, rows, pager(shown["place"], "trial", shown["of"]), live="board")


def _trial_table(view: RunView, shown: Mapping[str, Any], here: str) -> Block:
    def head(name: str, words: str) -> Column:
        is_here, is_down = shown["sort"] == name, shown["order"] == "down"
        order = "up" if (is_down if is_here else name == "trial") else "down"
        query = "&".join(filter(None, (shown["sorts"][name], f"sort={name}&order={order}")))
        sort = ("descending" if is_down else "ascending") if is_here else ""
        return Column(PageCell(words, f"?{query}#board"), "number", sort=sort)

    def number(trial: Row) -> str:
        own = trial["number"]
        return cells(pick(f"{view.id}:{own}", f"trial {own}"), PageCell(str(own), f"{here}/trial/{own}"))

    def design(trial: Row) -> str:
        examples = f", {trial['n_examples']} examples" if trial["n_examples"] else ""
        return cells(trial["technique"], soft(trial["format"] + examples))

    return listing(
        "Trials",
        [
            (head("trial", "trial"), number),
            (
                head("score", "score, 95 % CI"),
                lambda trial: cells(strong(points(trial["mean"])), soft(interval(trial))),
            ),
            ("rows #", "n"),
            ("state", lambda trial: cells(badge(trial["state"]), badge(trial["which"]))),
            ("technique, format", design),
            ("operator", lambda trial: trial["operator"] or "-"),
            (head("tokens", "tokens"), "tokens"),
            (head("cost", "cost"), lambda trial: dollars(trial["cost_usd"])),
            (Column("instruction", "short"), lambda trial: PageCell(_start(trial["instruction"]), tag="clamp")),
        ],
        shown["trials"],
    )


def pick(value: str, words: str) -> PageCell:
    return PageCell(f"Compare {words}", value, "pick")


def _start(words: str) -> str:
    return words if len(words) <= 160 else f"{words[:159]}…"


def interval(trial: Row) -> str:
    return "" if trial["low"] is None else f"{points(trial['low'])} to {points(trial['high'])}"


def trial(request: PageRequest) -> Page:
    """Return one trial: its prompt, and its answers on the dev rows next to the baseline's."""
    view = RunView(request.history, request.names["run"])
    number = request.path_number("number")
    numbered = {row["number"]: row for row in request.history.trials(view.id, [0, number])}
    if number not in numbered or 0 not in numbered:
        raise InputError(f"{view.id}: no trial {number}")
    base, own = (request.history.candidate(numbered[n]["candidate_id"]) for n in (0, number))
    pairs = [pair for pair in view.pairs("dev", base["id"], own["id"]) if pair.two is not None]
    parent, here = numbered[number]["parent_id"], f"{address('run', view.id)}/trial/{number}"
    data = {
        "run": {name: view.run[name] for name in ("id", "task", "model")},
        "own": asdict(view.baseline_words),
        "trial": numbered[number],
        "baseline": {name: numbered[0][name] for name in ("number", "mean", "low", "high", "n", "candidate_id")},
        "parent": _number_of(request, view.id, parent) if parent else None,
        "whole_prompt": wording.cut(whole_prompt(own), PROMPT_LETTERS),
        "which": wording.which(numbered[number], view.result, view.baseline_words),
        "demos": own["demos"],
        **filtered(request, pairs, ROW_FILTERS),
        "rows_known": bool(view.examples.get("dev")),
    }
    sql = sql_link(
        "SELECT example_id, value, call_key, body FROM outcomes LEFT JOIN blobs ON hash = body_hash "
        "WHERE run_id = :run AND candidate_id = :candidate AND split = 'dev'",
        run=view.id,
        candidate=own["id"],
    )
    texts = compared_texts(base, own) if number else None
    shown = partial(_trial_page, view, data, texts, here)
    name = f"Trial {number} · {view.run['task']}"
    return Page(name, data, shown, f"{here}.json?rows={data['shown']}", sql)


def _trial_page(
    view: RunView, data: Mapping[str, Any], texts: tuple[str, str] | None, here: str
) -> Iterator[PageSection]:
    one, own, back = data["trial"], view.baseline_words, address("run", view.id)
    number = one["number"]
    score = f"{' · 95 % CI ' + interval(one) if one['low'] is not None else ''} · {own.name} "
    score += f"{points(data['baseline']['mean'])} · {one['technique']}, format {one['format']}, "
    score += f"{one['n_examples']} examples · {one['tokens']} tokens, {dollars(one['cost_usd'])}"
    which = f": {data['which']}" if data["which"] else ""
    head = f"Trial {number}{which} · {points(one['mean'])} points on dev"
    made: list[str] = [f"made by {one['operator']}"]
    if data["parent"] is not None:
        made += [" from ", PageCell(f"trial {data['parent']}", f"{back}/trial/{data['parent']}")]
    made += [f": {one['proposal']}"] * bool(one["proposal"])
    against = f"/compare?{urlencode({'a': f'{view.id}:0', 'b': f'{view.id}:{number}'})}"
    yield section(
        "",
        crumbs(f"run {view.id}", "run", view.id),
        title(head),
        line(badge(one["state"]), f" {one['n']} rows{score}", look="soft"),
        line(*made, look="soft") if one["operator"] else None,
        line(f"ended: {one['reason']}", look="soft") if one["reason"] else None,
        links([PageCell(f"Compare with {own.phrase}", against)]),
    )
    diff = DiffBlock(*texts, old_name=own.short, new_name="this one") if texts else None
    whole = text(data["whole_prompt"], heading="The prompt in full", exact=True, folded=bool(texts))
    yield section("Prompt", diff, whole, *run_tables.demos(data["demos"]))
    sides = (own.name, *[f"trial {number}"] * bool(number))
    yield section(
        f"Answers on dev, next to {own.phrase}'s",
        *row_blocks(data, here, sides),
        TermsBlock(terms.legend(is_compared=number > 0)),
        name="rows",
    )


def _number_of(request: PageRequest, run_id: str, candidate_id: str) -> int | None:
    rows = request.history.select(
        "SELECT number FROM trials WHERE run_id = ? AND candidate_id = ? LIMIT 1", run_id, candidate_id
    )
    return rows[0]["number"] if rows else None
