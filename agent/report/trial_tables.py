"""The trials of a run: one table for terminals and pages, the search's progress and what mattered in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from agent.ledger.query import Row
from agent.release.versions import NOUNS
from agent.report import charts, wording
from agent.report.blocks import (
    Block,
    ChartBlock,
    Column,
    PageCell,
    TableBlock,
    cells,
    listing,
    short,
    soft,
    strong,
    table,
    text,
)
from agent.report.optuna_study import importances
from agent.report.terminal import whisker
from agent.report.view import RunView
from agent.report.wording import amount, cut, dollars
from agent.safe_text import counted
from agent.stats.figures import interval, points

BEST, LAST, WORDS = 100, 20, 100
"""Trials of a long search shown on a page, and characters of an instruction in its table."""
REJECTED = 50
AXIS = "0    dev    100"
TAGS: Mapping[str, str] = {
    "complete": "good",
    "running": "base",
    "killed": "bad",
    "failed": "bad",
    **dict.fromkeys((wording.SIDES[0][1], *(f"your {noun}" for noun in NOUNS.values())), "base"),
    wording.RELEASED: "base",
}
"""By word the class of its badge."""
PLAIN = "plain"
"""Class of a badge without a colour."""
TrialColumns = list[tuple[Column, str | Callable[[Any], Any]]]


def trial_blocks(view: RunView) -> Iterator[Block]:
    """Yield the search for a page: progress, trials, importances, rejected candidates."""
    if not view.trials:
        yield text("No trial yet.", on="page")
        return

    yield ChartBlock("progress", "Dev score against calls", partial(charts.progress, view), best(view), on="page")
    yield trials(view)
    yield mattered(view)
    rejected = view.history.rejected(view.id) if view.shows_rows else []
    lines = [f"{row['candidate_id']} {row['operator']}: {cut(row['rejected'], 300)}" for row in rejected[:REJECTED]]
    left = len(rejected) - REJECTED
    more = f"{left} more are left out; `optimize history {view.id}` lists them" if left > 0 else ""
    heading = f"{len(rejected)} candidates were rejected before they were tried"
    yield text(*lines, more, heading=heading, folded=True, on="page")


def best(view: RunView) -> TableBlock:
    """Return the table of the best-so-far line of the progress chart."""
    rows = [(f"trial {trial['number']}", trial["used"], points(trial["mean"]), trial["n"]) for trial in view.best]
    return table("The best so far, by calls made", ("best so far", "after calls #", "dev score #", "rows #"), rows)


def mattered(view: RunView) -> TableBlock:
    """Return the importances of the search's parameters; empty with too few trials."""
    rows = [
        (one.name, f"{one.share:.0%}", cut(one.best, WORDS), points(one.mean), one.trials) for one in importances(view)
    ]
    columns = ("parameter", "importance #", "its best choice ~", "dev score there #", "trials #")
    note = "How far the choices of the best quarter of the trials differ from those of all (PED-ANOVA): a hint only."
    return table("What mattered in the search", columns, rows, note=note, folded=True, on="page")


def badge(word: str) -> PageCell:
    """Make the badge of a state, or of the name of a trial."""
    is_prompt = word and word not in ("complete", "running", "pruned", "incomplete", "interrupted", "budget")
    return PageCell(word, tag=TAGS.get(word, "good" if is_prompt and " " in word else PLAIN)) if word else PageCell("")


def trials(view: RunView, is_whole: bool = False) -> TableBlock:
    """Return the trials in order. Of a long search only the best and the last ones, unless `is_whole`."""
    shown = view.trials
    if len(shown) > BEST + LAST and not is_whole:
        ranked = sorted(shown, key=lambda trial: (trial["state"] == "complete", trial["mean"] or 0.0), reverse=True)
        numbers = {trial["number"] for trial in [*ranked[:BEST], *shown[-LAST:], shown[0]]}
        shown = [trial for trial in shown if trial["number"] in numbers]
    left = len(view.trials) - len(shown)
    note = f"The {BEST} best and the {LAST} last; {left:,} are left out, `optimize history {view.id}` lists all. "
    on_screen: TrialColumns = [
        (Column("trial"), "number"),
        (Column("round", rank=10), "round"),
        (Column("state"), "state"),
        (Column("score", "number"), lambda trial: points(trial["mean"])),
        (
            Column(AXIS, rank=2, drawn=True),
            lambda trial: whisker(trial["mean"], trial["low"], trial["high"], len(AXIS)),
        ),
        (Column("rows", "number"), "n"),
        (Column("technique", rank=1, floor=9), "technique"),
        (Column("format", rank=5, floor=8), "format"),
        (Column("examples", "number", rank=1), "n_examples"),
        (Column("operator", rank=3, floor=11), "operator"),
        (Column("calls", "number", rank=7), _calls),
        (Column("tokens", "number", rank=8), "tokens"),
        (Column("$", "number", rank=9), lambda trial: amount(trial["cost_usd"])),
        (Column("instruction", "long", rank=4, floor=16), lambda trial: short(trial["instruction"], WORDS)),
        (Column("reason", "long", rank=6, floor=16), lambda trial: short(trial["reason"], WORDS)),
    ]
    columns = [(replace(column, on="screen"), of) for column, of in on_screen]
    columns += [(replace(column, on="page"), of) for column, of in trial_columns(view)]
    return listing(
        f"{len(view.trials):,} trials",
        columns,
        shown,
        explained=f"{note * (left > 0)}Scores of pruned trials are over fewer rows: a high one can be luck.",
        folded=True,
        quiet=frozenset(at for at, trial in enumerate(shown) if trial["state"] != "complete"),
    )


def trial_columns(
    view: RunView,
    head: Callable[[str, str], Column] = lambda key, words: Column(words, "number"),
    named: Callable[[Row], Any] = lambda trial: trial["number"],
) -> TrialColumns:
    """Return the columns of trials on a page. `head`: a column to sort by; `named`: the cell of a trial's number."""

    def design(trial: Row) -> str:
        examples = f", {trial['n_examples']} examples" if trial["n_examples"] else ""
        return cells(trial["technique"], soft(trial["format"] + examples))

    def state(trial: Row) -> str:
        which, reason = view.name_of(trial), short(trial["reason"], WORDS)
        return cells(badge(trial["state"]), badge(which), soft(reason))

    return [
        (head("trial", "trial"), named),
        (head("score", "score, 95 % CI"), lambda trial: cells(strong(points(trial["mean"])), soft(around(trial)))),
        (Column("rows", "number"), "n"),
        (Column("state"), state),
        (Column("technique, format"), design),
        (Column("operator"), lambda trial: trial["operator"] or "-"),
        (
            head("tokens", "tokens"),
            lambda trial: cells(f"{trial['tokens'] or 0:,}", soft(counted(_calls(trial), "call"))),
        ),
        (head("cost", "cost"), lambda trial: dollars(trial["cost_usd"])),
        (Column("instruction", "short"), lambda trial: PageCell(short(trial["instruction"], 160), tag="clamp")),
    ]


def around(trial: Row) -> str:
    """Return the ends of the interval of a trial's score; "" without one."""
    return "" if trial["low"] is None else interval(trial["low"], trial["high"])


def _calls(trial: Row) -> int:
    calls: int = trial["calls"] + trial["cached"]
    return calls
