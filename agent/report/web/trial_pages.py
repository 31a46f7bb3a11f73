"""The trials of a run, filtered and sorted by URL parameters, and one trial."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

from agent.errors import InputError
from agent.ledger.query import Row
from agent.report import run_tables, terms, trial_tables
from agent.report.blocks import (
    Block,
    Column,
    DiffBlock,
    PageCell,
    cells,
    group,
    line,
    listing,
    soft,
)
from agent.report.page_blocks import Button, FormBlock, FormField, TermsBlock
from agent.report.prompt_texts import compared_texts
from agent.report.run_blocks import in_full
from agent.report.trial_tables import badge
from agent.report.view import RunView
from agent.report.web import parts
from agent.report.web.page_request import Page, PageRequest, sql_link
from agent.report.web.parts import address, link, section
from agent.report.web.row_pages import NO_ROWS, filtered
from agent.report.wording import dollars
from agent.stats.figures import points

SORTS: Mapping[str, str] = {"score": "mean", "cost": "cost_usd", "tokens": "tokens", "trial": "number"}
FILTERS = ("state", "technique", "format", "operator")


def board(request: PageRequest, view: RunView) -> tuple[dict[str, Any], list[Block]]:
    """Return data and blocks of a page of trials that match the filters."""
    wanted, least, words = {name: request.arg(name) for name in FILTERS}, _least(request), request.arg("text")
    sort = request.arg("sort") if request.arg("sort") in SORTS else "score"
    order = request.arg("order") or ("up" if sort == "trial" else "down")
    found = [
        trial
        for trial in view.trials
        if all(not value or str(trial[name]) == value for name, value in wanted.items())
        and (least is None or (trial["mean"] is not None and 100 * trial["mean"] >= least))
        and words.casefold() in trial["instruction"].casefold()
    ]
    found.sort(key=lambda trial: trial["number"])
    found.sort(key=lambda trial: trial[SORTS[sort]] or 0, reverse=order != "up")
    found.sort(key=lambda trial: trial[SORTS[sort]] is None)
    rows, place = request.paged(found)
    choices = {name: sorted({str(trial[name]) for trial in view.trials if trial[name]}) for name in FILTERS}
    here = f"{address('run', view.id)}#board"
    fields = [FormField(name, wanted[name], name, "select", ("", *choices[name])) for name in FILTERS]
    fields += [
        FormField(
            "least", "" if least is None else f"{least:g}", "score from", more={"inputmode": "decimal", "size": 4}
        ),
        FormField("text", words, "instruction has", more={"size": 14}),
        FormField("sort", sort, "sort by", "select", tuple(SORTS)),
        FormField("order", "up" if order == "up" else "down", "order", "select", ("down", "up")),
    ]
    form = FormBlock(here, tuple(fields), (Button("Show"),), after=(PageCell("all", here),))
    if not rows:
        none = group(line(f"No trial {'passes these filters' if view.trials else 'yet'}."), live="board")
        return {"trials": [], "place": place}, [form, none]
    table = _trial_table(view, rows, sort, order, request.query("sort", "order"))
    ticked = FormBlock("/compare", blocks=(table,), buttons=(parts.COMPARE,), look="")
    listed = group(_marked(view), ticked, parts.pager(place, "trial", len(view.trials)), live="board")
    return {"trials": rows, "place": place}, [form, listed]


def _least(request: PageRequest) -> float | None:
    # lowest score to show, in points; None: all
    try:
        found = float(request.arg("least"))
    except ValueError:
        return None
    return found if abs(found) < 1e9 else None


def _marked(view: RunView) -> Block | None:
    best: list[str] = []
    for trial in view.trials:
        if which := view.name_of(trial):
            number = link(f"trial {trial['number']}", "run", view.id, "trial", trial["number"])
            best += [*[" · "] * bool(best), badge(which), " ", number, f", {points(trial['mean'])} on dev"]
    note = soft(" Scores of pruned trials are over fewer rows: a high one can be luck.")
    return line(*best, ".", note) if best else None


def _trial_table(view: RunView, rows: list[Row], sort: str, order: str, query: str) -> Block:
    def head(name: str, words: str) -> Column:
        is_here, is_down = sort == name, order != "up"
        other = "up" if (is_down if is_here else name == "trial") else "down"
        address = "&".join(filter(None, (query, f"sort={name}&order={other}")))
        sorted_by = ("descending" if is_down else "ascending") if is_here else ""
        return Column(PageCell(words, f"?{address}#board"), "number", sort=sorted_by)

    def number(trial: Row) -> str:
        own = trial["number"]
        return cells(parts.pick(f"{view.id}:{own}", f"trial {own}"), link(str(own), "run", view.id, "trial", own))

    return listing("Trials", trial_tables.trial_columns(view, head, number), rows)


def trial(request: PageRequest) -> Page:
    """Return a trial's prompt, and its dev answers next to the baseline's."""
    view = RunView(request.history, request.names["run"])
    number = request.path_number("number")
    numbered = {row["number"]: row for row in request.history.trials(view.id, [0, number])}
    if number not in numbered or 0 not in numbered:
        raise InputError(f"{view.id}: no trial {number}")
    one = numbered[number]
    own = view.own
    which = view.name_of(one)
    base, candidate = (request.history.candidate(numbered[n]["candidate_id"]) for n in (0, number))
    interval = f" · 95 % CI {trial_tables.around(one)}" if one["low"] is not None else ""
    about = f" {one['n']} rows{interval} · {own} {points(numbered[0]['mean'])} · {one['technique']}, "
    about += f"{one['format']}, {one['n_examples']} examples · "
    about += f"{one['tokens'] or 0:,} tokens, {dollars(one['cost_usd'])}"
    against = f"/compare?{urlencode({'a': f'{view.id}:0', 'b': f'{view.id}:{number}'})}"
    head = parts.head(
        f"Trial {number}{which and f': {which}'} · {points(one['mean'])} points on dev",
        line(badge(one["state"]), about, look="soft"),
        line(*_made(request, view, one), look="soft") if one["operator"] else None,
        line(f"ended: {one['reason']}", look="soft") if one["reason"] else None,
        parts.links([PageCell(f"Compare with {own}", against)]),
        above=parts.run_link(view.id),
    )
    diff = DiffBlock(*compared_texts(base, candidate), old_name=own, new_name="this one") if number else None
    whole = in_full("the prompt", candidate, folded=bool(number))
    pairs = [pair for pair in view.pairs("dev", base["id"], candidate["id"]) if pair.two is not None]
    sides = (own, *[f"trial {number}"] * bool(number))
    data, blocks = filtered(request, pairs, sides)
    answers = section(
        f"Answers on dev, next to {own}'s",
        None if view.examples.get("dev") else parts.box(NO_ROWS),
        *blocks,
        TermsBlock(terms.legend(is_compared=number > 0, noun=view.names.noun)),
        name="rows",
    )
    sql = sql_link(
        "SELECT example_id, value, call_key, body FROM outcomes LEFT JOIN blobs ON hash = body_hash "
        "WHERE run_id = :run AND candidate_id = :candidate AND split = 'dev'",
        run=view.id,
        candidate=candidate["id"],
    )
    sections = [head, section("Prompt", diff, whole, run_tables.demos(candidate["demos"])), answers]
    return Page(f"Trial {number} · {view.run['task']}", sections, {"trial": one, **data}, sql)


def _made(request: PageRequest, view: RunView, one: Row) -> Iterator[str]:
    yield f"made by {one['operator']}"
    same = "SELECT number FROM trials WHERE run_id = ? AND candidate_id = ? LIMIT 1"
    for parent in request.history.select(same, view.id, one["parent_id"]):
        yield " from "
        yield link(f"trial {parent['number']}", "run", view.id, "trial", parent["number"])
    if one["proposal"]:
        yield f": {one['proposal']}"
