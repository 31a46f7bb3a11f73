"""A report that holds no text of the user's rows: for places where the rows must not go."""

from __future__ import annotations

from functools import cached_property

from agent.ledger.query import Row
from agent.report.html import render, report_values, style
from agent.report.view import RowPair, RunView
from agent.types import SplitName


class RunWithoutRows(RunView):
    """A run without demos, inputs, right answers and replies. What a prompt says beside its demos stays."""

    @cached_property
    def baseline(self) -> Row | None:
        return without_demos(super().baseline)

    @cached_property
    def winner(self) -> Row | None:
        return without_demos(super().winner)

    def pairs(self, split: SplitName, one: str, two: str) -> list[RowPair]:
        return []


def without_demos(candidate: Row | None) -> Row | None:
    """A candidate as its instruction alone, where its messages hold demos."""
    if candidate is None or not holds_rows(candidate):
        return candidate
    return {**candidate, "demos": [], "template": [{"role": "system", "content": candidate["instruction"]}]}


def holds_rows(candidate: Row) -> bool:
    """Whether a candidate shows rows: fixed demos, or such that are picked for each input."""
    return bool(candidate["demos"] or candidate.get("picks"))


def report_without_rows(history_view: RunView) -> str:
    """The report of a search without the texts of rows. Raises InputError for a run of another kind."""
    values = report_values(RunWithoutRows(history_view.history, history_view.id))
    details = {**values.get("details", {}), "quotes": []}
    return render("report.html", **{**values, "details": details, "slices": [], "rejected": []}, style=style())
